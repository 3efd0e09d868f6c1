"""KV arithmetic: cases computed by hand, and laws that hold for every layout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.models import CacheSpec, FullAttention, LatentAttention, LayerRun, SlidingWindow
from tonnage.planning.memory import (
    KvLayout,
    KvSettings,
    LayoutError,
    blocks_for,
    blocks_in,
    blocks_per_request,
    bytes_for,
    bytes_per_token,
    concurrency,
    engine_tokens,
    fits_one_request,
    kv_layout,
    longest_context,
)


def full(kv_heads: int = 2, head_size: int = 64) -> FullAttention:
    return FullAttention(kv_heads=kv_heads, head_size=head_size, head_size_v=head_size)


def window(tokens: int = 128, kv_heads: int = 2, head_size: int = 64) -> SlidingWindow:
    return SlidingWindow(kv_heads=kv_heads, head_size=head_size, head_size_v=head_size, window_tokens=tokens)


def settings(**changes: int) -> KvSettings:
    values = {
        "block_tokens": 32,
        "element_bytes": 2,
        "in_flight_tokens": 256,
        "kernel_block_tokens": 32,
        **changes,
    }
    return KvSettings(**values)


def layout(*runs: tuple[CacheSpec, int], **changes: int) -> KvLayout:
    return kv_layout(
        [LayerRun(spec=spec, layers=count) for spec, count in runs], settings=settings(**changes)
    )


PAGE = 32 * 2 * (64 + 64) * 2


def test_smollm2_on_a_running_server() -> None:
    """128 MiB, blocks of 32, context 2048: a server reported 182 blocks, 5824 tokens, 2.84375."""
    found = layout((full(kv_heads=3), 30))
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
        # Full attention of two sizes: one table, pages summed.
        ([(full(), 2), (full(kv_heads=4), 2)], [4], 6 * PAGE, 32),
        # Windows of one length and two sizes: one table too.
        ([(window(), 2), (window(kv_heads=4), 2)], [4], 6 * PAGE, 13),
        # 1:3 interleaved: groups of the smallest kind.
        ([(full(), 2), (window(), 6)], [2, 2, 2, 2], 2 * PAGE, 32 + 3 * 13),
        # 4:5 is nearly equal: groups of the largest kind, one of them padded.
        ([(full(), 4), (window(), 5)], [4, 5], 5 * PAGE, 32 + 13),
        # 2:3 is exactly half as long again: not nearly equal.
        ([(full(), 2), (window(), 3)], [2, 2, 1], 2 * PAGE, 32 + 2 * 13),
        # Two windows of different length are two kinds.
        ([(window(128), 2), (window(512), 2)], [2, 2], 2 * PAGE, 13 + 25),
        # A page that divides the largest gets longer blocks: ceil(383 / 64) + 1.
        ([(full(kv_heads=4), 2), (window(), 2)], [2, 2], 4 * PAGE, 32 + 7),
        # One that does not is padded.
        ([(full(kv_heads=3), 2), (window(), 2)], [2, 2], 3 * PAGE, 32 + 13),
        # Latent attention: one vector of 576 elements.
        ([(LatentAttention(latent_size=576), 5)], [5], 5 * 32 * 576 * 2, 32),
    ],
)
def test_groups(
    runs: list[tuple[CacheSpec, int]], groups: list[int], bytes_per_block: int, blocks_at_1000: int
) -> None:
    found = layout(*runs)
    assert [len(group.paged) for group in found.groups] == groups
    assert found.bytes_per_block == bytes_per_block
    assert blocks_per_request(found, length_tokens=1000) == blocks_at_1000


def test_without_the_hybrid_manager_windows_are_stored_in_full() -> None:
    runs = [LayerRun(spec=full(), layers=2), LayerRun(spec=window(), layers=6)]
    found = kv_layout(
        runs,
        settings=KvSettings(block_tokens=32, element_bytes=2, in_flight_tokens=256, hybrid_manager=False),
    )
    assert found.bytes_per_block == 8 * PAGE
    assert blocks_per_request(found, length_tokens=1000) == 32
    alone = kv_layout(
        runs[1:],
        settings=KvSettings(block_tokens=32, element_bytes=2, in_flight_tokens=256, hybrid_manager=False),
    )
    assert blocks_per_request(alone, length_tokens=1000) == 13


def test_heads_are_divided_then_replicated() -> None:
    pages = [layout((full(kv_heads=8), 1), tensor_parallel=ranks).bytes_per_block for ranks in (1, 2, 8, 16)]
    assert pages == [4 * PAGE, 2 * PAGE, PAGE // 2, PAGE // 2]
    latent = [layout((LatentAttention(latent_size=576), 1), tensor_parallel=ranks) for ranks in (1, 8)]
    assert latent[0] == latent[1]


def test_the_window_block_follows_the_kernel() -> None:
    assert layout((window(), 1), block_tokens=80).groups[0].paged[0].block_tokens == 64
    assert layout((window(), 1), block_tokens=16).groups[0].paged[0].block_tokens == 32


@pytest.mark.parametrize(
    "runs", [[], [(LatentAttention(latent_size=100), 2), (window(), 2), (full(kv_heads=3), 1)]]
)
def test_what_cannot_be_laid_out_is_refused(runs: list[tuple[CacheSpec, int]]) -> None:
    with pytest.raises(LayoutError):
        layout(*runs)


def test_bytes_per_token() -> None:
    runs = [LayerRun(spec=full(kv_heads=3), layers=30)]
    assert bytes_per_token(runs, element_bytes=2) == 23040
    assert (
        bytes_per_token([LayerRun(spec=LatentAttention(latent_size=576), layers=61)], element_bytes=2)
        == 70272
    )


HEADS = st.integers(1, 8)
SPECS = st.one_of(
    st.builds(full, HEADS, st.sampled_from([32, 64, 80, 128])),
    st.builds(window, st.integers(1, 5000), HEADS, st.sampled_from([32, 64, 80, 128])),
)
RUNS = st.lists(st.builds(LayerRun, spec=SPECS, layers=st.integers(1, 12)), min_size=1, max_size=5)
SETTINGS = st.builds(
    KvSettings,
    block_tokens=st.sampled_from([16, 32, 64, 128]),
    element_bytes=st.sampled_from([1, 2]),
    in_flight_tokens=st.integers(1, 9000),
    kernel_block_tokens=st.sampled_from([16, 32]),
)
LAYOUTS = st.builds(lambda runs, chosen: kv_layout(runs, settings=chosen), RUNS, SETTINGS)
LENGTHS = st.integers(1, 200_000)
BYTES = st.integers(0, 2**42)


@given(RUNS, SETTINGS)
def test_every_layer_is_in_one_group_and_fits_its_block(runs: list[LayerRun], chosen: KvSettings) -> None:
    found = kv_layout(runs, settings=chosen)
    assert sum(len(group.paged) for group in found.groups) == sum(run.layers for run in runs)
    assert all(group.bytes_per_block <= found.bytes_per_block for group in found.groups)
    for layer in (layer for group in found.groups for layer in group.paged):
        assert isinstance(layer.spec, FullAttention | SlidingWindow)
        elements = layer.spec.kv_heads * (layer.spec.head_size + layer.spec.head_size_v)
        assert layer.block_tokens * elements * chosen.element_bytes <= layer.page_bytes


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
