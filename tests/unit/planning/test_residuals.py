"""What starts teach: bounded, robust, only by images that are trusted, and kept as it was."""

from __future__ import annotations

import random
from dataclasses import fields
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.engines.overheads import memory_rules_for
from tonnage.planning.budget import budget
from tonnage.planning.fit import Device, EngineOptions, lay_out
from tonnage.planning.graphs import captured_sizes
from tonnage.planning.load import Load
from tonnage.planning.plan import MemoryBytes
from tonnage.planning.residuals import (
    FORMAT,
    KEPT,
    MAX_KEYS,
    MAX_STEP_MIB,
    Key,
    Learned,
    Residuals,
    as_learned,
    beside_kv,
    calibrated,
    dump,
    is_trusted,
    kv_bound,
    plan_bound,
    read,
)
from tonnage.planning.term import GIB, MIB, Term
from unit.planning.starts import Start, adapters_of, log_rows, on_cards, shape_named

KEY = Key(
    engine_version="0.32.0",
    product="RTX 4090",
    architecture="Qwen3ForCausalLM",
    tensor_parallel=1,
    graphs="FULL_AND_PIECEWISE",
    compiled=True,
)
LAW = Term(60 * GIB, 70 * GIB, 80 * GIB, "a law")
REPLAYED = [row for row in log_rows() if "C152" <= row["id"] <= "C163"]
COLD = {"C157", "C158", "C160", "C162"}
"""Their source says that they compiled: 0.8 to 1.09 GiB of activations, 0.15 in those that did not."""
_WITHOUT_SLOTS_GIB = 7.63 - 0.077


def taught(*residuals_mib: int, key: Key = KEY) -> Residuals:
    known = Residuals()
    for second, residual in enumerate(residuals_mib):
        known = told(known, residual, started_at=second, key=key)
    return known


def told(known: Residuals, residual_mib: int, *, started_at: int, key: Key = KEY) -> Residuals:
    measured = LAW.likely + residual_mib * MIB
    return known.with_start(key, started_at=started_at, measured_bytes=measured, law=LAW, trusted=True)


def of(known: Residuals, key: Key = KEY) -> Learned:
    found = known.of(key)
    assert found is not None
    return found


# The replay of one machine's starts (LoRA slots, cold and warm compile cache)


def _replayed(row: dict[str, str]) -> tuple[Key, Load, int, float, int]:
    """(key, load, total, utilization, bytes that the engine had): release and batch are not stated; the
    second model runner and the default batch of its card are taken for all."""
    options = EngineOptions(context_tokens=8192, max_num_seqs=256, max_num_batched_tokens=2048)
    laid = lay_out(shape_named("Qwen/Qwen3-4B"), device=Device(compute_capability=(8, 9)), options=options)
    load = Load(
        laid=laid,
        weights=int(_WITHOUT_SLOTS_GIB * GIB),
        graph_sizes=captured_sizes(sequences=256, tokens=2048),
        rules=memory_rules_for("0.32.0"),
        second_runner=True,
        adapters=adapters_of(int(row["lora_slots"])),
        cold=row["id"] in COLD,
    )
    key = Key(
        engine_version="0.32.0",
        product="24GB",
        architecture="Qwen3ForCausalLM",
        tensor_parallel=1,
        graphs="FULL_AND_PIECEWISE",
        compiled=row["id"] not in COLD,
    )
    had = float(row["available_kv_gib"] or row["kv_in_use_gib"])
    return key, load, int(float(row["total_gib"]) * GIB), float(row["utilization"]), int(had * GIB)


def _gap(known: Residuals, row: dict[str, str]) -> float:
    """GiB that the engine had beyond the lower bound."""
    key, load, total, utilization, had = _replayed(row)
    bound = kv_bound(budget(load, total_bytes=total), known.of(key), utilization=utilization)
    return (had - bound.lower) / GIB


def _learn(known: Residuals, row: dict[str, str]) -> Residuals:
    key, load, total, utilization, had = _replayed(row)
    share = int(utilization * total)
    law = beside_kv(budget(load, total_bytes=total).measured_kv(utilization=utilization), share=share)
    started_at = int(row["id"].removeprefix("C"))
    return known.with_start(key, started_at=started_at, measured_bytes=share - had, law=law, trusted=True)


_BOTH = list(
    product(
        [row for row in REPLAYED if row["id"] in COLD], [row for row in REPLAYED if row["id"] not in COLD]
    )
)


@pytest.mark.parametrize(("cold", "warm"), _BOTH, ids=[f"{cold['id']}-{warm['id']}" for cold, warm in _BOTH])
def test_after_one_cold_and_one_warm_start_the_bound_holds(
    cold: dict[str, str], warm: dict[str, str]
) -> None:
    known = _learn(_learn(Residuals(), cold), warm)
    gaps = [_gap(known, row) for row in REPLAYED]
    assert len(gaps) == 12
    assert min(gaps) >= 0
    assert sum(gaps) / len(gaps) <= 0.3


@given(order=st.permutations(REPLAYED))
def test_it_holds_in_any_order_as_more_starts_teach(order: list[dict[str, str]]) -> None:
    known, gaps, seen = Residuals(), [], set()
    for row in order:
        kind = row["id"] in COLD
        if kind in seen:
            gaps.append(_gap(known, row))
        seen.add(kind)
        known = _learn(known, row)
    assert min(gaps) >= 0
    assert sum(gaps) / len(gaps) <= 0.3


def test_without_a_start_the_law_alone_bounds_warm_starts() -> None:
    """A first start that compiles may hold more than the law's upper figure says: what it teaches."""
    gaps = {row["id"]: _gap(Residuals(), row) for row in REPLAYED}
    assert min(gap for name, gap in gaps.items() if name not in COLD) > 0


# The estimate


@given(
    residuals=st.lists(st.integers(-300, 300), min_size=0, max_size=30), outlier=st.integers(-60000, 60000)
)
def test_no_single_start_moves_the_estimate_by_a_tenth_of_a_gib(residuals: list[int], outlier: int) -> None:
    known = taught(*residuals)
    before, after = known.of(KEY), of(taught(*residuals, outlier))
    moved = calibrated(LAW, after).likely
    moved -= calibrated(LAW, before).likely
    assert abs(after.estimate_mib - (before.estimate_mib if before else 0)) <= MAX_STEP_MIB
    assert abs(moved) < 0.1 * GIB


@given(residual=st.integers(-900, 900), starts=st.integers(KEPT, 40))
def test_starts_that_agree_are_believed_in_the_end(residual: int, starts: int) -> None:
    found = of(taught(*[residual] * (starts + 10)))
    assert found.estimate_mib == residual
    assert found.bound_mib == max(-512, residual + 96)


@given(residuals=st.lists(st.integers(-200, 200), min_size=3, max_size=7), outlier=st.integers(1000, 60000))
def test_one_outlier_among_several_does_not_cost_capacity_for_long(
    residuals: list[int], outlier: int
) -> None:
    known = taught(*residuals, outlier)
    assert of(known).bound_mib <= max(residuals) + 192


def test_one_or_two_starts_are_believed_at_once() -> None:
    assert of(taught(900)).bound_mib == 900 + 192
    assert of(taught(100, 900)).bound_mib == 900 + 192
    assert of(taught(100, 110, 900)).bound_mib == 110 + 192


def test_nothing_is_learned_below_the_laws_least() -> None:
    found = calibrated(LAW, of(taught(*[-12000] * 150)))
    assert found.likely == LAW.lower
    assert found.lower <= found.likely <= found.upper


_TOLD = st.lists(st.tuples(st.integers(0, 40), st.integers(-300, 300)), max_size=30)


@given(starts=_TOLD, again=st.data())
def test_a_start_teaches_once_whoever_tells_of_it_again(
    starts: list[tuple[int, int]], again: st.DataObject
) -> None:
    """Told of again in any order, by a process that has read what was kept."""
    known = Residuals()
    for second, residual in starts:
        known = told(known, residual, started_at=second)
    restarted, problems = read(dump(known))
    assert (restarted, problems) == (known, ())
    for second, residual in again.draw(st.permutations(starts)):
        assert told(restarted, residual, started_at=second) is restarted


@given(starts=st.dictionaries(st.integers(0, 10**6), st.integers(-300, 300), max_size=20), order=st.data())
def test_in_whatever_order_starts_are_told_of_the_newest_bound(
    starts: dict[int, int], order: st.DataObject
) -> None:
    known = Residuals()
    for second in order.draw(st.permutations(sorted(starts))):
        known = told(known, starts[second], started_at=second)
    found = known.of(KEY)
    newest = tuple(starts[second] for second in sorted(starts)[-KEPT:])
    assert (found.residuals_mib if found else ()) == newest
    if found:
        assert found.bound_mib == of(taught(*newest)).bound_mib


def test_a_cold_start_stands_for_a_warm_one_until_there_is_one() -> None:
    cold = Key(**{**{name: getattr(KEY, name) for name in KEY.__slots__}, "compiled": False})
    known = taught(500, key=cold)
    assert of(known).residuals_mib == (500,)
    known = told(known, 0, started_at=1)
    assert (of(known).residuals_mib, of(known, cold).residuals_mib) == ((0,), (500,))


# Plans


TAUGHT = [start for start in on_cards() if start.ready_bytes is not None]


@pytest.mark.parametrize("start", TAUGHT, ids=lambda start: str(start.id))
def test_a_plan_that_was_taught_by_a_start_holds_its_burst(start: Start) -> None:
    """What that start showed when it was ready teaches; what it held after its burst must fit, with the
    plan's bytes beside it."""
    assert start.ready_bytes is not None
    assert start.other_bytes is not None
    known = Residuals().with_start(
        KEY, started_at=1, measured_bytes=start.ready_bytes, law=start.budget.at_ready, trusted=True
    )
    bound = plan_bound(start.budget, known.of(KEY))
    assert bound + start.other_bytes <= start.total_bytes
    assert plan_bound(start.budget, None) == start.budget.kv_bytes


def _key(start: Start) -> Key:
    return Key(
        engine_version="0.26.0",
        product=start.product,
        architecture=start.load.shape.architecture,
        tensor_parallel=1,
        graphs="FULL_AND_PIECEWISE" if start.load.graph_sizes else "NONE",
        compiled=False,
    )


@pytest.mark.parametrize("teacher", TAUGHT, ids=lambda start: str(start.id))
@pytest.mark.parametrize("starts", [1, 8])
def test_a_plan_that_was_taught_by_any_start_of_its_key_holds_its_own_burst(
    teacher: Start, starts: int
) -> None:
    """Models of one architecture are of many sizes, and their limits differ."""
    assert teacher.ready_bytes is not None
    known = Residuals()
    for second in range(1, starts + 1):
        known = known.with_start(
            _key(teacher),
            started_at=second,
            measured_bytes=teacher.ready_bytes,
            law=teacher.budget.at_ready,
            trusted=True,
        )
    for start in TAUGHT:
        if _key(start) == _key(teacher):
            bound = plan_bound(start.budget, known.of(_key(start)))
            assert start.other_bytes is not None
            assert bound + start.other_bytes <= start.total_bytes, start.id


@pytest.mark.parametrize("start", TAUGHT, ids=lambda start: str(start.id))
@pytest.mark.parametrize("residuals_mib", [(-60000,), (-700,), (-200,) * 5, (0,) * 5, (500,), (60000,)])
def test_a_learned_budget_has_the_bytes_of_the_bound_and_says_for_what(
    start: Start, residuals_mib: tuple[int, ...]
) -> None:
    learned = of(taught(*residuals_mib))
    found, law = as_learned(start.budget, learned), start.budget
    bound = plan_bound(law, learned)
    assert found.kv_bytes <= bound
    assert found.kv_bytes == bound or bound > law.kv_bytes
    assert found.context == law.context
    assert found.activation == law.activation
    assert found.weights.upper >= law.weights.lower
    assert found.non_torch.upper >= law.non_torch.likely
    assert all(part >= 0 for part in vars_of(found.memory(kv_bytes=0)))
    # what is left free beyond the bound is less than a plan by the laws alone would leave
    assert bound - found.kv_bytes <= max(0, bound - law.kv_bytes)
    assert as_learned(law, None) is law


def vars_of(memory: MemoryBytes) -> list[int]:
    return [getattr(memory, field.name) for field in fields(memory)]


def test_starts_that_agree_give_a_plan_more_than_the_law_alone() -> None:
    """fill-8b-pinned and its like: 2.5 GiB were left in the burst."""
    start = next(each for each in TAUGHT if each.id == "fill-8b-pinned")
    known = Residuals()
    for second in range(5):
        known = known.with_start(
            KEY,
            started_at=second,
            measured_bytes=start.ready_bytes or 0,
            law=start.budget.at_ready,
            trusted=True,
        )
    more = plan_bound(start.budget, known.of(KEY)) - start.budget.kv_bytes
    assert 0.3 * GIB < more < 2.5 * GIB


def test_what_stood_is_estimated_when_an_engine_is_ready() -> None:
    near = [
        start
        for start in TAUGHT
        if start.load.sequences <= 512
        and start.load.tokens <= 8192
        and not start.load.shape.recurrent
        and not start.load.shape.latent
    ]
    off = [abs((start.ready_bytes or 0) - start.budget.at_ready.likely) / GIB for start in near]
    assert len(near) > 40
    assert max(off) < 0.65


# Who may teach


@given(residual=st.integers(-9000, 9000))
def test_images_that_are_not_trusted_teach_nothing(residual: int) -> None:
    known = taught(10, 20)
    measured = LAW.likely + residual * MIB
    unheard = known.with_start(KEY, started_at=9, measured_bytes=measured, law=LAW, trusted=False)
    assert unheard is known


@pytest.mark.parametrize("measured", [-1, 10**15])
def test_figures_that_no_device_has_teach_nothing(measured: int) -> None:
    known = taught(10)
    unheard = known.with_start(KEY, started_at=9, measured_bytes=measured, law=LAW, trusted=True)
    assert unheard is known


@pytest.mark.parametrize(
    ("image", "trusted"),
    [
        ("registry.example/tonnage/worker:1.2", True),
        ("registry.example/tonnage/worker@sha256:ab", True),
        ("registry.example/tonnage/worker:1.2@sha256:ab", True),
        ("registry.example:5000/mine/any:1", True),
        ("registry.example/tonnage/worker-of-mine:1.2", False),
        ("registry.example/tonnage/worker/x", False),
        ("elsewhere/tonnage/worker:1.2", False),
        ("registry.example:5000/minethree/any:1", False),
        ("", False),
        ("sha256:0123", False),
        ("tonnage/worker:1", True),
        ("docker.io/tonnage/worker:1", True),
        ("docker.io/library/vllm:1", True),
        ("localhost/tonnage/worker:1", False),
    ],
)
def test_images_are_trusted_by_repository(image: str, trusted: bool) -> None:
    known = (
        "registry.example/tonnage/worker",
        "registry.example:5000/mine/*",
        "tonnage/worker",
        "vllm",
    )
    assert is_trusted(image, known) is trusted
    assert not is_trusted(image, ())


# Keeping


_KEYS = st.builds(
    Key,
    engine_version=st.sampled_from(["0.32.0", "0.26.0"]),
    product=st.text(max_size=12),
    architecture=st.text(max_size=300),
    tensor_parallel=st.integers(1, 64),
    graphs=st.sampled_from(["NONE", "FULL_AND_PIECEWISE"]),
    compiled=st.booleans(),
)


@given(starts=st.lists(st.tuples(_KEYS, st.integers(-60000, 60000)), max_size=25))
def test_what_is_kept_is_read_back(starts: list[tuple[Key, int]]) -> None:
    known = Residuals()
    for second, (key, residual) in enumerate(starts):
        known = known.with_start(
            key,
            started_at=second,
            measured_bytes=61000 * MIB + residual * MIB,
            law=Term(0, 61000 * MIB, 90000 * MIB),
            trusted=True,
        )
    data = dump(known)
    assert read(data) == (known, ())
    shuffled = list(data.items())
    random.Random(1).shuffle(shuffled)
    assert list(dump(read(dict(shuffled))[0]).items()) == list(data.items())
    assert all(
        len(name) <= 253 and name.replace("_", "").replace("-", "").replace(".", "").isalnum()
        for name in data
    )


def test_the_form_in_a_configmap() -> None:
    assert dump(taught(40, -12)) == {
        "0.32.0_RTX-4090_Qwen3ForCausalLM_tp1_FULL-AND-PIECEWISE_warm": "2 14 40@0,-12@1",
        "format": FORMAT,
    }


def test_the_oldest_keys_make_room() -> None:
    known = Residuals()
    for number in range(MAX_KEYS + 3):
        key = Key(**{**{name: getattr(KEY, name) for name in KEY.__slots__}, "product": f"card {number}"})
        known = told(known, 0, started_at=number, key=key)
    assert len(known.learned) == MAX_KEYS
    assert sum(len(name) + len(text) for name, text in dump(known).items()) < 64 * 1024
    assert not any("card-2_" in name for name in known.learned)
    assert any(f"card-{MAX_KEYS + 2}_" in name for name in known.learned)


@pytest.mark.parametrize(
    ("data", "keys", "problem"),
    [
        ({}, 0, ""),
        ({"format": "1", "a": "1 2 3@4"}, 0, "format '1' is not '1 of"),
        ({"a": "1 2 3@4"}, 0, "format '' is not '1 of"),
        ({"format": FORMAT, "a": "1 2 3@4", "b": "1 2 3@4,x"}, 1, "b: '1 2 3@4,x' is not a turn"),
        ({"format": FORMAT, "a": "1 2 3@4,5@6"}, 1, ""),
        ({"format": FORMAT, "a": "1 2 " + ",".join(f"1@{second}" for second in range(9))}, 0, "a: "),
        ({"format": FORMAT, "a": "1 2 3@6,5@4"}, 0, "a: "),
        ({"format": FORMAT, "a": "1 2 3@6,5@6"}, 0, "a: "),
        ({"format": FORMAT, "a": "1 2 99999@6"}, 0, "a: "),
        ({"format": FORMAT, "a": "1 99999 2@6"}, 0, "a: "),
        ({"format": FORMAT, "a": "1 2 3"}, 0, "a: "),
        ({"format": FORMAT, "a": "\u0661 2 3@4"}, 0, "a: "),
        ({"format": FORMAT, "a": ""}, 0, "a: "),
    ],
)
def test_what_cannot_be_read_is_left_out_and_named(data: dict[str, str], keys: int, problem: str) -> None:
    known, problems = read(data)
    assert len(known.learned) == keys
    assert [text for text in problems if problem in text] == list(problems)
    assert bool(problems) == bool(problem)
