"""KV arithmetic: cases of every kind computed by hand, and laws that hold for every layout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.planning.memory import (
    Kind,
    KvLayout,
    LayerCaches,
    LayoutError,
    PagedLayer,
    Request,
    blocks_for,
    blocks_in,
    blocks_per_request,
    bytes_for,
    concurrency,
    engine_tokens,
    fits_one_request,
    kv_layout,
    longest_context,
)

BLOCK = 32
PAGE = 16384
REQUEST = Request(in_flight_tokens=256)


def full(page: int = PAGE, block: int = BLOCK) -> PagedLayer:
    return PagedLayer(kind=Kind.FULL, block_tokens=block, page_bytes=page, shape=("full", page))


def latent(page: int = PAGE) -> PagedLayer:
    return PagedLayer(kind=Kind.LATENT, block_tokens=BLOCK, page_bytes=page, shape=("latent", page))


def window(tokens: int = 128, page: int = PAGE, block: int = BLOCK) -> PagedLayer:
    return PagedLayer(
        kind=Kind.WINDOW, block_tokens=block, page_bytes=page, shape=(page,), remembered_tokens=tokens
    )


def chunked(tokens: int = 512) -> PagedLayer:
    return PagedLayer(kind=Kind.CHUNKED, block_tokens=BLOCK, page_bytes=PAGE, remembered_tokens=tokens)


def cross(tokens: int = 1500) -> PagedLayer:
    return PagedLayer(kind=Kind.CROSS, block_tokens=BLOCK, page_bytes=PAGE, remembered_tokens=tokens)


def state(blocks: int = 1, page: int = PAGE, every: int = 0) -> PagedLayer:
    return PagedLayer(
        kind=Kind.STATE,
        block_tokens=2048,
        page_bytes=page,
        shape=(page,),
        remembered_tokens=every,
        state_blocks=blocks,
    )


def layout(*runs: tuple[PagedLayer, int], request: Request = REQUEST, **options: Any) -> KvLayout:
    return kv_layout(
        [LayerCaches(caches=(cache,), layers=count) for cache, count in runs], request=request, **options
    )


def test_smollm2_on_a_running_server() -> None:
    """128 MiB, blocks of 32, context 2048: a server reported 182 blocks, 5824 tokens, 2.84375."""
    found = layout((full(page=32 * 3 * 128 * 2), 30))
    blocks = blocks_in(found, kv_bytes=128 * 2**20)
    assert (found.bytes_per_block, blocks) == (737280, 182)
    assert engine_tokens(found, blocks=blocks, context_tokens=2048) == 5824
    assert concurrency(found, blocks=blocks, length_tokens=2048) == 2.84375


@pytest.mark.parametrize(
    ("runs", "groups", "bytes_per_block", "blocks_at_1000"),
    [
        # One kind: one group, ceil(1000 / 32) blocks.
        ([(full(), 4)], [4], 4 * PAGE, 32),
        # Windows alone: ceil(min(127 + 256, 1000) / 32) + 1.
        ([(window(), 4)], [4], 4 * PAGE, 13),
        # Chunks: ceil(min(512 + 256, 1000) / 32), and no block more.
        ([(chunked(), 4)], [4], 4 * PAGE, 24),
        # An encoder's output: ceil(1500 / 32), whatever the length.
        ([(cross(), 4)], [4], 4 * PAGE, 47),
        # A state: one block, whatever the length; three with prefix caching and a checkpoint.
        ([(state(), 4)], [4], 4 * PAGE, 1),
        ([(state(blocks=3), 4)], [4], 4 * PAGE, 3),
        # A state kept every 300 tokens: ceil(1000 / 300).
        ([(state(every=300), 4)], [4], 4 * PAGE, 4),
        # Full attention of two sizes: one table, pages summed.
        ([(full(), 2), (full(page=2 * PAGE), 2)], [4], 6 * PAGE, 32),
        # Latent attention and its indexer: one table, pages summed.
        ([(latent(), 3), (latent(page=132 * 32), 3)], [6], 3 * (PAGE + 132 * 32), 32),
        # Windows of one length and two sizes: one table too.
        ([(window(), 2), (window(page=2 * PAGE), 2)], [4], 6 * PAGE, 13),
        # 1:3 interleaved: groups of the smallest kind.
        ([(full(), 2), (window(), 6)], [2, 2, 2, 2], 2 * PAGE, 32 + 3 * 13),
        # 4:5 is nearly equal: groups of the largest kind, one of them padded.
        ([(full(), 4), (window(), 5)], [4, 5], 5 * PAGE, 32 + 13),
        # 2:3 is exactly half as long again: not nearly equal.
        ([(full(), 2), (window(), 3)], [2, 2, 1], 2 * PAGE, 32 + 2 * 13),
        # Two windows of different length are two kinds.
        ([(window(128), 2), (window(512), 2)], [2, 2], 2 * PAGE, 13 + 25),
        # A page that divides the largest gets longer blocks: ceil(383 / 64) + 1.
        ([(full(page=2 * PAGE), 2), (window(), 2)], [2, 2], 4 * PAGE, 32 + 7),
        # One that does not is padded.
        ([(full(page=3 * PAGE // 2), 2), (window(), 2)], [2, 2], 3 * PAGE, 32 + 13),
        # A state is padded to the page of attention beside it; 6 states for 2 layers: 3 groups.
        ([(full(), 2), (state(page=PAGE - 100), 6)], [2, 2, 2, 2], 2 * PAGE, 32 + 3),
        # Full and cross attention (Whisper): two tables.
        ([(full(), 4), (cross(), 4)], [4, 4], 4 * PAGE, 32 + 47),
    ],
)
def test_groups(
    runs: list[tuple[PagedLayer, int]], groups: list[int], bytes_per_block: int, blocks_at_1000: int
) -> None:
    found = layout(*runs)
    assert [group.layers for group in found.groups] == groups
    assert found.bytes_per_block == bytes_per_block
    assert blocks_per_request(found, length_tokens=1000) == blocks_at_1000


def test_without_the_hybrid_manager_local_layers_are_stored_in_full() -> None:
    found = layout((full(), 2), (window(), 6), hybrid_manager=False)
    assert found.bytes_per_block == 8 * PAGE
    assert blocks_per_request(found, length_tokens=1000) == 32
    chunks = layout((full(), 2), (chunked(), 6), hybrid_manager=False)
    assert blocks_per_request(chunks, length_tokens=1000) == 32
    alone = layout((window(), 6), hybrid_manager=False)
    assert blocks_per_request(alone, length_tokens=1000) == 13


def test_without_the_hybrid_manager_states_cannot_be_laid_out() -> None:
    with pytest.raises(LayoutError, match="one unified type"):
        layout((full(), 2), (state(), 6), hybrid_manager=False)


def test_latent_pages_that_do_not_divide_are_refused() -> None:
    with pytest.raises(LayoutError, match="does not divide"):
        layout((latent(page=100), 2), (window(page=130), 2), (full(page=190), 1))


def test_no_cache_at_all_is_the_null_block() -> None:
    found = layout()
    assert blocks_in(found, kv_bytes=2**40) == 1
    assert fits_one_request(found, kv_bytes=0, context_tokens=10**6)


def test_context_parallel_ranks_share_positions() -> None:
    found = layout((latent(), 4), request=Request(in_flight_tokens=256, context_parallel=8))
    assert blocks_per_request(found, length_tokens=1000) == 4


def test_pipeline_stages_have_their_own_blocks_and_the_smallest_decides() -> None:
    stages = [
        LayerCaches(caches=(full(),), layers=3, stage=0),
        LayerCaches(caches=(full(),), layers=1, stage=1),
    ]
    found = kv_layout(stages, request=REQUEST, stages=2)
    assert found.stage_bytes == (3 * PAGE, PAGE)
    assert blocks_in(found, kv_bytes=12 * PAGE) == 4
    assert fits_one_request(found, kv_bytes=3 * PAGE * 33, context_tokens=1000)
    assert not fits_one_request(found, kv_bytes=3 * PAGE * 33 - 1, context_tokens=1000)


def test_groups_interleave_over_stages() -> None:
    """2 full and 4 windows, half of each on either stage: every group is on both."""
    stage = [(full(), 1), (window(), 2)]
    runs = [
        LayerCaches(caches=(cache,), layers=count, stage=number)
        for number in (0, 1)
        for cache, count in stage
    ]
    found = kv_layout(runs, request=REQUEST, stages=2)
    assert [group.stage_bytes for group in found.groups] == [(PAGE, PAGE)] * 3


def test_packed_groups_where_blocks_are_outermost() -> None:
    """Two page sizes of full attention repeat 3 times, 9 windows are cut into groups of 3 repeats."""
    big, small = latent(page=1000), latent(page=100)
    local = PagedLayer(kind=Kind.LATENT_WINDOW, block_tokens=8, page_bytes=300, remembered_tokens=64)
    runs = [LayerCaches(caches=(big, small), layers=3), LayerCaches(caches=(local,), layers=9)]
    found = kv_layout(runs, request=REQUEST, block_outermost=True)
    assert [group.layers for group in found.groups] == [6, 3, 3, 3]
    assert found.bytes_per_block == 3300


KINDS = st.one_of(
    st.builds(full, st.sampled_from([PAGE, 2 * PAGE, 3 * PAGE, 5000])),
    st.builds(window, st.integers(1, 5000), st.sampled_from([PAGE, 2 * PAGE, 7000])),
    st.builds(chunked, st.integers(1, 5000)),
    st.builds(cross, st.integers(1, 5000)),
    st.builds(state, st.integers(1, 3), st.integers(100, 2 * PAGE)),
)
RUNS = st.lists(
    st.builds(LayerCaches, caches=st.tuples(KINDS), layers=st.integers(1, 12)), min_size=1, max_size=5
)
REQUESTS = st.builds(Request, in_flight_tokens=st.integers(1, 40_000))
LAYOUTS = st.builds(lambda runs, request: kv_layout(runs, request=request), RUNS, REQUESTS)
LENGTHS = st.integers(1, 200_000)
BYTES = st.integers(0, 2**42)


@given(RUNS, REQUESTS, st.booleans())
def test_every_layer_is_in_one_group_and_fits_its_block(
    runs: list[LayerCaches], request: Request, outermost: bool
) -> None:
    found = kv_layout(runs, request=request, block_outermost=outermost)
    assert sum(group.layers for group in found.groups) == sum(run.layers for run in runs)
    assert all(group.stage_bytes[0] <= found.bytes_per_block for group in found.groups)
    needed = max(cache.page_bytes for run in runs for cache in run.caches)
    assert found.bytes_per_block >= needed


@given(RUNS, REQUESTS, st.integers(2, 4))
def test_stages_hold_together_what_one_holds(runs: list[LayerCaches], request: Request, stages: int) -> None:
    whole = kv_layout(runs, request=request)
    spread = kv_layout(
        [replace(run, stage=number % stages) for number, run in enumerate(runs)],
        request=request,
        stages=stages,
    )
    for one, many in zip(whole.groups, spread.groups, strict=True):
        assert sum(many.stage_bytes) == one.stage_bytes[0]
    assert max(spread.stage_bytes) <= whole.bytes_per_block <= sum(spread.stage_bytes)


@given(LAYOUTS, BYTES, BYTES)
def test_more_bytes_never_give_fewer_blocks(found: KvLayout, one: int, other: int) -> None:
    fewer, more = sorted((one, other))
    assert blocks_in(found, kv_bytes=fewer) <= blocks_in(found, kv_bytes=more)


@given(LAYOUTS, LENGTHS, LENGTHS)
def test_a_longer_request_never_needs_less(found: KvLayout, one: int, other: int) -> None:
    shorter, longer = sorted((one, other))
    assert blocks_per_request(found, length_tokens=shorter) <= blocks_per_request(found, length_tokens=longer)


@given(LAYOUTS, st.integers(1, 500), LENGTHS)
def test_bytes_for_and_blocks_in_are_inverse(found: KvLayout, requests: int, length: int) -> None:
    needed = bytes_for(found, requests=requests, length_tokens=length)
    assert blocks_in(found, kv_bytes=needed) == blocks_for(found, requests=requests, length_tokens=length) + 1
    assert blocks_in(found, kv_bytes=needed - 1) < blocks_in(found, kv_bytes=needed)
    assert concurrency(found, blocks=blocks_in(found, kv_bytes=needed), length_tokens=length) >= requests


@given(LAYOUTS, BYTES, LENGTHS)
def test_the_longest_context_fits_and_the_next_does_not(found: KvLayout, kv_bytes: int, limit: int) -> None:
    longest = longest_context(found, kv_bytes=kv_bytes, limit_tokens=limit)
    assert 0 <= longest <= limit
    if longest:
        assert fits_one_request(found, kv_bytes=kv_bytes, context_tokens=longest)
    if longest < limit:
        assert not fits_one_request(found, kv_bytes=kv_bytes, context_tokens=longest + 1)


@given(LAYOUTS, LENGTHS)
def test_the_bytes_for_one_request_serve_exactly_that_length(found: KvLayout, length: int) -> None:
    kv_bytes = bytes_for(found, requests=1, length_tokens=length)
    assert fits_one_request(found, kv_bytes=kv_bytes, context_tokens=length)
    assert not fits_one_request(found, kv_bytes=kv_bytes - 1, context_tokens=length)
