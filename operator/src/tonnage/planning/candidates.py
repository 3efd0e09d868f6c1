"""What could be: the rungs of the quality ladder for a question, each sized to the byte."""

from __future__ import annotations

from dataclasses import dataclass

from tonnage.engines import KV_ELEMENT_BYTES
from tonnage.models import CacheSpec, ChunkedLocal, CrossAttention, FullAttention, SlidingWindow
from tonnage.planning.demand import Question
from tonnage.planning.fit import lay_out
from tonnage.planning.memory import KvLayout, blocks_for, blocks_per_request
from tonnage.planning.plan import MemoryBytes, Quality
from tonnage.planning.settle import Device, EngineOptions

MARGIN_BLOCKS = 1
"""Blocks beyond the need: an engine with exactly one request's worth starts but can wait for itself for ever
(vLLM issue 39734, pull request 47272)."""

_FLOAT_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
_ACTIVATION_WIDTHS = 16
_LOGIT_BYTES = 12
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A step of the quality ladder: how much may be lost, and the KV dtype that stands for it."""

    quality: Quality
    kv_dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One rung, sized: the KV layout, the blocks the workload needs and the bytes of one rank by purpose."""

    rung: Rung
    layout: KvLayout
    block_tokens: int
    batched_tokens: int
    blocks: int
    memory: MemoryBytes
    request_bytes: int


def rungs(question: Question) -> tuple[Rung, ...]:
    """The rungs the demand allows, least lossy first; a pinned KV dtype leaves one."""
    pinned = question.demand.kv_dtype
    if pinned is not None:
        return (Rung(quality=quality_of(pinned), kv_dtype=pinned),)
    ladder = [Rung(quality=Quality.LOSSLESS, kv_dtype="auto")]
    if question.demand.quality is not Quality.LOSSLESS and fp8_possible(question):
        ladder.append(Rung(quality=Quality.NEAR_LOSSLESS, kv_dtype="fp8"))
    return tuple(ladder)


def quality_of(kv_dtype: str) -> Quality:
    """What a KV dtype may lose: 8-bit floats are near lossless, the model's own width loses nothing."""
    return Quality.NEAR_LOSSLESS if KV_ELEMENT_BYTES.get(kv_dtype, 2) == 1 else Quality.LOSSLESS


def fp8_possible(question: Question) -> bool:
    """Whether this engine computes this model rightly with an fp8 KV cache."""
    if question.model.shape.fixed_kv_dtype:
        return False
    if "fp8" not in question.engine.allowed_kv_dtypes(latent=question.latent):
        return False
    return all(
        size % question.engine.fp8_head_multiple == 0
        for spec, _ in question.model.shape.cache_runs
        for size in head_sizes(spec)
    )


def head_sizes(spec: CacheSpec) -> tuple[int, ...]:
    """The head sizes an attention kernel must be made for; none for latent attention."""
    if isinstance(spec, FullAttention | SlidingWindow | ChunkedLocal | CrossAttention):
        return (spec.head_size, spec.head_size_v)
    return ()


def size(rung: Rung, *, question: Question) -> Candidate:
    """The bytes that hold the workload exactly: one request at the context length, or `concurrency`
    typical ones.

    What is not KV does not depend on the nodes, and the KV cache is no larger than the workload needs, so
    a node that joins changes nothing.
    """
    engine, demand = question.engine, question.demand
    batched_tokens = engine.batched_tokens(
        latent=question.latent, max_num_seqs=demand.concurrency, context_tokens=question.context_tokens
    )
    laid = lay_out(
        question.model.shape,
        device=Device(compute_capability=None),
        options=EngineOptions(
            dtype=question.dtype,
            kv_dtype=rung.kv_dtype,
            context_tokens=question.context_tokens,
            max_num_seqs=demand.concurrency,
            max_num_batched_tokens=batched_tokens,
        ),
        engine_version=engine.version,
    )
    layout = laid.layout
    blocks = needed_blocks(layout, question=question)
    memory = _memory(question, batched_tokens=batched_tokens, kv_bytes=blocks * layout.bytes_per_block)
    return Candidate(
        rung=rung,
        layout=layout,
        block_tokens=laid.paging.block_tokens,
        batched_tokens=batched_tokens,
        blocks=blocks,
        memory=memory,
        request_bytes=_whole_mib(memory.total + engine.shared_memory_bytes),
    )


def _whole_mib(amount_bytes: int) -> int:
    return -(-amount_bytes // _MIB) * _MIB


def needed_blocks(layout: KvLayout, *, question: Question) -> int:
    """Blocks for the workload, the engine's null block and the margin."""
    longest = blocks_per_request(layout, length_tokens=question.context_tokens)
    typical = blocks_for(layout, requests=question.demand.concurrency, length_tokens=question.typical_tokens)
    return max(longest, typical) + question.engine.null_blocks + MARGIN_BLOCKS


def resident_weight_bytes(question: Question) -> int:
    """Bytes of the weights once loaded: floating-point tensors in the serving dtype, others as stored.

    Embeddings are padded to a multiple of rows, and kept twice where the engine packs a copy for its kernels
    (vllm/model_executor/layers/vocab_parallel_embedding.py, layers/utils.py `dispatch_cpu_unquantized_gemm`).
    """
    shape, engine = question.model.shape, question.engine
    element_bytes = KV_ELEMENT_BYTES[question.dtype]
    loaded = sum(
        stored * 8 // _FLOAT_BITS[dtype] * element_bytes if dtype in _FLOAT_BITS else stored
        for dtype, stored in question.model.weights.bytes_by_dtype
    )
    padding_rows = -shape.vocab_size % engine.padded_vocab_multiple
    copied_rows = shape.vocab_size + padding_rows if engine.copies_embeddings else 0
    tables = 1 if shape.tied_embeddings else 2
    return loaded + tables * (padding_rows + copied_rows) * shape.hidden_size * element_bytes


def _memory(question: Question, *, batched_tokens: int, kv_bytes: int) -> MemoryBytes:
    return MemoryBytes(
        context=0,
        non_torch=question.engine.overhead_bytes,
        weights=resident_weight_bytes(question),
        activation=_activation_bytes(question, batched_tokens=batched_tokens),
        graphs=0,
        burst_margin=0,
        kv=kv_bytes,
    )


def _activation_bytes(question: Question, *, batched_tokens: int) -> int:
    """An upper estimate: 16 hidden widths per token of a step, and 12 bytes per logit of a sampled token.

    16 widths cover the residual stream, queries, keys and values and a gated MLP of up to 4 times the
    hidden size; 12 bytes are a float32 logit and two copies in the sampler. Not measured on a large model
    on CPU.
    """
    shape = question.model.shape
    step = batched_tokens * shape.hidden_size * _ACTIVATION_WIDTHS * KV_ELEMENT_BYTES[question.dtype]
    return step + question.demand.concurrency * shape.vocab_size * _LOGIT_BYTES
