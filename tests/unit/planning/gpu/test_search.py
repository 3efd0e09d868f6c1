"""The search: equal to one that leaves nothing out, the same in any order, and never worse with more."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonnage.gpus.inventory import Inventory, Pool, Sharing
from tonnage.planning.fit import Device, EngineOptions, fit
from tonnage.planning.gpu import rules
from tonnage.planning.gpu.choose import gpu_question, plan_on_gpus
from tonnage.planning.gpu.ladder import Step, steps
from tonnage.planning.gpu.question import GpuQuestion, Hardware, usable_bytes, whole_bytes
from tonnage.planning.gpu.search import possible, search
from tonnage.planning.plan import Plan, Quality, Rejection
from unit.planning.gpu.everything import best_of_everything
from unit.planning.gpu.samples import LLAMA_8B, LLAMA_70B, model, node, plan, pool, question, with_free

CARDS = ("T4", "A10", "L4", "A100-40GB", "A100-80GB", "L40S", "H100-80GB", "H200", "B200")
MODELS = (
    LLAMA_8B,
    LLAMA_70B,
    model("openai--gpt-oss-20b"),
    model("Qwen--Qwen3-30B-A3B"),
    model("tfdefault--deepseek_v2"),
    model("nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"),
)


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    card = draw(st.sampled_from(CARDS))
    devices = draw(st.sampled_from([1, 2, 4, 6, 8]))
    sizes = [devices, *draw(st.lists(st.sampled_from([devices, devices, -(-devices // 2)]), max_size=2))]
    nodes = [
        node(
            f"n{number}",
            devices=size,
            free=draw(st.integers(0, size)),
            gib=draw(st.sampled_from([512, 512, 512, 30, 8])),
        )
        for number, size in enumerate(sizes)
    ]
    sharing = draw(st.sampled_from([*[Sharing.NONE] * 6, *Sharing]))
    whole = pool(card, *nodes, sharing=sharing, clients=1 if sharing in {Sharing.NONE, Sharing.MIG} else 2)
    part = 2 if sharing in {Sharing.MIG, Sharing.MPS} else 1
    return replace(whole, memory_bytes=whole.memory_bytes // part)


@st.composite
def questions(draw: st.DrawFn) -> GpuQuestion:
    found = {each.name: each for each in draw(st.lists(pools(), min_size=1, max_size=3))}
    context = draw(st.sampled_from([1024, 4096, 8192]))
    hardware = Hardware(
        tensor_parallel=draw(st.sampled_from([None, None, None, 2, 3])),
        pipeline_parallel=draw(st.sampled_from([None, None, None, 1, 2])),
        max_gpus=draw(st.sampled_from([None, None, 1, 4])),
        quantization=draw(st.sampled_from([None, None, None, "None", "fp8"])),
    )
    priced = draw(st.lists(st.sampled_from(CARDS), unique=True, max_size=3))
    return question(
        found.values(),
        profile=draw(st.sampled_from(MODELS)),
        hardware=hardware,
        prices={card: Decimal(draw(st.integers(1, 3))) for card in priced},
        context_length=context,
        concurrency=draw(st.integers(1, 600)),
        typical_tokens=draw(st.none() | st.integers(1, context)),
        quality=draw(st.sampled_from(list(Quality))),
        kv_dtype=draw(st.sampled_from([None, None, None, "auto", "fp8", "int8_per_token_head"])),
    )


def as_plan(asked: GpuQuestion) -> Plan | Rejection:
    return plan_on_gpus(
        gpu_question(
            asked.demand,
            model=asked.model,
            inventory=Inventory(pools=asked.pools),
            engine=asked.engine,
            hardware=asked.hardware,
            prices=asked.prices,
        )
    )


def as_bytes(found: Plan | Rejection) -> bytes:
    return json.dumps(dataclasses.asdict(found)).encode()


@settings(max_examples=150)
@given(asked=questions())
def test_nothing_is_missed_by_leaving_things_out(asked: GpuQuestion) -> None:
    everything = best_of_everything(asked)
    found = None if rules.first_rejection(asked) else search(asked).chosen
    assert (found is None) == (everything is None)
    if found is not None and everything is not None:
        assert found.choice == everything.choice
        assert (found.blocks, found.kv_bytes) == (everything.blocks, everything.kv_bytes)
        assert possible(asked)
    elif rules.first_rejection(asked) is None:
        assert not possible(asked)


@settings(max_examples=60)
@given(asked=questions(), data=st.data())
def test_the_same_question_in_any_order_has_the_same_answer_byte_for_byte(
    asked: GpuQuestion, data: st.DataObject
) -> None:
    shuffled = [
        replace(each, nodes=tuple(data.draw(st.permutations(each.nodes))))
        for each in data.draw(st.permutations(asked.pools))
    ]
    assert as_bytes(as_plan(replace(asked, pools=tuple(shuffled)))) == as_bytes(as_plan(asked))


@settings(max_examples=60)
@given(asked=questions())
def test_a_plan_obeys_every_rule_and_the_engine_makes_of_it_what_it_says(asked: GpuQuestion) -> None:
    found = as_plan(asked)
    if isinstance(found, Rejection):
        return
    assert found.gpu is not None
    chosen = search(asked).chosen
    assert chosen is not None
    choice = chosen.choice
    assert rules.pool_rejection(asked, choice.pool) is None
    assert all(rule(asked, choice.pool, choice.step) is None for rule in rules.STEP_CHAIN)
    assert rules.gpus_allowed(asked, choice) is None
    assert all(rule(asked, chosen) is None for rule in rules.CANDIDATE_CHAIN)
    assert rules.devices_free(asked, choice) is None
    assert found.memory.total <= usable_bytes(choice.pool)
    assert 0 < float(found.gpu.memory_utilization) * whole_bytes(choice.pool) <= found.memory.total
    assert len(found.reason) <= 512
    assert len(found.alternatives) <= 5
    answer = fit(
        asked.model.shape,
        device=Device(compute_capability=found.gpu.compute_capability),
        options=EngineOptions(
            tensor_parallel=found.tensor_parallel,
            pipeline_parallel=found.gpu.pipeline_parallel,
            kv_dtype=found.kv_dtype,
            context_tokens=found.context_length,
            max_num_seqs=found.max_num_seqs,
            max_num_batched_tokens=found.max_num_batched_tokens,
            block_tokens=found.block_size,
        ),
        kv_bytes=found.memory.kv,
    )
    assert answer.fits
    assert (answer.num_blocks, answer.kv_tokens) == (found.blocks, found.tokens)
    assert answer.max_concurrency == found.concurrency_at_context
    assert found.concurrency_at_typical >= asked.demand.concurrency


def standing(asked: GpuQuestion) -> tuple[int, int] | None:
    """(step, GPUs) of what is chosen."""
    chosen = None if rules.first_rejection(asked) else search(asked).chosen
    return None if chosen is None else (steps(asked).index(chosen.choice.step), chosen.choice.gpus)


@settings(max_examples=60)
@given(asked=questions(), more=st.integers(1, 64))
def test_more_memory_never_makes_it_worse(asked: GpuQuestion, more: int) -> None:
    larger = tuple(
        replace(each, memory_bytes=each.memory_bytes + more * 2**30, name=each.name) for each in asked.pools
    )
    before, after = standing(asked), standing(replace(asked, pools=larger))
    assert before is None or (after is not None and after <= before)


@settings(max_examples=60)
@given(asked=questions(), more=st.integers(1, 500))
def test_more_requests_never_make_it_better(asked: GpuQuestion, more: int) -> None:
    busier = replace(asked, demand=replace(asked.demand, concurrency=asked.demand.concurrency + more))
    before, after = standing(asked), standing(busier)
    assert after is None or (before is not None and before <= after)


@settings(max_examples=60)
@given(
    asked=questions(), others=st.integers(1, 5), gib=st.sampled_from([512, 30, 8]), smaller=st.integers(0, 2)
)
def test_no_word_depends_on_how_many_nodes_there_are(
    asked: GpuQuestion, others: int, gib: int, smaller: int
) -> None:
    """Nodes join that have nothing free."""
    wider = tuple(
        replace(
            each,
            nodes=(
                *each.nodes,
                *(
                    node(f"more-{at}", devices=max(0, each.devices_per_pod - smaller), free=0, gib=gib)
                    for at in range(others)
                ),
            ),
        )
        for each in asked.pools
    )
    before, after = as_plan(asked), as_plan(replace(asked, pools=wider))
    if isinstance(before, Plan):
        assert as_bytes(before) == as_bytes(after)


def test_why_a_choice_lost_does_not_change_when_a_small_node_joins() -> None:
    alone = plan(pool("H100-80GB", node(free=2)), profile=LLAMA_70B, context_length=32768)
    assert alone.alternatives[0].why == "fits 4x H100-80GB, but no node has 4 H100-80GB free"
    joined = pool("H100-80GB", node(free=2), node("small", free=0, gib=8))
    assert plan(joined, profile=LLAMA_70B, context_length=32768) == alone


def test_what_others_take_changes_only_which_candidate_is_taken() -> None:
    first = plan(pool("H100-80GB"), profile=LLAMA_70B, context_length=32768)
    again = plan(with_free(pool("H100-80GB"), 4), profile=LLAMA_70B, context_length=32768)
    assert (first.gpus_per_replica, first) == (4, again)


def test_prices_decide_among_as_few_gpus_and_nothing_else() -> None:
    both = (pool("H100-80GB"), pool("L4"))
    chosen = {
        name: plan(*both, prices=prices, context_length=8192, concurrency=8).product
        for name, prices in {
            "none": {},
            "cheap": {"L4": Decimal(1), "H100-80GB": Decimal(4)},
            "one": {"H100-80GB": Decimal(4)},
            "pool": {"nvidia-l4": Decimal("0.5"), "H100-80GB": Decimal(4)},
        }.items()
    }
    assert chosen == {"none": "H100-80GB", "cheap": "L4", "one": "H100-80GB", "pool": "L4"}
    # Four cheap cards are more GPUs than one dear one.
    large: dict[str, Any] = {"profile": LLAMA_8B, "context_length": 65536}
    dear = plan(*both, prices={"L4": Decimal(1), "H100-80GB": Decimal(100)}, **large)
    assert (dear.product, dear.gpus_per_replica) == ("H100-80GB", 1)


def test_of_equals_the_first_by_name_is_taken() -> None:
    twins = [pool("L4", name=name) for name in ("b", "a")]
    found = plan(*twins, context_length=4096)
    assert found.pool == "a"
    assert [each.why for each in found.alternatives] == ["is as good; the first by name was taken"]


@pytest.mark.parametrize(
    ("quality", "first", "last"),
    [
        (Quality.LOSSLESS, Step("auto"), Step("auto", eager=True)),
        (Quality.NEAR_LOSSLESS, Step("auto"), Step("fp8", "fp8", eager=True)),
        (Quality.ECONOMY, Step("auto"), Step("nvfp4", "fp8", eager=True)),
    ],
)
def test_the_ladder_goes_down_rung_by_rung(quality: Quality, first: Step, last: Step) -> None:
    found = steps(question([pool("L4")], quality=quality))
    assert (found[0], found[-1]) == (first, last)
    order = [list(Quality).index(step.quality) for step in found]
    assert order == sorted(order)
