"""Device memory of one engine step: what a forward pass and what the sampler hold at their peaks.

Laws by architecture, found on an H200 with vLLM 0.26 (tests/data/gpu_rows.jsonl, ids such as qwen3-8b) and in
start-up logs of 0.9 to 0.20 (tests/data/vllm_startup_logs.jsonl, ids such as C018). "Vector" is one hidden
vector of every token of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tonnage.models import Trait
from tonnage.planning.load import Load
from tonnage.planning.term import MIB, Term, largest, nothing, term

_MOST_LATENT_ROWS: Final = 64 * 1024
_STAGE_VECTORS: Final = 3
_COLD_ADAPTERS: Final = 0.058


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """`steady` is the largest peak of steps, as far as the engine's profile sees it, and `profiled` what that
    profile finds: at a start that compiles more. `forward` and `sampler` are the two peaks, the
    sampler's whole where the profile leaves most of it out; `kept` stays allocated between steps without
    being profiled."""

    steady: Term
    profiled: Term
    forward: Term
    sampler: Term
    kept: Term


def activation(load: Load) -> Activation:
    """Both peaks, and what the engine measures of them.

    One peak at a time: qwen3-8b-v1-s1024-t2048 and gpt-oss-20b-s1024-t16384 are the sampler's to 0.02 GiB,
    the dense rows of 8192 tokens the forward pass's.
    """
    warm, sampler, workspace = _forward(load), _sampler(load), _expert_workspace(load)
    peak = largest((warm, _profiled_sampler(load, sampler), _encoder(load)), source=warm.source)
    steady = _sum(peak, workspace)
    return Activation(
        steady=steady,
        profiled=largest((steady, _compiling(load)), source="the largest of compiling, forward, sampler"),
        forward=_sum(largest((warm, _encoder(load)), source=warm.source), workspace),
        sampler=_sum(sampler, workspace),
        kept=_kept(load),
    )


def _sum(first: Term, second: Term) -> Term:
    return Term(
        first.lower + second.lower, first.likely + second.likely, first.upper + second.upper, first.source
    )


def _forward(load: Load) -> Term:
    """The peak of a forward pass beside the experts' workspace."""
    dense, latent, routed = _dense(load), _latent(load), _packed_experts(load)
    vectors = load.rules.compiled_vectors if load.graph_sizes else 0.0
    if load.stages > 1:
        vectors += _STAGE_VECTORS
    most = max(dense, latent) + routed + vectors * _vector(load) + _matmul_workspace(load)
    likely = most - 3 * routed // 8 + _quantized_input(load)
    doubled = dense if load.shape.recurrent else 0
    return term(
        likely,
        lower=0.8 * likely,
        upper=1.1 * most + doubled + 2 * routed + 2 * _vector(load) + 64 * MIB,
        source="H200, 0.26: dense rows exact, others within 0.2 GiB",
    )


def _compiling(load: Load) -> Term:
    """The peak of a start that compiles: its first kernel, which reads the token table, is measured on a
    copy of it. Slots of adapters take 4.6 MiB each, of which one holds 79 (C157, C158, C160, C162: 1, 8, 16
    and 64 of them beside a table of 742 MiB). Experts have no workspace yet: qwen3-30b-a3b-graph."""
    if not (load.graph_sizes and load.rules.copies_table):
        return nothing()
    table = -(-load.shape.vocab_size // load.tensor) * load.shape.hidden_size * load.element_bytes
    likely = table + 2 * _vector(load) + MIB + _COLD_ADAPTERS * load.adapter_bytes
    return term(
        likely if load.cold else 0,
        lower=0,
        upper=likely + _vector(load) + 64 * MIB,
        source="fill-8b-control to fill-70b-fp8-control",
    )


def _dense(load: Load) -> float:
    """3 x intermediate elements of each token beside 3 (Llama), 4 (Qwen) or 5 (Gemma) vectors: exact to the
    MiB in all dense eager rows, qwen3-0.6b to qwen3-32b. "3 x intermediate" is what `wide_elements` says of
    joined gate and up projections; models without a gate were not measured."""
    wide = load.tokens * load.element_bytes * load.wide_elements
    return wide + load.rules.vectors(load.shape.architecture) * _vector(load)


def _vector(load: Load) -> int:
    return load.tokens * load.shape.hidden_size * load.element_bytes


def _latent(load: Load) -> float:
    """Latent attention up-projects a workspace of at most 64k tokens (mla_attention.py 0.32
    `determine_chunked_prefill_workspace_size`) beside its queries and four vectors: deepseek-v2-lite to 0.03
    GiB, deepseek-v3-6l-fp8 to 0.1."""
    shape, settled = load.shape, load.laid.settled
    if not shape.latent:
        return 0.0
    pages = 4 * load.sequences * load.laid.paging.block_tokens
    rows = max(min(max(8 * settled.context_tokens, pages), _MOST_LATENT_ROWS), pages // 4)
    heads = -(-shape.num_attention_heads // load.tensor)
    # `head_elements` are a key with its rotary part and a value, 128 + 64 + 128: keys are three fifths of it,
    # keys without that part and values four fifths.
    state = heads * shape.head_elements * load.element_bytes
    return rows * state * 4 / 5 + load.tokens * state * 3 / 5 + 4 * _vector(load)


def _packed_experts(load: Load) -> int:
    """Experts that stay in four bits are computed without a workspace: at most each token's way through one
    expert in and out, five eighths of it as a rule (gpt-oss-20b-s64-t16384 to 0.01 GiB, t2048 to 0.01)."""
    if not load.packed_experts:
        return 0
    _, narrow = load.expert_widths
    return load.element_bytes * load.tokens * load.experts_per_token * 2 * narrow


def _expert_workspace(load: Load) -> Term:
    """Two buffers of every token's way through its experts, made once and kept: exact in what stays allocated
    after the profile of qwen3-30b-a3b, deepseek-v2-lite, nemotron3-nano-30b and deepseek-v3-6l-fp8, and in
    the peaks of C002, C044 and C055 (fused_moe/modular_kernel.py, experts/triton: `workspace_shapes`)."""
    if load.packed_experts or not load.expert_widths[0]:
        return nothing()
    inner, outer = load.expert_widths
    likely = load.element_bytes * load.tokens * load.experts_per_token * (inner + outer)
    if not load.rules.expert_workspace:
        return Term(0, 0, likely, "before 0.17 not seen beside the sampler (C141)")
    # Kernels of other generations were not measured.
    most = 1.1 if load.capability[0] == 9 else 2.0
    return term(likely, lower=0.8 * likely, upper=most * likely, source="H200, 0.26, and 0.19 on H100")


def _sampler(load: Load) -> Term:
    """Logits of every sequence and their copies while tokens are drawn, whatever the ranks: 14.07 bytes a
    logit from 0.17 on, 38.9 before. Up to 0.25 GiB more with an image encoder, whose output is kept (C010,
    C032, C039), which is counted half."""
    rules, logits = load.rules, load.sequences * load.shape.vocab_size
    images = 160 * MIB if Trait.MULTIMODAL in load.shape.traits else 0
    likely = (rules.logit_bytes + load.element_bytes) * logits + _vector(load) + rules.sampler_bytes + images
    return term(
        likely,
        lower=0.8 * (likely - images),
        upper=likely + logits + 80 * MIB + images,
        source="14 starts of 0.19 on H100 within 0.06 GiB; six of 0.26 on H200 within 0.05",
    )


def _profiled_sampler(load: Load, whole: Term) -> Term:
    """What the engine's own profile sees of it: the second model runner skips most of the sampler
    (v1/worker/gpu/model_runner.py 0.32 `_dummy_sampler_run`), and needs it later all the same."""
    if not load.second_runner:
        return whole
    rules, logits = load.rules, load.sequences * load.shape.vocab_size
    likely = (rules.lean_logit_bytes + load.element_bytes) * logits + _vector(load) + rules.lean_sampler_bytes
    return term(likely, lower=0.9 * likely, upper=whole.upper, source="qwen3-8b-s1024-t2048: exact")


def _kept(load: Load) -> Term:
    """The second runner's counter, and bit, of every token of the vocabulary for every sequence, which its
    profile does not see: 0.15 GiB with 256 sequences, 0.30 with 512 (qwen3-8b-graph, qwen3-8b-press-bf16)."""
    if not (load.second_runner and load.rules.keeps_counts):
        return nothing()
    likely = load.sequences * load.shape.vocab_size * 33 // 8
    return term(likely, lower=likely, upper=1.1 * likely, source="H200, 0.26: exact")


def _encoder(load: Load) -> Term:
    """An image encoder at the largest budget of a step. Not measured: it never was the larger peak."""
    if Trait.MULTIMODAL not in load.shape.traits:
        return nothing()
    return Term(0, load.tokens * MIB // 10, load.tokens * 3 * MIB // 5, "no start was its peak")


def _quantized_input(load: Load) -> int:
    """Weights with scales for blocks get their input in 8 bits, of which the widest stands beside the rest in
    a dense model (h100-qwen3-32b-fp8; not with scales for whole tensors: fill-70b-fp8-control)."""
    if load.shape.quantization != "fp8" or load.expert_widths[0]:
        return 0
    return int(load.tokens * load.wide_elements / 3)


def _matmul_workspace(load: Load) -> int:
    """cuBLAS (pytorch aten/src/ATen/cuda/CublasHandlePool.cpp `parseChosenWorkspaceSize`): 32 MiB on Hopper,
    8 before; Blackwell is taken for Hopper."""
    return (32 if load.capability[0] >= 9 else 8) * MIB
