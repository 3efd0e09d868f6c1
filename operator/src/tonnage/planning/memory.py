"""KV-cache arithmetic, exactly as the engine does it: layers -> groups -> blocks -> tokens and requests,
and back.

Source: vllm/v1/core/kv_cache_utils.py and vllm/v1/kv_cache_interface.py of vLLM 0.32.0. All functions are
pure; bytes, blocks and tokens are integers of one rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tonnage.models import CacheSpec, FullAttention, LatentAttention, LayerRun, SlidingWindow


class LayoutError(ValueError):
    """The engine could not lay out these layers either, or its answer is not known here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KvSettings:
    """What the engine is told: tokens per block, bytes of one stored element, and its scheduling.

    `in_flight_tokens` is `max_num_batched_tokens` times the batches in flight (vllm/config/vllm.py
    `max_in_flight_tokens`); `kernel_block_tokens` is the unit the attention backend's block sizes are
    multiples of. `hybrid_manager` False allocates sliding-window layers as full attention when both kinds
    are present.
    """

    block_tokens: int
    element_bytes: int
    in_flight_tokens: int
    kernel_block_tokens: int = 1
    tensor_parallel: int = 1
    hybrid_manager: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedLayer:
    """How one layer is paged: its spec, the tokens of its block and the bytes of its page."""

    spec: CacheSpec
    block_tokens: int
    page_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KvGroup:
    """Layers that share one block table; a request takes its blocks once per group."""

    paged: tuple[PagedLayer, ...]

    @property
    def bytes_per_block(self) -> int:
        """Bytes of one block: one page of each layer."""
        return sum(layer.page_bytes for layer in self.paged)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvLayout:
    """The groups of a model under given settings, and the bytes of one block of the shared pool."""

    groups: tuple[KvGroup, ...]
    bytes_per_block: int
    in_flight_tokens: int


def kv_layout(runs: Iterable[LayerRun], *, settings: KvSettings) -> KvLayout:
    """The engine's KV groups for `runs` of layers.

    Order of attempts as in `get_kv_cache_groups`: one group if all layers store the same; one group with
    summed pages if all are of one type; else equal page sizes and groups of equal length. Raises
    `LayoutError`.
    """
    specs = [_on_one_rank(run.spec, settings.tensor_parallel) for run in runs for _ in range(run.layers)]
    if not specs:
        raise LayoutError("the model has no layer that keeps a KV cache")
    if not settings.hybrid_manager:
        specs = _promote_windows(specs)
    paged = [_paged(spec, settings) for spec in specs]
    groups = [KvGroup(paged=tuple(paged))] if _one_type(specs) else _groups_of_equal_pages(paged)
    return KvLayout(
        groups=tuple(groups),
        # Layer-outermost layouts: the widest group (`_get_kv_cache_bytes_per_block`).
        bytes_per_block=max(group.bytes_per_block for group in groups),
        in_flight_tokens=settings.in_flight_tokens,
    )


def blocks_in(layout: KvLayout, *, kv_bytes: int) -> int:
    """Blocks the engine makes of `kv_bytes` (`get_kv_cache_config_from_groups`)."""
    return max(kv_bytes, 0) // layout.bytes_per_block


def blocks_per_request(layout: KvLayout, *, length_tokens: int) -> int:
    """Blocks that one request of `length_tokens` may hold, over all groups."""
    return sum(_group_blocks(group, layout.in_flight_tokens, length_tokens) for group in layout.groups)


def concurrency(layout: KvLayout, *, blocks: int, length_tokens: int) -> float:
    """Requests of `length_tokens` that `blocks` hold, as the engine prints it: the null block is not
    subtracted.

    `get_max_concurrency_for_kv_cache_config`: one float division, repeated here so that the figures are
    equal.
    """
    return blocks / blocks_per_request(layout, length_tokens=length_tokens)


def engine_tokens(layout: KvLayout, *, blocks: int, context_tokens: int) -> int:
    """The engine's "KV cache size: N tokens" (`get_kv_cache_capacity`): int(concurrency * max_model_len)."""
    return int(concurrency(layout, blocks=blocks, length_tokens=context_tokens) * context_tokens)


def fits_one_request(layout: KvLayout, *, kv_bytes: int, context_tokens: int) -> bool:
    """Whether the engine would start with `kv_bytes`: one request of `context_tokens` beside the null
    block."""
    needed = layout.bytes_per_block * (1 + blocks_per_request(layout, length_tokens=context_tokens))
    return kv_bytes >= needed


def longest_context(layout: KvLayout, *, kv_bytes: int, limit_tokens: int) -> int:
    """The longest `max_model_len` up to `limit_tokens` that `kv_bytes` serve, 0 if none.

    The figure the engine suggests in its own error (`_estimate_max_model_len_from_groups`), found by
    bisection.
    """
    low, high = 0, limit_tokens
    while low < high:
        middle = (low + high + 1) // 2
        if fits_one_request(layout, kv_bytes=kv_bytes, context_tokens=middle):
            low = middle
        else:
            high = middle - 1
    return low


def blocks_for(layout: KvLayout, *, requests: int, length_tokens: int) -> int:
    """Blocks that hold `requests` of `length_tokens` at once; the null block is not counted."""
    return requests * blocks_per_request(layout, length_tokens=length_tokens)


def bytes_for(layout: KvLayout, *, requests: int, length_tokens: int, spare_blocks: int = 1) -> int:
    """KV bytes for `requests` of `length_tokens`; `spare_blocks` are the null block and any margin."""
    blocks = blocks_for(layout, requests=requests, length_tokens=length_tokens) + spare_blocks
    return blocks * layout.bytes_per_block


def bytes_per_token(runs: Iterable[LayerRun], *, element_bytes: int) -> int:
    """Bytes that one token adds to the cache while every layer still remembers it."""
    return sum(run.layers * _token_elements(run.spec) * element_bytes for run in runs)


def _token_elements(spec: CacheSpec) -> int:
    if isinstance(spec, LatentAttention):
        return spec.latent_size
    return spec.kv_heads * (spec.head_size + spec.head_size_v)


def _on_one_rank(spec: CacheSpec, tensor_parallel: int) -> CacheSpec:
    # vllm/config/model.py get_num_kv_heads: heads are divided, and replicated once there is one per rank.
    if isinstance(spec, LatentAttention):
        return spec
    return replace(spec, kv_heads=max(1, spec.kv_heads // tensor_parallel))


def _promote_windows(specs: list[CacheSpec]) -> list[CacheSpec]:
    # unify_hybrid_kv_cache_specs: only a mixture is promoted; windows alone stay windows.
    if not any(isinstance(spec, FullAttention) for spec in specs):
        return specs
    return [
        FullAttention(kv_heads=spec.kv_heads, head_size=spec.head_size, head_size_v=spec.head_size_v)
        if isinstance(spec, SlidingWindow)
        else spec
        for spec in specs
    ]


def _paged(spec: CacheSpec, settings: KvSettings) -> PagedLayer:
    block_tokens = settings.block_tokens
    if isinstance(spec, SlidingWindow):
        # Attention.get_kv_cache_spec: the largest block the kernel runs unsplit within the primary page.
        unit = settings.kernel_block_tokens
        block_tokens = max(unit, block_tokens // unit * unit)
    page_bytes = block_tokens * _token_elements(spec) * settings.element_bytes
    return PagedLayer(spec=spec, block_tokens=block_tokens, page_bytes=page_bytes)


def _one_type(specs: list[CacheSpec]) -> bool:
    """Whether one block table serves all layers (`UniformTypeKVCacheSpecs.is_uniform_type`)."""
    first = specs[0]
    if isinstance(first, SlidingWindow):
        return all(isinstance(s, SlidingWindow) and s.window_tokens == first.window_tokens for s in specs)
    return not any(isinstance(spec, SlidingWindow) for spec in specs)


def _groups_of_equal_pages(paged: list[PagedLayer]) -> list[KvGroup]:
    """`_get_kv_cache_groups_uniform_page_size`: buckets of equal layers, cut into groups of one size,
    interleaved."""
    buckets: dict[PagedLayer, list[PagedLayer]] = {}
    for layer in _with_one_page_size(paged):
        buckets.setdefault(layer, []).append(layer)
    group_size = _group_size([len(bucket) for bucket in buckets.values()])
    groups: list[KvGroup] = []
    for bucket in buckets.values():
        count = _ceil_div(len(bucket), group_size)
        groups.extend(KvGroup(paged=tuple(bucket[start::count])) for start in range(count))
    return groups


def _group_size(bucket_sizes: list[int]) -> int:
    # The engine's heuristic: the smallest bucket, unless the largest is less than half as long again.
    smallest, largest = min(bucket_sizes), max(bucket_sizes)
    return largest if largest < smallest * 1.5 else smallest


def _with_one_page_size(paged: list[PagedLayer]) -> list[PagedLayer]:
    """`unify_kv_cache_spec_page_size`: longer blocks where that divides, padding elsewhere."""
    largest = max(layer.page_bytes for layer in paged)
    return [_grown_to(layer, largest) for layer in paged]


def _grown_to(layer: PagedLayer, page_bytes: int) -> PagedLayer:
    if page_bytes % layer.page_bytes == 0:
        ratio = page_bytes // layer.page_bytes
        return replace(layer, block_tokens=layer.block_tokens * ratio, page_bytes=page_bytes)
    if isinstance(layer.spec, LatentAttention):
        raise LayoutError(
            f"a latent-attention page of {layer.page_bytes} bytes does not divide the largest, {page_bytes}"
        )
    return replace(layer, page_bytes=page_bytes)


def _group_blocks(group: KvGroup, in_flight_tokens: int, length_tokens: int) -> int:
    layer = group.paged[0]
    if isinstance(layer.spec, SlidingWindow):
        # SlidingWindowSpec.max_admission_blocks_per_request; +1: the window may begin inside a block.
        held = min(layer.spec.window_tokens - 1 + in_flight_tokens, length_tokens)
        return _ceil_div(held, layer.block_tokens) + 1
    return _ceil_div(length_tokens, layer.block_tokens)


def _ceil_div(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
