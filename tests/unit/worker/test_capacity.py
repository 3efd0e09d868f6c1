"""The comparison of planned and observed capacity, for every verification mode."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage_worker.capacity import compare, number, worst
from tonnage_worker.plan import Capacity, Verification

PLANNED = Capacity(blocks=182, tokens=5824, concurrency=2.84375, block_size=32, kv_dtype="auto")
STRICT, AT_LEAST, REPORT = Verification.STRICT, Verification.AT_LEAST, Verification.REPORT

CASES = [
    # what the engine reports; Strict, AtLeast; words of the message
    ({}, True, True, "holds the planned 182 KV blocks of 32 tokens, 5824 tokens, concurrency 2.84375"),
    (
        {"blocks": 91, "tokens": 2912, "concurrency": 1.421875},
        False,
        False,
        "91 KV blocks of 32 tokens, planned 182 of 32",
    ),
    ({"blocks": 183}, False, True, "183 KV blocks of 32 tokens, planned 182 of 32"),
    ({"blocks": 181}, False, False, "181 KV blocks of 32 tokens, planned 182 of 32"),
    ({"blocks": 364, "block_size": 16}, False, True, "364 KV blocks of 16 tokens, planned 182 of 32"),
    ({"blocks": 91, "block_size": 64}, False, True, "91 KV blocks of 64 tokens, planned 182 of 32"),
    ({"blocks": 182, "block_size": 16}, False, False, "182 KV blocks of 16 tokens, planned 182 of 32"),
    ({"tokens": 5823}, False, False, "holds 5823 tokens, planned 5824"),
    ({"tokens": 5825}, False, True, "holds 5825 tokens, planned 5824"),
    ({"concurrency": 2.8}, False, False, "has concurrency 2.8, planned 2.84375"),
    ({"concurrency": 3.0}, False, True, "has concurrency 3, planned 2.84375"),
    ({"concurrency": 2.84375 * (1 + 1e-15)}, True, True, "holds the planned"),
    ({"kv_dtype": "fp8"}, False, False, "has KV dtype fp8, planned auto"),
    ({"kv_dtype": None}, False, False, "has KV dtype None, planned auto"),
    ({"blocks": None}, False, False, "reports no KV blocks or no block size"),
    ({"block_size": None}, False, False, "reports no KV blocks or no block size"),
    ({"tokens": None}, False, True, "holds an unreported number of tokens, planned 5824"),
    ({"concurrency": None}, False, True, "has concurrency unknown, planned 2.84375"),
]


@pytest.mark.parametrize(("changes", "strict", "at_least", "words"), CASES)
def test_table(changes: dict[str, int], strict: bool, at_least: bool, words: str) -> None:
    observed = {"0": replace(PLANNED, **changes)}
    outcome = {mode: compare(PLANNED, observed=observed, verification=mode) for mode in Verification}
    assert {mode: verdict.ok for mode, verdict in outcome.items()} == {
        STRICT: strict,
        AT_LEAST: at_least,
        REPORT: True,
    }
    assert all(words in verdict.message for verdict in outcome.values())


def test_no_engine_reports() -> None:
    verdicts = {mode: compare(PLANNED, observed={}, verification=mode) for mode in Verification}
    assert {mode: verdict.ok for mode, verdict in verdicts.items()} == {
        STRICT: False,
        AT_LEAST: False,
        REPORT: True,
    }
    assert not verdicts[REPORT].equal
    assert "reports no capacity" in verdicts[STRICT].message


def test_each_engine_of_a_data_parallel_server_must_hold_the_plan() -> None:
    short = replace(PLANNED, blocks=100)
    verdict = compare(PLANNED, observed={"0": PLANNED, "1": short}, verification=STRICT)
    assert not verdict.ok
    assert verdict.message == "engine 1 holds 100 KV blocks of 32 tokens, planned 182 of 32"
    assert worst({"0": PLANNED, "1": short}) == short
    whole = compare(PLANNED, observed={"0": PLANNED, "1": PLANNED}, verification=STRICT)
    assert whole.ok
    assert whole.message.startswith("each of 2 engines holds the planned 182 KV blocks")


def test_worst_of_none_is_none() -> None:
    assert worst({}) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.84375, "2.84375"), (16.0, "16"), (42.22680412371134, "42.22680412371134"), (None, "unknown")],
)
def test_concurrency_keeps_all_its_digits(value: float | None, text: str) -> None:
    assert number(value) == text


COUNTS = st.integers(min_value=1, max_value=10**9)
RATIOS = st.fractions(min_value=0.001, max_value=10**6).map(float)
CAPACITIES = st.builds(
    Capacity,
    blocks=COUNTS,
    tokens=COUNTS,
    concurrency=RATIOS,
    block_size=st.sampled_from([16, 32, 64, 128]),
    kv_dtype=st.sampled_from(["auto", "fp8"]),
)


@given(CAPACITIES)
def test_an_engine_as_planned_satisfies_every_mode(planned: Capacity) -> None:
    for mode in Verification:
        verdict = compare(planned, observed={"0": planned}, verification=mode)
        assert verdict.ok
        assert verdict.equal


@given(CAPACITIES, CAPACITIES)
def test_strict_implies_at_least_and_is_symmetric(first: Capacity, second: Capacity) -> None:
    def ok(planned: Capacity, observed: Capacity, mode: Verification) -> bool:
        return compare(planned, observed={"0": observed}, verification=mode).ok

    if ok(first, second, STRICT):
        assert ok(first, second, AT_LEAST)
    assert ok(first, second, STRICT) == ok(second, first, STRICT)


@given(CAPACITIES, st.sampled_from(["blocks", "tokens"]), st.integers(min_value=1))
def test_less_of_anything_satisfies_neither_mode(planned: Capacity, figure: str, less: int) -> None:
    observed = {"0": replace(planned, **{figure: max(0, getattr(planned, figure) - less)})}
    for mode in (STRICT, AT_LEAST):
        assert not compare(planned, observed=observed, verification=mode).ok


@given(CAPACITIES, st.sampled_from(["blocks", "tokens"]), st.integers(min_value=1, max_value=10**9))
def test_more_satisfies_at_least_only(planned: Capacity, figure: str, more: int) -> None:
    observed = {"0": replace(planned, **{figure: getattr(planned, figure) + more})}
    assert compare(planned, observed=observed, verification=AT_LEAST).ok
    assert not compare(planned, observed=observed, verification=STRICT).ok


@given(st.lists(CAPACITIES, min_size=1, max_size=4), CAPACITIES)
def test_a_further_engine_never_turns_no_into_yes(engines: list[Capacity], planned: Capacity) -> None:
    observed = {str(index): engine for index, engine in enumerate(engines)}
    fewer = dict(list(observed.items())[:-1])
    for mode in (STRICT, AT_LEAST):
        if fewer and not compare(planned, observed=fewer, verification=mode).ok:
            assert not compare(planned, observed=observed, verification=mode).ok
