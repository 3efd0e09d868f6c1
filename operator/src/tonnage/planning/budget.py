"""Bytes that are left for the KV cache on one GPU: the device's total, less everything else by purpose.

The laws were found in start-up logs of vLLM on many cards and checked on an H200
(`tests/data/vllm_startup_logs.jsonl`, ids such as C141; `tests/data/gpu_rows.jsonl`, ids such as qwen3-8b).
Plans pin the bytes of the KV cache, so the engine neither measures nor subtracts anything: what must hold is
that all purposes together stay within the device. Every term is therefore a likely figure and an upper one,
and only upper ones are subtracted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from tonnage.engines import GpuRules
from tonnage.models import ELEMENT_BYTES, Dimension, Layer, ModelShape, Parameter, Trait
from tonnage.models.parameters import Rounding
from tonnage.planning.fit import LaidOut
from tonnage.planning.plan import MemoryBytes
from tonnage.planning.weights import size_of

_MIB: Final = 2**20
_GIB: Final = 2**30

_ASSUMED_EXPERTS_PER_TOKEN: Final = 8
_MOST_LATENT_ROWS: Final = 64 * 1024
_LINKED_MAJORS: Final = frozenset({9, 10})
_ALL_SIZES: Final = 51


@dataclass(frozen=True, slots=True)
class Term:
    """Bytes of one purpose: what is likely, and what was never exceeded where it was measured."""

    likely: int
    upper: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A start whose bytes are asked for.

    `weights` are bytes of the parameters on the fullest rank. `captured_sizes` counts the batch sizes of CUDA
    graphs, 0 where the engine runs eagerly.
    """

    laid: LaidOut
    weights: int
    captured_sizes: int

    @property
    def shape(self) -> ModelShape:
        """The model."""
        return self.laid.settled.shape

    @property
    def tensor(self) -> int:
        """Tensor parallel size."""
        return self.laid.settled.options.tensor_parallel

    @property
    def ranks(self) -> int:
        """Ranks of one replica."""
        return self.tensor * self.laid.settled.options.pipeline_parallel

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability of the cards."""
        found = self.laid.settled.device.compute_capability
        if found is None:
            raise ValueError("a budget is of GPUs; CPU nodes have none")
        return found

    @property
    def tokens(self) -> int:
        """Tokens of one step."""
        return self.laid.settled.max_num_batched_tokens

    @property
    def sequences(self) -> int:
        """Requests of one step."""
        return self.laid.settled.max_num_seqs


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """All bytes of one device by purpose; `total_bytes` is what may be used of it.

    The engine counts non-torch memory, weights and activations within its share (`--gpu-memory-utilization`),
    and graphs too from 0.21 on; the context and bursts are outside it.
    """

    total_bytes: int
    context: Term
    non_torch: Term
    weights: Term
    activation: Term
    graphs: Term
    burst_margin: Term

    @property
    def other_bytes(self) -> int:
        """Upper bytes of everything but the KV cache."""
        return sum(term.upper for term in self._terms)

    @property
    def likely_bytes(self) -> int:
        """Likely bytes of everything but the KV cache."""
        return sum(term.likely for term in self._terms)

    @property
    def kv_bytes(self) -> int:
        """What is left for the KV cache, negative where the rest does not fit."""
        return self.total_bytes - self.other_bytes

    @property
    def _terms(self) -> tuple[Term, ...]:
        return (
            self.context,
            self.non_torch,
            self.weights,
            self.activation,
            self.graphs,
            self.burst_margin,
        )

    def memory(self, *, kv_bytes: int) -> MemoryBytes:
        """The upper bytes, as a plan states them, with a KV cache of `kv_bytes`."""
        return MemoryBytes(
            context=self.context.upper,
            non_torch=self.non_torch.upper,
            weights=self.weights.upper,
            activation=self.activation.upper,
            graphs=self.graphs.upper,
            burst_margin=self.burst_margin.upper,
            kv=kv_bytes,
        )


def budget(load: Load, *, total_bytes: int) -> Budget:
    """The bytes of one device. Raises `IndivisibleError` where ranks cannot share the model."""
    forward, sampler, encoder = _forward(load), _sampler(load), _encoder(load)
    activation = Term(
        likely=max(forward.likely, _profiled_sampler(load), encoder.likely),
        upper=max(forward.upper, sampler.upper, encoder.upper),
    )
    return Budget(
        total_bytes=total_bytes,
        context=_context(load),
        non_torch=_non_torch(load),
        weights=_weights(load),
        activation=activation,
        graphs=_graphs(load),
        burst_margin=_burst_margin(activation, forward, sampler),
    )


def share_of(total_bytes: int, *, clients: int) -> int:
    """What one of `clients` of a time-sliced device may use: nothing but the others' plans keeps it free."""
    return total_bytes // clients


def _context(load: Load) -> Term:
    """What the CUDA context, and NCCL where there are several ranks, took before the engine's first look.

    Total less free at the start: 0.51 GiB on H200 (all rows) and H100 (C001 to C062 with one rank), 0.25 on
    L4 (C081), 0.49 on four L40S (C198). Over NVLink 1.53 to 2.07 with 2 or 4 ranks (C028, C032), 2.16 with 8
    (C148), 2.47 on Blackwell (C142). The upper figure of several ranks on PCIe is one start's 1.4 (C169).
    """
    if load.ranks == 1:
        return _gib(0.51, 0.6)
    return _gib(1.54, 2.6) if _linked(load) else _gib(0.5, 1.5)


def _non_torch(load: Load) -> Term:
    """Device memory outside PyTorch's allocator: NCCL, workspaces, kernels.

    0.22 to 0.27 GiB with one rank (H200 rows, C001 to C062), once 0.46 (C013). Over NVLink 2.06 to 2.09 with
    2 ranks (C028, C037), 2.13 to 2.21 with 4 (C029, C038), 2.43 the most that a vLLM of today logged (C146).
    On PCIe 0.21 with 4 (C198); its upper figure is a guess. Ranks of pipeline stages count like the others:
    no start with them alone was logged.
    """
    if load.ranks == 1:
        return _gib(0.25, 0.5)
    if not _linked(load):
        return _gib(0.21, 1.0)
    return _gib(2.07, 2.6) if load.ranks <= 4 else _gib(2.3, 3.0)


def _weights(load: Load) -> Term:
    """The parameters, and what the allocator rounds up or kernels copy.

    On an H200 0.01 to 0.13 GiB more than the parameters (all rows). Latent attention keeps its up-projections
    once more, in the model's dtype (mla_attention.py 0.32 `process_weights_after_loading`: W_UK_T and W_UV).
    """
    slack = load.weights // 500 + 128 * _MIB
    return Term(likely=load.weights, upper=load.weights + slack + _latent_copies(load))


def _latent_copies(load: Load) -> int:
    shape = load.shape
    if not shape.latent:
        return 0
    # The latent vector holds rotary elements too, and `head_elements` counts them: both a little too large.
    per_head = shape.head_size * shape.head_elements * _element_bytes(load)
    layers = -(-shape.num_layers // load.laid.settled.options.pipeline_parallel)
    return layers * -(-shape.num_attention_heads // load.tensor) * per_head


def _forward(load: Load) -> Term:
    """The peak of a forward pass of `tokens`, fitted on H200 rows.

    Dense, eager: 32 MiB + 2 bytes x tokens x (3 x intermediate + q x hidden), q 3 to 5, within 0.03 GiB
    (qwen3-8b to gemma2-default); 1.52 times that where the model is compiled (qwen3-8b-graph). "3 x
    intermediate" is one and a half times the widest tensor of a layer, which holds for other layers too.
    Routed experts: three vectors of the wider side for each token and expert (qwen3-30b-a3b,
    nemotron3-nano-30b: up to four). Latent attention up-projects its workspace, of at most 64k tokens
    (mla_attention.py 0.32 `determine_chunked_prefill_workspace_size`): 4.0 GiB with 128 heads
    (deepseek-v3-6l-fp8).
    """
    shape, tokens, element = load.shape, load.tokens, _element_bytes(load)
    dense, experts = _widths(load)
    dense = 3 * dense // 2 * (2 if shape.recurrent else 1)
    routed = element * tokens * _experts_per_token(shape) * experts
    latent = _latent_workspace(load)
    compiled = 152 if load.captured_sizes else 100
    likely, upper = (element * tokens * (dense + q * shape.hidden_size) * compiled // 100 for q in (4, 5))
    return Term(
        likely=likely + 3 * routed + latent * 4 // 5 + 32 * _MIB,
        upper=upper * 11 // 10 + 4 * routed + latent + 96 * _MIB,
    )


def _latent_workspace(load: Load) -> int:
    shape, settled = load.shape, load.laid.settled
    if not shape.latent:
        return 0
    pages = 4 * load.sequences * load.laid.paging.block_tokens
    rows = max(min(max(8 * settled.context_tokens, pages), _MOST_LATENT_ROWS), pages // 4)
    heads = -(-shape.num_attention_heads // load.tensor)
    # Keys without their rotary part, and values; `head_elements` counts that part too.
    return rows * heads * shape.head_elements * _element_bytes(load)


def _sampler(load: Load) -> Term:
    """Logits and their copies while tokens are drawn: 14 bytes x sequences x vocabulary, whatever the ranks.

    14.07 and 0.2 GiB in 14 starts of 0.19 with vocabularies above 90,000; 14 and 126 MiB on an H200
    (qwen3-8b-v1-s1024-t2048, gpt-oss-20b-s1024-t16384). Up to 0.44 GiB more with routed experts (C055, C044),
    0.3 with an image encoder (C032).
    """
    logits, hidden = load.sequences * load.shape.vocab_size, 2 * load.tokens * load.shape.hidden_size
    more = 448 * _MIB if _has_experts(load.shape) or Trait.MULTIMODAL in load.shape.traits else 0
    return Term(likely=14 * logits + hidden + 126 * _MIB, upper=15 * logits + hidden + 192 * _MIB + more)


def _profiled_sampler(load: Load) -> int:
    """What the engine's own profile sees of it: the second model runner skips most of the sampler
    (v1/worker/gpu/model_runner.py 0.32 `_dummy_sampler_run`), and needs it later all the same."""
    rules = load.laid.settled.rules
    if not isinstance(rules, GpuRules) or not rules.second_runner(load.shape.architecture):
        return _sampler(load).likely
    logits, hidden = load.sequences * load.shape.vocab_size, 2 * load.tokens * load.shape.hidden_size
    return 2 * logits + hidden + 42 * _MIB


def _encoder(load: Load) -> Term:
    """Images at the largest budget of a step: 9.96 GiB of activations in all with 16,384 tokens (vLLM pull
    request 21489, Gemma 3). One report; few models."""
    if Trait.MULTIMODAL not in load.shape.traits:
        return Term(0, 0)
    return Term(likely=load.tokens * 2 * _MIB // 5, upper=load.tokens * 3 * _MIB // 5)


def _graphs(load: Load) -> Term:
    """CUDA graphs: grow with layers and captured sizes, and more with routed experts.

    With 51 sizes 0.60 GiB (qwen3-8b-graph) to 1.01 (qwen3-8b-press-bf16) on an H200; in logs of 0.19 0.64 to
    1.61, 0.91 the median of 36 layers or fewer (C001 to C062); 2.37 for a hybrid of 48 layers (C141), 3.45
    for 94 layers with experts (C198).
    """
    if not load.captured_sizes:
        return Term(0, 0)
    layers = sum(run.layers for run in load.shape.layers)
    likely = 0.35 + 0.02 * layers * load.captured_sizes / _ALL_SIZES
    likely += 0.4 if _has_experts(load.shape) else 0
    return _gib(likely, 1.35 * likely + 0.4)


def _burst_margin(activation: Term, forward: Term, sampler: Term) -> Term:
    """What real requests take beyond what was profiled: the allocator holds what a forward pass and what the
    sampler took at once, and pieces of other sizes (H200 rows, device memory after a burst: up to 1.9 GiB for
    dense models, 4.0 for deepseek-v3-6l-fp8)."""
    both = forward.upper + sampler.upper - activation.upper
    return Term(
        likely=max(0, forward.likely + sampler.likely - activation.likely),
        upper=max(0, both) + activation.upper // 8 + 256 * _MIB,
    )


def _linked(load: Load) -> bool:
    """Whether cards of this kind come with NVLink; those that do not take no more for it."""
    return load.capability == (8, 0) or load.capability[0] in _LINKED_MAJORS


def _widths(load: Load) -> tuple[int, int]:
    """The widest tensor of any layer on one rank, outside and within routed experts, in elements."""
    dense, experts = 0, 0
    for layer in _layers(load.shape):
        for parameter in layer.parameters:
            if len(parameter.dimensions) > 1:
                width = max(_width(dimension, load) for dimension in parameter.dimensions)
                if parameter.experts:
                    experts = max(experts, width)
                else:
                    dense = max(dense, width)
    return dense, experts


def _width(dimension: Dimension, load: Load) -> int:
    plain = replace(dimension, per=1, rounding=Rounding.UP, fits=())
    return size_of(plain, load.tensor, capability=load.capability)


def _layers(shape: ModelShape) -> Iterator[Layer]:
    known: set[int] = set()
    for run in shape.layers:
        if id(run.layer) not in known:
            known.add(id(run.layer))
            yield run.layer


def _experts_per_token(shape: ModelShape) -> int:
    most = max((each.experts for each in _routed(shape)), default=0)
    return min(most, shape.experts_per_token or _ASSUMED_EXPERTS_PER_TOKEN)


def _has_experts(shape: ModelShape) -> bool:
    return any(True for _ in _routed(shape))


def _routed(shape: ModelShape) -> Iterator[Parameter]:
    return (each for layer in _layers(shape) for each in layer.parameters if each.experts)


def _element_bytes(load: Load) -> int:
    return ELEMENT_BYTES[load.laid.settled.dtype]


def _gib(likely: float, upper: float) -> Term:
    return Term(likely=int(likely * _GIB), upper=int(upper * _GIB))
