"""KV-cache arithmetic, exactly as the engine does it: paged layers -> groups -> blocks -> tokens and
requests, and back.

Source: vllm/v1/core/kv_cache_utils.py and vllm/v1/kv_cache_interface.py of vLLM 0.32.0. All functions are
pure; bytes, blocks and tokens are integers of one rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import zip_longest


class LayoutError(ValueError):
    """The engine could not lay out these layers either, or its answer is not known here."""


class Kind(StrEnum):
    """The engine's kinds of KV-cache specs, by what a request holds of them."""

    FULL = "full"
    LATENT = "latent"
    WINDOW = "window"
    LATENT_WINDOW = "latent-window"
    CHUNKED = "chunked"
    CROSS = "cross"
    STATE = "state"


_REMEMBER_ALL = frozenset({Kind.FULL, Kind.LATENT})
_WINDOWS = frozenset({Kind.WINDOW, Kind.LATENT_WINDOW})


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedLayer:
    """How one cache of one layer is paged.

    `page_bytes` are those of a block, padding included; `shape` is what else two caches must have in common
    to share a block table (heads, sizes, dtype). `remembered_tokens` is the window or chunk, the tokens of an
    encoder's output, or the tokens between states that are all kept; `state_blocks` the blocks that a
    request's state takes.
    """

    kind: Kind
    block_tokens: int
    page_bytes: int
    shape: tuple[int | str, ...] = ()
    remembered_tokens: int = 0
    state_blocks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCaches:
    """The caches of consecutive equal layers of one pipeline stage, in the engine's order."""

    caches: tuple[PagedLayer, ...]
    layers: int
    stage: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What decides how many blocks a request may hold: tokens in flight and ranks that share positions."""

    in_flight_tokens: int
    context_parallel: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KvGroup:
    """Caches that share one block table; a request takes its blocks once per group.

    `members` are the distinct caches; `layers` counts them all. `stage_bytes` are the bytes of one block on
    each pipeline stage.
    """

    members: tuple[PagedLayer, ...]
    layers: int
    stage_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KvLayout:
    """The groups of a model under given settings, and the bytes of one block of each stage's pool."""

    groups: tuple[KvGroup, ...]
    stage_bytes: tuple[int, ...]
    request: Request

    @property
    def bytes_per_block(self) -> int:
        """Bytes of one block on the first stage."""
        return self.stage_bytes[0]


def kv_layout(
    runs: Sequence[LayerCaches],
    *,
    request: Request,
    stages: int = 1,
    hybrid_manager: bool = True,
    block_outermost: bool = False,
) -> KvLayout:
    """The engine's KV groups for `runs` of layers (`get_kv_cache_groups`).

    Order of attempts: one group if all layers store the same; one group with summed pages if all are of one
    type; packed groups where blocks are outermost; else equal page sizes and groups of equal length.
    `hybrid_manager` False allocates windows as full attention when both are present. Raises `LayoutError`.
    """
    layers = _Layers(runs, stages)
    if not layers.distinct:
        return KvLayout(groups=(), stage_bytes=(0,) * stages, request=request)
    if not hybrid_manager:
        layers = layers.replaced(_promoted(layers.distinct))
        if len(layers.distinct) > 1 and not _one_type(layers.distinct):
            raise LayoutError(
                "without the hybrid manager the engine needs all layers to be of one type: "
                "Failed to promote local KV cache specs to one unified type"
            )
    groups = _groups(layers, block_outermost=block_outermost)
    return KvLayout(
        groups=groups,
        # The widest group (`_get_kv_cache_bytes_per_block`). The alignment that kernels for sparse attention
        # ask of it is one row of the cache or a block of them, and every page is whole rows.
        stage_bytes=tuple(max(group.stage_bytes[stage] for group in groups) for stage in range(stages)),
        request=request,
    )


def blocks_in(layout: KvLayout, *, kv_bytes: int) -> int:
    """Blocks the engine makes of `kv_bytes` on every rank: as many as the smallest stage holds.

    A model without a KV cache has one, the null block (`get_kv_cache_config_from_groups`).
    """
    if not layout.groups:
        return 1
    return min(max(kv_bytes, 0) // stage for stage in layout.stage_bytes)


def blocks_per_request(layout: KvLayout, *, length_tokens: int) -> int:
    """Blocks that one request of `length_tokens` may hold, over all groups."""
    return sum(group_blocks(group, layout.request, length_tokens) for group in layout.groups)


def group_blocks(group: KvGroup, request: Request, length_tokens: int) -> int:
    """Blocks that one request may hold in one group."""
    if len(group.members) == 1:
        return _held_blocks(group.members[0], request, length_tokens)
    return max(_held_blocks(member, request, length_tokens) for member in group.members)


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
    needed = 1 + blocks_per_request(layout, length_tokens=context_tokens)
    return not layout.groups or all(kv_bytes >= stage * needed for stage in layout.stage_bytes)


def longest_context(layout: KvLayout, *, kv_bytes: int, limit_tokens: int) -> int:
    """The longest `max_model_len` up to `limit_tokens` that `kv_bytes` serve on every stage, 0 if none."""
    if not layout.groups:
        return limit_tokens
    return _longest(layout, blocks=blocks_in(layout, kv_bytes=kv_bytes), limit_tokens=limit_tokens)


def suggested_context(layout: KvLayout, *, kv_bytes: int, context_tokens: int) -> int:
    """The length that the engine suggests where it refuses `context_tokens`, 0 if none.

    It looks at the first stage that is too small, by bisection (`_estimate_max_model_len_from_groups`); a
    later stage may hold less.
    """
    needed = 1 + blocks_per_request(layout, length_tokens=context_tokens)
    small = next((stage for stage in layout.stage_bytes if kv_bytes < stage * needed), None)
    if small is None:
        return context_tokens
    return _longest(layout, blocks=max(kv_bytes, 0) // small, limit_tokens=context_tokens)


def _longest(layout: KvLayout, *, blocks: int, limit_tokens: int) -> int:
    if 1 + blocks_per_request(layout, length_tokens=limit_tokens) <= blocks:
        return limit_tokens
    low, high = 0, limit_tokens - 1
    while low < high:
        middle = (low + high + 1) // 2
        if 1 + blocks_per_request(layout, length_tokens=middle) <= blocks:
            low = middle
        else:
            high = middle - 1
    return low


def blocks_for(layout: KvLayout, *, requests: int, length_tokens: int) -> int:
    """Blocks that hold `requests` of `length_tokens` at once; the null block is not counted."""
    return requests * blocks_per_request(layout, length_tokens=length_tokens)


def bytes_for(layout: KvLayout, *, requests: int, length_tokens: int, spare_blocks: int = 1) -> int:
    """KV bytes of the largest rank for `requests` of `length_tokens`; `spare_blocks` are the null block and
    any margin."""
    blocks = blocks_for(layout, requests=requests, length_tokens=length_tokens) + spare_blocks
    return blocks * max(layout.stage_bytes)


class _Layers:
    """Every cache of the model in order, as numbers of distinct caches, with the stage that holds it."""

    def __init__(self, runs: Sequence[LayerCaches], stages: int) -> None:
        numbers: dict[PagedLayer, int] = {}
        rows: dict[int, list[int]] = {}
        self.stages = stages
        self.order: list[int] = []
        self.stage: list[int] = []
        for run in runs:
            row = rows.get(id(run.caches))
            if row is None:
                row = [numbers.setdefault(cache, len(numbers)) for cache in run.caches]
                rows[id(run.caches)] = row
            self.order.extend(row * run.layers)
            self.stage.extend([run.stage] * (len(row) * run.layers))
        self.distinct: tuple[PagedLayer, ...] = tuple(numbers)

    def replaced(self, caches: Sequence[PagedLayer]) -> _Layers:
        """The same layers with each distinct cache replaced; equal ones become one."""
        if tuple(caches) == self.distinct:
            return self
        numbers: dict[PagedLayer, int] = {}
        mapped = [numbers.setdefault(cache, len(numbers)) for cache in caches]
        made = _Layers((), self.stages)
        made.order = [mapped[number] for number in self.order]
        made.stage = self.stage
        made.distinct = tuple(numbers)
        return made

    def positions(self, numbers: frozenset[int]) -> list[int]:
        """Positions of all layers whose cache is one of `numbers`."""
        return [position for position, number in enumerate(self.order) if number in numbers]

    def group(self, positions: Sequence[int]) -> KvGroup:
        """A group of the caches at these positions."""
        counts = [[0] * self.stages for _ in self.distinct]
        for position in positions:
            counts[self.order[position]][self.stage[position]] += 1
        members = tuple(cache for cache, row in zip(self.distinct, counts, strict=True) if any(row))
        sums = [
            sum(cache.page_bytes * row[stage] for cache, row in zip(self.distinct, counts, strict=True))
            for stage in range(self.stages)
        ]
        return KvGroup(members=members, layers=len(positions), stage_bytes=tuple(sums))


def _groups(layers: _Layers, *, block_outermost: bool) -> tuple[KvGroup, ...]:
    everything = range(len(layers.order))
    if len(layers.distinct) == 1 or _one_type(layers.distinct):
        return (layers.group(everything),)
    if block_outermost and len({cache.page_bytes for cache in layers.distinct}) > 1:
        return _packed_groups(layers)
    return _groups_of_equal_pages(layers.replaced(_with_one_page_size(layers.distinct)))


def _promoted(distinct: Sequence[PagedLayer]) -> list[PagedLayer]:
    """`unify_hybrid_kv_cache_specs`: only a mixture is promoted; windows alone stay windows."""
    blocks = {cache.block_tokens for cache in distinct if cache.kind in _REMEMBER_ALL}
    local = {Kind.WINDOW: Kind.FULL, Kind.CHUNKED: Kind.FULL, Kind.LATENT_WINDOW: Kind.LATENT}
    if not blocks or len(distinct) == 1 or _one_type(distinct):
        return list(distinct)
    return [
        _as_kind(cache, local[cache.kind], next(iter(blocks)) if len(blocks) == 1 else cache.block_tokens)
        if cache.kind in local
        else cache
        for cache in distinct
    ]


def _as_kind(cache: PagedLayer, kind: Kind, block_tokens: int) -> PagedLayer:
    return replace(
        cache,
        kind=kind,
        block_tokens=block_tokens,
        page_bytes=cache.page_bytes * block_tokens // cache.block_tokens,
        remembered_tokens=0,
    )


def _one_type(distinct: Sequence[PagedLayer]) -> bool:
    """Whether one block table serves all layers (`UniformTypeKVCacheSpecs.is_uniform_type`)."""
    first = distinct[0]
    if any(cache.block_tokens != first.block_tokens for cache in distinct):
        return False
    if first.kind in _REMEMBER_ALL:
        return all(cache.kind in _REMEMBER_ALL for cache in distinct)
    if first.kind is Kind.STATE:
        return all(
            cache.kind is Kind.STATE
            and (cache.page_bytes, cache.state_blocks) == (first.page_bytes, first.state_blocks)
            for cache in distinct
        )
    kinds = _WINDOWS if first.kind is Kind.WINDOW else {first.kind}
    return all(
        cache.kind in kinds and cache.remembered_tokens == first.remembered_tokens for cache in distinct
    )


def _groups_of_equal_pages(layers: _Layers) -> tuple[KvGroup, ...]:
    """`_get_kv_cache_groups_uniform_page_size`: buckets of equal layers, cut into groups of one size,
    interleaved."""
    buckets = [layers.positions(frozenset({number})) for number in range(len(layers.distinct))]
    size = _group_size([len(bucket) for bucket in buckets])
    groups: list[KvGroup] = []
    for bucket in buckets:
        count = ceil_div(len(bucket), size)
        groups.extend(layers.group(bucket[start::count]) for start in range(count))
    return tuple(groups)


def _group_size(bucket_sizes: list[int]) -> int:
    # The engine's heuristic: the smallest bucket, unless the largest is less than half as long again.
    smallest, largest = min(bucket_sizes), max(bucket_sizes)
    return largest if largest < smallest * 1.5 else smallest


def _with_one_page_size(distinct: Sequence[PagedLayer]) -> list[PagedLayer]:
    """`unify_kv_cache_spec_page_size`: longer blocks where that divides, padding elsewhere."""
    largest = max(cache.page_bytes for cache in distinct)
    return [_grown_to(cache, largest) for cache in distinct]


def _grown_to(cache: PagedLayer, page_bytes: int) -> PagedLayer:
    if cache.page_bytes == page_bytes:
        return cache
    if cache.kind is Kind.STATE:
        return replace(cache, page_bytes=page_bytes)
    if page_bytes % cache.page_bytes == 0:
        ratio = page_bytes // cache.page_bytes
        return replace(cache, block_tokens=cache.block_tokens * ratio, page_bytes=page_bytes)
    if cache.kind is Kind.LATENT:
        raise LayoutError(
            f"a latent-attention page of {cache.page_bytes} bytes does not divide the largest, {page_bytes}"
        )
    return replace(cache, page_bytes=page_bytes)


def _packed_groups(layers: _Layers) -> tuple[KvGroup, ...]:
    """`_get_packed_kv_cache_groups`: buckets of one type; those that repeat a pattern of pages are cut into
    groups of about equally many repeats."""
    buckets = [_Bucket(layers, members) for members in _buckets_of_one_type(layers)]
    floor = max((b.repeats for b in buckets if b.balanced and len(b.by_page) > 1), default=0)
    repeats = _least_padding([b.repeats for b in buckets if b.balanced], floor) if floor else None
    anchor = max(
        bucket.widest(len(bucket.positions) if bucket.splits(repeats) else bucket.count(repeats))
        for bucket in buckets
    )
    groups: list[KvGroup] = []
    for bucket in buckets:
        count = bucket.count(repeats)
        if bucket.splits(repeats):
            count = max(count, ceil_div(len(bucket.positions), max(anchor // bucket.first_page, 1)))
        groups.extend(layers.group(part) for part in bucket.parts(count))
    return tuple(groups)


def _buckets_of_one_type(layers: _Layers) -> list[list[int]]:
    """Numbers of distinct caches, bucketed greedily in model order."""
    buckets: list[list[int]] = []
    for number, cache in enumerate(layers.distinct):
        for bucket in buckets:
            if _one_type([*(layers.distinct[member] for member in bucket), cache]):
                bucket.append(number)
                break
        else:
            buckets.append([number])
    return buckets


class _Bucket:
    """Caches of one type, by their page sizes."""

    def __init__(self, layers: _Layers, members: list[int]) -> None:
        self.positions = layers.positions(frozenset(members))
        self.by_page: dict[int, list[int]] = {}
        for position in self.positions:
            page = layers.distinct[layers.order[position]].page_bytes
            self.by_page.setdefault(page, []).append(position)
        self.first_page = next(iter(self.by_page))
        self.kind = layers.distinct[members[0]].kind
        self.repeats = max(len(positions) for positions in self.by_page.values())
        self.balanced = len({len(positions) for positions in self.by_page.values()}) == 1

    def count(self, repeats: int | None) -> int:
        """Groups it is cut into."""
        return ceil_div(self.repeats, repeats) if self.balanced and repeats else 1

    def splits(self, repeats: int | None) -> bool:
        """Whether it may be cut down to one state a group."""
        return self.kind is Kind.STATE or (repeats is None and self.kind in _WINDOWS)

    def widest(self, count: int) -> int:
        """Bytes of a block of its widest group if it is cut into `count`."""
        return sum(ceil_div(len(held), count) * page for page, held in self.by_page.items())

    def parts(self, count: int) -> list[list[int]]:
        """Positions of each of `count` groups: whole repeats of the pattern, interleaved."""
        if count == 1:
            return [self.positions]
        # The engine drops what is past the shortest column (`zip`), and then cannot start: such layers count.
        pattern = list(zip_longest(*self.by_page.values()))
        return [
            [position for repeat in pattern[start::count] for position in repeat if position is not None]
            for start in range(count)
        ]


def _least_padding(values: list[int], lowest: int) -> int:
    """The size from `lowest` up whose multiples cover `values` with least padding; of equals the largest
    (`_approximate_gcd`)."""
    candidates = range(max(lowest, 1), max(values) + 1)
    return min(candidates, key=lambda size: (sum(-value % size for value in values), -size), default=lowest)


def _held_blocks(cache: PagedLayer, request: Request, length_tokens: int) -> int:
    if cache.kind is Kind.STATE:
        # A state for every block where `remembered_tokens` says so, else as many as are kept per request.
        whole = cache.remembered_tokens
        return ceil_div(length_tokens, whole) if whole else cache.state_blocks
    if cache.kind is Kind.CROSS:
        return ceil_div(cache.remembered_tokens, cache.block_tokens)
    if cache.kind in _WINDOWS:
        # SlidingWindowSpec.max_admission_blocks_per_request; +1: the window may begin inside a block.
        held = min(cache.remembered_tokens - 1 + request.in_flight_tokens, length_tokens)
        return ceil_div(held, cache.block_tokens) + 1
    if cache.kind is Kind.CHUNKED:
        held = min(cache.remembered_tokens + request.in_flight_tokens, length_tokens)
        return ceil_div(held, cache.block_tokens)
    return ceil_div(ceil_div(length_tokens, request.context_parallel), cache.block_tokens)


def ceil_div(dividend: int, divisor: int) -> int:
    """The quotient rounded up."""
    return -(-dividend // divisor)
