"""What a report teaches: of a verified plan on a device of its own, and nothing of what cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.gpus.inventory import Inventory, Sharing
from tonnage.models import ModelProfile, Trait
from tonnage.models.wire import to_wire
from tonnage.planning.gpu.again import sized_again
from tonnage.planning.gpu.choose import gpu_question, plan_on_gpus
from tonnage.planning.gpu.question import Hardware
from tonnage.planning.plan import Demand, Plan, Quality, Rejection
from tonnage.planning.residuals import NOTHING_LEARNED, Residuals, plan_bound
from tonnage.rendering.learned import build_learned, learned_in, serving
from tonnage.rendering.lessons import Lesson, key_of_start, lesson_of
from tonnage.rendering.observations import DeviceMemory, Report
from unit.planning.gpu.samples import ENGINE, GIB, LLAMA_8B, LLAMA_70B, model, node, plan, pool
from unit.rendering.samples import HASH, KEPT, report

MIB = 2**20
H100 = pool("H100")
CARDS = [pool(card) for card in ("L4", "L40S", "H100", "H200", "B200")]
ON_ONE = plan(H100, context_length=16384)


def memory(on: Plan, beside: int, **changes: int | float) -> DeviceMemory:
    """A device of a plan on which so much stands beside the KV cache."""
    assert on.gpu is not None
    total = on.gpu.device_bytes
    figures: dict[str, Any] = {
        "total_bytes": total,
        "free_at_start_bytes": total - GIB // 2,
        "free_at_ready_bytes": total - on.memory.kv - beside,
        "compiled": True,
        **changes,
    }
    return DeviceMemory(**figures)


def law(on: Plan, of: ModelProfile = LLAMA_8B) -> int:
    found = sized_again(on, model=of)
    assert found is not None
    return found.budget.at_ready.likely


def lesson(on: Plan, said: Report, *, of: ModelProfile = LLAMA_8B) -> Lesson | None:
    return lesson_of(on, plan_hash=HASH, model=of, report=said)


def told(on: Plan, beside: int, **changes: int | float) -> Report:
    return report(memory=memory(on, beside, **changes))


@pytest.mark.parametrize("quality", list(Quality))
@pytest.mark.parametrize("name", ["openai--gpt-oss-120b", "deepseek-ai--DeepSeek-V3", "Qwen--Qwen3-30B-A3B"])
@pytest.mark.parametrize("card", CARDS, ids=lambda card: str(card.product))
def test_a_plan_is_sized_again_as_it_was_made(card: Any, name: str, quality: Quality) -> None:
    profile = model(name)
    demand = Demand(context_length=16384, quality=quality)
    made = plan_on_gpus(
        gpu_question(demand, model=profile, inventory=Inventory(pools=(card,)), engine=ENGINE)
    )
    if isinstance(made, Rejection):
        # as those of the laws alone are
        assert made.reason in {"NotEnoughMemory", "EngineRefuses"}
        return
    found = sized_again(made, model=profile)
    assert found is not None
    assert found.budget.memory(kv_bytes=made.memory.kv) == made.memory
    assert (found.blocks, found.needed_blocks <= found.blocks) == (made.blocks, True)


def test_a_start_teaches_what_stands_beside_its_cache() -> None:
    beside = law(ON_ONE) + 300 * MIB
    found = lesson(ON_ONE, told(ON_ONE, beside))
    assert found is not None
    assert (found.measured_bytes, found.measured_bytes - found.law.likely) == (beside, 300 * MIB)
    assert found.key.entry == "0.32.0_H100-80GB_LlamaForCausalLM_tp1_FULL-AND-PIECEWISE_cold"


def test_bytes_that_were_withheld_are_no_matter() -> None:
    inventory = Inventory(pools=(H100,))
    kept_free = plan_on_gpus(
        gpu_question(
            Demand(context_length=16384),
            model=LLAMA_8B,
            inventory=inventory,
            engine=ENGINE,
            withheld_bytes=3 * GIB,
        )
    )
    assert isinstance(kept_free, Plan)
    beside = law(ON_ONE)
    first, second = (lesson(each, told(each, beside)) for each in (ON_ONE, kept_free))
    assert first == second
    assert first is not None


def test_a_plan_by_what_was_learned_teaches_against_the_law_too() -> None:
    first = lesson(ON_ONE, told(ON_ONE, law(ON_ONE) - 300 * MIB))
    assert first is not None
    known = taught(first)
    after = replan(known)
    assert after.memory.kv > ON_ONE.memory.kv
    second = lesson(after, told(after, law(ON_ONE) - 300 * MIB))
    assert second == first


def taught(*lessons: Lesson, known: Residuals = NOTHING_LEARNED) -> Residuals:
    for second, each in enumerate(lessons, start=1):
        known = known.with_start(
            each.key, started_at=second, measured_bytes=each.measured_bytes, law=each.law, trusted=True
        )
    return known


def replan(known: Residuals, *, of: ModelProfile = LLAMA_8B, **hardware: Any) -> Plan:
    """The plan of `ON_ONE` made anew."""
    inventory = Inventory(pools=(H100,))
    made = plan_on_gpus(
        gpu_question(
            Demand(context_length=16384),
            model=of,
            inventory=inventory,
            engine=ENGINE,
            hardware=Hardware(**hardware),
            learned=known,
        )
    )
    assert isinstance(made, Plan)
    return made


@pytest.mark.parametrize("mib", [-600, 0, 700, 1800])
def test_a_new_plan_has_the_bytes_of_the_bound_and_says_so(mib: int) -> None:
    start = lesson(ON_ONE, told(ON_ONE, law(ON_ONE) + mib * MIB))
    assert start is not None
    known, sized = taught(start), sized_again(ON_ONE, model=LLAMA_8B)
    assert sized is not None
    made, bound = replan(known), plan_bound(sized.budget, known.of(start.key))
    assert made == replan(known)
    assert ON_ONE.gpu is not None
    assert made.memory.kv <= bound
    assert bound - made.memory.kv < made.bytes_per_block or made.memory.kv > ON_ONE.memory.kv
    assert made.memory.total <= ON_ONE.gpu.device_bytes
    assert "by what 1 start held: " in made.reason
    # a start is refused where less than this is free once the context is there
    assert made.memory.total - made.memory.context - made.memory.non_torch <= (
        ON_ONE.gpu.device_bytes - made.memory.context
    )
    assert replan(NOTHING_LEARNED) == ON_ONE


def test_others_are_planned_by_the_laws_as_before() -> None:
    start = lesson(ON_ONE, told(ON_ONE, law(ON_ONE) + 700 * MIB))
    assert start is not None
    warm = replace(start, key=replace(start.key, compiled=True))
    for other in (warm, replace(start, key=replace(start.key, architecture="Other"))):
        assert replan(taught(other)) == ON_ONE
    assert replan(taught(start), tensor_parallel=2) == plan(
        H100, context_length=16384, hardware=Hardware(tensor_parallel=2)
    )


def test_margins_that_encoders_need_are_not_given_away() -> None:
    """What is seen of such a model at its start is without an image."""
    shape = replace(LLAMA_8B.shape, traits=LLAMA_8B.shape.traits | {Trait.MULTIMODAL})
    sees = replace(LLAMA_8B, shape=shape)
    by_law, less, more = (
        replan(known, of=sees)
        for known in (NOTHING_LEARNED, *(taught(seen_of(ON_ONE, mib)) for mib in (-300, 1800)))
    )
    assert less == by_law
    assert more.memory.kv < by_law.memory.kv


def seen_of(on: Plan, residual_mib: int) -> Lesson:
    found = lesson(on, told(on, law(on) + residual_mib * MIB))
    assert found is not None
    return found


def test_what_starts_hold_may_leave_no_room_which_is_a_rejection() -> None:
    start = lesson(ON_ONE, told(ON_ONE, law(ON_ONE) + 100 * MIB))
    assert start is not None
    known = taught(replace(start, measured_bytes=start.measured_bytes + 63 * GIB))
    made = plan_on_gpus(
        gpu_question(
            Demand(context_length=16384, quality=Quality.LOSSLESS, concurrency=64),
            model=LLAMA_8B,
            inventory=Inventory(pools=(pool("H100", node(devices=1)),)),
            engine=ENGINE,
            learned=known,
        )
    )
    if isinstance(made, Rejection):
        assert "by what 1 start held" in made.message
    else:
        assert made.gpu is not None
        assert made.gpu.enforce_eager


@pytest.mark.parametrize("compiled", [True, False])
def test_a_start_that_compiles_teaches_others_that_do(compiled: bool) -> None:
    found = lesson(ON_ONE, told(ON_ONE, law(ON_ONE), compiled=compiled))
    assert found is not None
    assert found.key.compiled is not compiled


def test_an_eager_start_compiles_nothing_and_teaches_all_the_same() -> None:
    assert ON_ONE.gpu is not None
    gpu = replace(ON_ONE.gpu, enforce_eager=True, captured_sizes=(), graph_mode="NONE")
    eager = replace(ON_ONE, gpu=gpu)
    found = lesson(eager, told(eager, law(eager), compiled=False))
    assert found is not None
    assert (found.key.compiled, found.key.graphs) == (False, "NONE")


def test_of_several_ranks_the_fullest_device_that_is_told_teaches() -> None:
    on_four = plan(pool("H100", node(devices=4)), profile=LLAMA_70B, context_length=16384)
    assert on_four.tensor_parallel > 1
    found = lesson(on_four, told(on_four, law(on_four, LLAMA_70B)), of=LLAMA_70B)
    assert found is not None
    assert found.key.tensor_parallel == on_four.tensor_parallel


@pytest.mark.parametrize(
    "said",
    [
        {"state": "Starting"},
        {"state": "Reported"},
        {"state": "Mismatch"},
        {"plan_hash": "another"},
        {"engine_version": ""},
        {"engine_version": "0.31.0"},
        {"memory": None},
    ],
    ids=str,
)
def test_only_a_verified_engine_of_this_very_plan_teaches(said: dict[str, Any]) -> None:
    good = told(ON_ONE, law(ON_ONE))
    assert lesson(ON_ONE, replace(good, engine_version="0.32.0+cu129")) is not None
    assert lesson(ON_ONE, replace(good, **said)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"total_bytes": 24 * GIB},
        {"total_bytes": 0},
        {"free_at_start_bytes": 60 * GIB},
        {"free_at_start_bytes": 200 * GIB},
        {"free_at_ready_bytes": 90 * GIB},
        {"free_at_ready_bytes": 70 * GIB},
    ],
    ids=str,
)
def test_figures_that_this_device_cannot_have_teach_nothing(changes: dict[str, int]) -> None:
    assert lesson(ON_ONE, told(ON_ONE, law(ON_ONE), **changes)) is None


@given(figures=st.lists(st.integers(0, 2**63 - 1), min_size=3, max_size=3), compiled=st.booleans())
def test_whatever_is_told_no_plan_breaks_by_it(figures: list[int], compiled: bool) -> None:
    total, start, ready = figures
    said = DeviceMemory(
        total_bytes=total,
        free_at_start_bytes=start,
        free_at_ready_bytes=ready,
        compiled=compiled,
    )
    found = lesson(ON_ONE, report(memory=said))
    assert found is None or found.law.lower <= found.measured_bytes <= total


@given(beside=st.integers(-(2**37), 2**37), free=st.integers(0, 2**37))
def test_whatever_a_device_is_said_to_hold_a_plan_keeps_within_it(beside: int, free: int) -> None:
    said = replace(memory(ON_ONE, beside), free_at_start_bytes=free)
    found = lesson(ON_ONE, report(memory=said))
    assert ON_ONE.gpu is not None
    if found is not None:
        assert replan(taught(found)).memory.total <= ON_ONE.gpu.device_bytes


@pytest.mark.parametrize(
    "changes",
    [
        {"sharing": Sharing.MPS},
        {"sharing": Sharing.TIME_SLICING},
        {"pipeline_parallel": 2},
        {"nodes_per_replica": 2},
        {"captured_sizes": (1, 2)},
    ],
    ids=str,
)
def test_starts_on_shared_devices_or_in_parts_teach_nothing(changes: dict[str, Any]) -> None:
    assert ON_ONE.gpu is not None
    said = told(ON_ONE, law(ON_ONE))
    assert lesson(replace(ON_ONE, gpu=replace(ON_ONE.gpu, **changes)), said) is None


def test_plans_on_cpu_nodes_teach_nothing() -> None:
    assert lesson(KEPT.plan, told(ON_ONE, GIB)) is None


def test_a_kept_plan_knows_by_what_its_starts_teach() -> None:
    kept = replace(KEPT, plan=ON_ONE, model=to_wire(LLAMA_8B))
    found = lesson(ON_ONE, told(ON_ONE, law(ON_ONE)))
    assert found is not None
    assert key_of_start(kept) == found.key
    assert key_of_start(KEPT) is None


def test_the_operator_that_serves_a_namespace_by_name_is_asked_first() -> None:
    maps = [
        build_learned({"format": "x"}, namespace="a", name="a", watched=()),
        build_learned({}, namespace="b", name="b", watched=("team", "other")),
    ]
    assert serving(maps, namespace="team") == maps[1]
    assert serving(maps, namespace="elsewhere") == maps[0]
    assert serving(maps[1:], namespace="elsewhere") is None
    assert learned_in(maps, namespace="elsewhere") == NOTHING_LEARNED
    assert "app.kubernetes.io/managed-by" not in maps[0]["metadata"]["labels"]
