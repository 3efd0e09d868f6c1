"""From a model and settled options to paged layers: which kernel each cache gets, the block size of the
engine, and the bytes of each page.

Source: vllm/platforms/interface.py `update_block_size_for_backend`, vllm/platforms/cpu.py,
vllm/model_executor/layers/attention/*.py `get_kv_cache_spec` of vLLM 0.32.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import lcm, prod
from typing import Final

from tonnage.engines import (
    CPU_ATTENTION,
    CPU_LATENT,
    LATENT_STATE_BYTES,
    SPARSE_INDEXER,
    GpuRules,
    Kernel,
    Need,
    NoKernelError,
    choose_kernel,
    element_bytes,
    head_state_bytes,
    is_quantized,
    kernel_named,
)
from tonnage.models import (
    ELEMENT_BYTES,
    MODEL,
    CacheSpec,
    ChunkedLocal,
    CrossAttention,
    FullAttention,
    LatentAttention,
    Layer,
    Parameter,
    RecurrentState,
    SlidingWindow,
    TokenBytes,
    Trait,
)
from tonnage.planning.memory import Kind, LayerCaches, PagedLayer, ceil_div
from tonnage.planning.settle import RefusedError, Settled, attention_free
from tonnage.planning.weights import IndivisibleError, size_of, stage_bounds

HeadedSpec = FullAttention | SlidingWindow | ChunkedLocal | CrossAttention
_TURBOQUANT_BOUNDARY: Final = 2
_CPU_FLOAT32_STATES: Final = frozenset({"mamba1", "mamba2", "gdn_attention", "linear_attention"})
_PACKED_LATENT_KERNELS: Final[Mapping[str, frozenset[str]]] = {
    "FLASHMLA_SPARSE": frozenset({"fp8", "fp8_e4m3", "fp8_ds_mla"}),
    "FLASHINFER_MLA_SPARSE_SM120": frozenset({"auto", "fp8", "fp8_e4m3", "fp8_ds_mla"}),
}
"""KV dtypes that a kernel stores in DeepSeek's own layout
(mla_attention.py `_canonicalize_sparse_mla_kv_cache_dtype`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """How the caches of a model are paged: the engine's block size, its kernels in layer order, and the
    caches of every run of layers."""

    block_tokens: int
    kernels: tuple[str, ...]
    kv_dtype: str
    runs: tuple[LayerCaches, ...]
    block_outermost: bool


def page(settled: Settled) -> Paging:
    """The paged layers of a settled start. Raises `RefusedError`."""
    pager = _Pager(settled)
    return Paging(
        block_tokens=pager.block_tokens,
        kernels=tuple(kernel.name for kernel in pager.kernels),
        kv_dtype=pager.stored_kv_dtype,
        runs=tuple(pager.runs()),
        block_outermost=Trait.BLOCK_OUTERMOST in settled.shape.traits,
    )


class _Pager:
    """Works out one start; every step is computed once, when it is first asked for."""

    def __init__(self, settled: Settled) -> None:
        self.settled = settled
        self.shape = settled.shape
        self.tensor = settled.options.tensor_parallel
        self.model_bytes = ELEMENT_BYTES[settled.dtype]
        self._kernels: dict[tuple[CacheSpec, bool], Kernel] = {}

    # Layers

    @cached_property
    def spans(self) -> list[tuple[Layer, int, bool]]:
        """(layer, how many, whether they skip the KV dtype), in model order."""
        skipped = self.skipped_layers
        spans: list[tuple[Layer, int, bool]] = []
        position = 0
        for run in self.shape.layers:
            start = position
            for end in [*_changes(skipped, position, position + run.layers), position + run.layers]:
                if end > start:
                    spans.append((run.layer, end - start, start in skipped))
                start = end
            position += run.layers
        return spans

    @cached_property
    def skipped_layers(self) -> frozenset[int]:
        """Layers that store the model's dtype: those that the user names, and the outermost of dense models
        with TurboQuant (turboquant/config.py `get_boundary_skip_layers`)."""
        total = sum(run.layers for run in self.shape.layers)
        named = {int(name) for name in self.settled.options.kv_dtype_skip_layers if name.isdecimal()}
        if self.kv_dtype.startswith("turboquant_") and not self.hybrid:
            edge = min(_TURBOQUANT_BOUNDARY, total // 2)
            named |= {*range(edge), *range(total - edge, total)}
        return frozenset(layer for layer in named if layer < total)

    @cached_property
    def skips_windows(self) -> bool:
        """Whether all sliding-window layers skip the KV dtype."""
        return "sliding_window" in self.settled.options.kv_dtype_skip_layers

    @cached_property
    def skips_any(self) -> bool:
        """Whether the engine's list of skipped layers has an entry."""
        return bool(self.settled.options.kv_dtype_skip_layers) or bool(self.skipped_layers)

    @cached_property
    def hybrid(self) -> bool:
        """Whether attention and recurrent state are mixed."""
        return self.shape.recurrent and not attention_free(self.shape)

    @cached_property
    def kv_dtype(self) -> str:
        """The run's KV dtype; families whose layers ignore it store their own."""
        return "auto" if self.shape.fixed_kv_dtype else self.settled.kv_dtype

    def layer_dtype(self, spec: CacheSpec, *, skipped: bool) -> str:
        """The KV dtype of one layer."""
        if skipped or (self.skips_windows and isinstance(spec, SlidingWindow)):
            return "auto"
        return self.kv_dtype

    @cached_property
    def stored_kv_dtype(self) -> str:
        """The KV dtype as the engine names it once kernels are chosen."""
        packs = [_PACKED_LATENT_KERNELS.get(kernel.name, frozenset()) for kernel in self.kernels]
        return "fp8_ds_mla" if any(self.kv_dtype in dtypes for dtypes in packs) else self.settled.kv_dtype

    # Kernels

    def kernel(self, spec: CacheSpec, *, skipped: bool) -> Kernel:
        """The kernel that serves a cache."""
        key = (spec, skipped)
        if key not in self._kernels:
            self._kernels[key] = self._choose(spec, skipped=skipped)
        return self._kernels[key]

    def _choose(self, spec: CacheSpec, *, skipped: bool) -> Kernel:
        if self.settled.on_cpu:
            return CPU_LATENT if isinstance(spec, LatentAttention | TokenBytes) else CPU_ATTENTION
        if isinstance(spec, TokenBytes):
            return SPARSE_INDEXER
        try:
            return choose_kernel(self._need(spec, skipped=skipped))
        except NoKernelError as error:
            raise RefusedError(
                "no_attention_backend",
                f"no attention backend of the engine runs this model here: {str(error)[:400]}",
            ) from None

    def _need(self, spec: CacheSpec, *, skipped: bool) -> Need:
        capability = self.settled.device.compute_capability
        if capability is None or isinstance(spec, TokenBytes | RecurrentState):
            raise RefusedError("no_attention_backend", "this cache has no attention kernel of its own")
        traits, options = self.shape.traits, self.settled.options
        latent = isinstance(spec, LatentAttention)
        if isinstance(spec, LatentAttention):
            size, size_v, heads = spec.latent_size, spec.latent_size, 1
        else:
            size, size_v, heads = spec.head_size, spec.head_size_v, self.rank_heads(spec.kv_heads)
        return Need(
            capability=capability,
            head_size=size,
            head_size_v=size_v,
            kv_dtype=self.layer_dtype(spec, skipped=skipped),
            dtype=self.settled.dtype,
            latent=latent,
            sparse=Trait.SPARSE in traits and latent,
            sinks=Trait.SINKS in traits,
            softcap=Trait.SOFTCAP in traits,
            bidirectional_images=Trait.BIDIRECTIONAL_IMAGES in traits,
            encoder=isinstance(spec, CrossAttention),
            query_heads=self.shape.num_attention_heads // self.tensor,
            kv_heads=heads,
            block_tokens=options.block_tokens,
            context_parallel=options.decode_context_parallel > 1,
            quantized_run=is_quantized(self.kv_dtype),
            uniform_flash_attention=self._uniform_flash_attention(capability),
        )

    def _uniform_flash_attention(self, capability: tuple[int, int]) -> int | None:
        """models/config.py `Gemma4Config`: one FlashAttention version for heads of different sizes."""
        if Trait.UNEVEN_HEADS not in self.shape.traits or capability[0] not in {9, 10, 11}:
            return None
        return None if capability[0] == 9 and self.kv_dtype.startswith("fp8") else 4

    @cached_property
    def kernels(self) -> list[Kernel]:
        """Distinct attention kernels in layer order (`_find_non_ssm_backends`), with the block sizes they
        state for the model's head size."""
        found: dict[str, Kernel] = {}
        distinct = {(id(layer), skipped): (layer, skipped) for layer, _, skipped in self.spans}
        for layer, skipped in distinct.values():
            for spec in layer.caches:
                if isinstance(spec, RecurrentState):
                    continue
                kernel = self.kernel(spec, skipped=skipped)
                if kernel.name not in found:
                    found[kernel.name] = self._as_the_model(kernel, spec, skipped=skipped)
        return list(found.values())

    def _as_the_model(self, kernel: Kernel, spec: CacheSpec, *, skipped: bool) -> Kernel:
        if self.settled.on_cpu or not isinstance(spec, HeadedSpec) or spec.head_size == self.shape.head_size:
            return kernel
        need = self._need(spec, skipped=skipped)
        size = self.shape.head_size
        return kernel_named(kernel.name, replace(need, head_size=size, head_size_v=size))

    # Block size

    @cached_property
    def block_tokens(self) -> int:
        """`CacheConfig.block_size` once the engine has settled it."""
        return self._for_skipped(self._for_states(self._plain_block))

    @cached_property
    def _plain_block(self) -> int:
        stated = self.settled.options.block_tokens
        if isinstance(self.settled.rules, GpuRules):
            default = self.settled.rules.default_block_tokens
            return stated or (self._shared_block(default) if self.kernels else default)
        if self.shape.latent:
            return self.settled.rules.latent_block_tokens
        return stated or self.settled.rules.default_block_tokens

    def _shared_block(self, default: int) -> int:
        """The smallest block that every kernel accepts (`_preferred_block_size_for_backends`)."""
        if Trait.BLOCK_OUTERMOST in self.shape.traits:
            return self._stated_blocks(default)
        if len(self.kernels) == 1:
            return self.kernels[0].preferred_block(default)
        if all(kernel.runs_blocks_of(default) for kernel in self.kernels):
            return default
        candidates = {1}
        for kernel in self.kernels:
            candidates = {lcm(size, other.tokens) for size in candidates for other in kernel.block_sizes}
        return min(candidates)

    def _stated_blocks(self, default: int) -> int:
        specs = [spec for spec, _ in self.shape.cache_runs if isinstance(spec, TokenBytes)]
        return max((spec.block_tokens for spec in specs), default=0) or default

    def _for_states(self, block: int) -> int:
        """`_align_hybrid_block_size`: pages of attention at least as large as a state."""
        state = self.state_bytes
        if not self.hybrid or not state or not self.kernels:
            return block
        first = self.kernels[0]
        align = max(first.smallest_block, block)
        align = max(align, 128) if self.shape.latent and not self.settled.on_cpu else align
        token = self.token_bytes(self.kv_dtype, first)
        if self.state_mode == "all":
            chunk = lcm(self._chunk_tokens, align)
            wanted = chunk * ceil_div(ceil_div(state, token), chunk)
        else:
            wanted = align * ceil_div(state, align * token)
            common = lcm(*(kernel.smallest_block for kernel in self.kernels))
            wanted = common * ceil_div(wanted, common) if self._newest else wanted
        return max(block, wanted)

    def _for_skipped(self, block: int) -> int:
        """`_align_heterogeneous_kv_block_size`: a quantized page at least as large as an unquantized one."""
        if not self.skips_any or self.settled.on_cpu or not self.kernels:
            return block
        first = self.kernels[0]
        primary, skipped = self._skipping_token_bytes
        if skipped <= primary:
            return block
        align = max(first.smallest_block, block)
        needed = max(skipped * first.smallest_block, self._aligned_state_page)
        return max(block, align * ceil_div(needed, align * primary))

    @cached_property
    def _aligned_state_page(self) -> int:
        if not self.hybrid:
            return 0
        aligned = self._for_states(self._plain_block) * self.token_bytes(self.kv_dtype, self.kernels[0])
        return aligned if aligned != self.state_bytes else 0

    @cached_property
    def skipped_page(self) -> int | None:
        """The page that all caches share where layers skip the KV dtype, None where they need not."""
        if not self.skips_any or self.settled.on_cpu or not self.kernels:
            return None
        primary, skipped = self._skipping_token_bytes
        return self.block_tokens * primary if skipped > primary else None

    @property
    def _skipping_token_bytes(self) -> tuple[int, int]:
        """Bytes of one token in a layer that stores the KV dtype, and in one that skips it."""
        first = self.kernels[0]
        stored = "auto" if self.shape.fixed_kv_dtype else self.stored_kv_dtype
        return self.token_bytes(stored, first), self.token_bytes("auto", first)

    def token_bytes(self, kv_dtype: str, kernel: Kernel) -> int:
        """Bytes of one token in one layer as the engine probes them: the model's heads and head size."""
        if self.shape.latent:
            return self.shape.head_size * element_bytes(kv_dtype, model_bytes=self.model_bytes)
        state = head_state_bytes(
            kv_dtype,
            kernel="TURBOQUANT" if self.hybrid and kv_dtype.startswith("turboquant_") else kernel.name,
            head_size=self.shape.head_size,
            head_size_v=self.shape.head_size,
            model_bytes=self.model_bytes,
        )
        return self.model_heads * state

    @cached_property
    def model_heads(self) -> int:
        """KV heads of one rank, of the whole model (`ModelConfig.get_num_kv_heads`)."""
        heads = [spec.kv_heads for spec, _ in self.shape.cache_runs if isinstance(spec, HeadedSpec)]
        return self.rank_heads(heads[0]) if heads else 1

    # States

    @cached_property
    def state_mode(self) -> str:
        """`mamba_cache_mode`: "none", "align" (a few states per request) or "all" (one for each block)."""
        if not self.settled.prefix_caching:
            return "none"
        rules = self.settled.rules
        whole = rules.whole_state_kinds if isinstance(rules, GpuRules) else frozenset()
        kinds = {spec.kind for spec in self.state_specs}
        return "all" if kinds and kinds <= whole else "align"

    @cached_property
    def state_specs(self) -> list[RecurrentState]:
        """Distinct recurrent states."""
        return list(
            dict.fromkeys(spec for spec, _ in self.shape.cache_runs if isinstance(spec, RecurrentState))
        )

    @cached_property
    def state_bytes(self) -> int:
        """Bytes of the largest state on one rank."""
        return max((self._state_bytes(spec) for spec in self.state_specs), default=0)

    @cached_property
    def _chunk_tokens(self) -> int:
        return max((spec.chunk_tokens for spec in self.state_specs), default=0) or 2048

    @cached_property
    def _newest(self) -> bool:
        rules = self.settled.rules
        return not isinstance(rules, GpuRules) or rules.caches_hybrid_prefixes

    def _state_bytes(self, spec: RecurrentState) -> int:
        tensors = spec.tensors
        if self.settled.on_cpu and spec.kind in _CPU_FLOAT32_STATES:
            # platforms/cpu.py: the scan's state, the last tensor, is kept in float32.
            tensors = (*tensors[:-1], replace(tensors[-1], element="float32"))
        return sum(self._tensor_bytes(tensor) for tensor in tensors)

    def _tensor_bytes(self, tensor: Parameter) -> int:
        element = self.model_bytes if tensor.element == MODEL else ELEMENT_BYTES[tensor.element]
        try:
            sizes = [size_of(dimension, self.tensor) for dimension in tensor.dimensions]
        except IndivisibleError as error:
            raise RefusedError("tp_not_divisible", str(error)) from None
        return element * tensor.count * prod(sizes)

    # Pages

    def rank_heads(self, heads: int) -> int:
        """KV heads of one rank: divided, and copied once there is one per rank (`get_num_kv_heads`)."""
        if heads % self.tensor and self.tensor % heads:
            raise RefusedError(
                "tp_not_divisible",
                f"{heads} KV heads do not divide among {self.tensor} tensor parallel ranks",
            )
        return max(1, heads // self.tensor)

    def runs(self) -> Iterator[LayerCaches]:
        """The caches of all layers, stage by stage."""
        bounds = stage_bounds(
            sum(run.layers for run in self.shape.layers), self.settled.options.pipeline_parallel
        )
        position = 0
        known: dict[tuple[int, bool], tuple[PagedLayer, ...]] = {}
        for layer, count, skipped in self.spans:
            caches = known.get((id(layer), skipped))
            if caches is None:
                caches = tuple(self._paged(spec, skipped=skipped) for spec in layer.caches)
                known[id(layer), skipped] = caches
            for stage, (begin, end) in enumerate(bounds):
                held = min(position + count, end) - max(position, begin)
                if held > 0 and caches:
                    yield LayerCaches(caches=caches, layers=held, stage=stage)
            position += count

    def _paged(self, spec: CacheSpec, *, skipped: bool) -> PagedLayer:
        if isinstance(spec, RecurrentState):
            return self._paged_state(spec)
        if isinstance(spec, TokenBytes):
            return self._paged_bytes(spec)
        dtype = self.layer_dtype(spec, skipped=skipped)
        kernel = self.kernel(spec, skipped=skipped)
        if isinstance(spec, LatentAttention):
            return self._paged_latent(spec, dtype, kernel)
        heads = self.rank_heads(spec.kv_heads)
        token = heads * head_state_bytes(
            dtype,
            kernel=kernel.name,
            head_size=spec.head_size,
            head_size_v=spec.head_size_v,
            model_bytes=self.model_bytes,
        )
        shape = (heads, spec.head_size, spec.head_size_v, dtype)
        if isinstance(spec, SlidingWindow):
            return self._paged_window(spec, token, shape, kernel)
        kind, remembered = Kind.FULL, 0
        if isinstance(spec, ChunkedLocal):
            kind, remembered = Kind.CHUNKED, spec.chunk_tokens
        elif isinstance(spec, CrossAttention):
            # config/scheduler.py: max_num_encoder_input_tokens is max_num_batched_tokens.
            kind, remembered = Kind.CROSS, self.settled.max_num_batched_tokens
        return PagedLayer(
            kind=kind,
            block_tokens=self.block_tokens,
            page_bytes=self.block_tokens * token,
            shape=shape,
            remembered_tokens=remembered,
        )

    def _paged_window(
        self, spec: SlidingWindow, token: int, shape: tuple[int | str, ...], kernel: Kernel
    ) -> PagedLayer:
        # Attention.get_kv_cache_spec: the largest block the kernel runs unsplit within the primary page.
        budget = self.skipped_page or token * self.block_tokens
        block = kernel.largest_block_within(budget // token)
        return PagedLayer(
            kind=Kind.WINDOW,
            block_tokens=block,
            page_bytes=self.skipped_page or block * token,
            shape=shape,
            remembered_tokens=spec.window_tokens,
        )

    def _paged_latent(self, spec: LatentAttention, dtype: str, kernel: Kernel) -> PagedLayer:
        if dtype in _PACKED_LATENT_KERNELS.get(kernel.name, frozenset()):
            dtype = "fp8_ds_mla"
        token = LATENT_STATE_BYTES.get(dtype) or spec.latent_size * element_bytes(
            dtype, model_bytes=self.model_bytes
        )
        return PagedLayer(
            kind=Kind.LATENT,
            block_tokens=self.block_tokens,
            page_bytes=self.block_tokens * token,
            shape=(spec.latent_size, dtype),
        )

    def _paged_bytes(self, spec: TokenBytes) -> PagedLayer:
        block = spec.block_tokens or self.block_tokens
        states = block // spec.tokens_per_state
        if not states:
            raise RefusedError(
                "unsupported_block_size",
                f"a block of {block} tokens has no entry of a cache that has one per {spec.tokens_per_state}",
            )
        return PagedLayer(
            kind=Kind.LATENT_WINDOW if spec.window_tokens else Kind.LATENT,
            block_tokens=block,
            page_bytes=ceil_div(states * spec.bytes_per_state, spec.alignment) * spec.alignment,
            shape=(spec.role, spec.bytes_per_state, spec.tokens_per_state),
            remembered_tokens=spec.window_tokens,
        )

    def _paged_state(self, spec: RecurrentState) -> PagedLayer:
        size = self._state_bytes(spec)
        block = self.settled.context_tokens if self.state_mode == "none" else self.block_tokens
        padded = size
        if self.hybrid and self.kernels:
            padded = self.block_tokens * self.token_bytes(self.kv_dtype, self.kernels[0])
        return PagedLayer(
            kind=Kind.STATE,
            block_tokens=block,
            page_bytes=max(padded, size),
            shape=(spec.kind, size),
            remembered_tokens=self.block_tokens if self.state_mode == "all" else 0,
            state_blocks=self._state_blocks(spec),
        )

    def _state_blocks(self, spec: RecurrentState) -> int:
        """States a request holds (`MambaSpec.max_memory_usage_bytes`)."""
        if self.state_mode == "none":
            return 1
        rules = self.settled.rules
        checkpoints = rules.checkpoint_kinds if isinstance(rules, GpuRules) else frozenset({"mamba2"})
        return 2 + (spec.kind in checkpoints)


def _changes(marked: frozenset[int], begin: int, end: int) -> list[int]:
    """Positions in [begin, end) where "is marked" changes."""
    return [at for at in range(begin + 1, end) if (at in marked) != (at - 1 in marked)]
