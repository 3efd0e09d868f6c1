"""Where nothing fits: the message names changes that were tried, and each of them leads to a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from tonnage.gpus.inventory import Pool, Sharing
from tonnage.planning.gpu import rules
from tonnage.planning.gpu.question import GpuQuestion, Hardware
from tonnage.planning.gpu.search import search
from tonnage.planning.plan import Plan, Quality, Rejection
from unit.planning.gpu.samples import LLAMA_70B, LOSSLESS, answer, model, node, plan, pool, rejection
from unit.planning.gpu.test_search import as_plan, questions

THREE_FREE = pool("H100-80GB", node("a", free=1), node("b", free=2))


def test_the_nearest_plans_are_named() -> None:
    found = rejection(THREE_FREE, profile=LLAMA_70B, context_length=32768, quality=LOSSLESS)
    assert (found.reason, dict(found.numbers)) == (
        "NotEnoughGpus",
        {"missingGpus": 2, "maxContextLength": 11264, "maxConcurrency": 5, "qualityNearLossless": 1},
    )
    assert found.message == (
        "Lossless: weights and KV cache as shipped fits 4x H100-80GB, but no node has 4 H100-80GB free; it "
        "would fit with 2 more H100-80GB free on one node (4 in all), or workload.contextLength <= 11264, or "
        "workload.concurrency <= 5, or quality NearLossless"
    )


def test_each_of_them_leads_to_a_plan_and_a_little_more_does_not() -> None:
    asked: dict[str, Any] = {"profile": LLAMA_70B, "quality": LOSSLESS}
    assert isinstance(answer(THREE_FREE, context_length=11264, **asked), Plan)
    assert isinstance(answer(THREE_FREE, context_length=11264 + 512, **asked), Rejection)
    assert isinstance(answer(THREE_FREE, context_length=32768, concurrency=5, **asked), Plan)
    assert isinstance(answer(THREE_FREE, context_length=32768, concurrency=6, **asked), Rejection)
    assert plan(THREE_FREE, profile=LLAMA_70B, context_length=32768).quality is Quality.NEAR_LOSSLESS
    four = pool("H100-80GB", node("a", free=1), node("b", free=4))
    assert plan(four, context_length=32768, **asked).gpus_per_replica == 4


def test_a_larger_node_is_named_where_no_node_would_do_even_if_it_were_free() -> None:
    found = rejection(
        pool("L40S", node(devices=4)), profile=LLAMA_70B, context_length=32768, quality=LOSSLESS
    )
    assert found.reason == "NotEnoughMemory"
    assert "a node with 8 L40S" in found.message
    assert plan(pool("L40S"), profile=LLAMA_70B, context_length=32768).gpus_per_replica == 8


def test_a_node_with_devices_but_no_main_memory() -> None:
    found = rejection(pool("H100-80GB", node(gib=8)), context_length=8192)
    assert "1 more H100-80GB free on a node with 10.00 GiB of main memory" in found.message


def test_nodes_that_stages_lack() -> None:
    pair = pool("H100-80GB", node("a"), node("b", free=2))
    found = rejection(pair, profile=model("deepseek-ai--DeepSeek-V3"), context_length=32768)
    assert "6 more H100-80GB, 8 free on each of 2 nodes" in found.message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hardware": Hardware(max_gpus=2)}, "fewer limits in hardware (4x H100-80GB would do)"),
        ({"hardware": Hardware(products=("L4",))}, "fewer limits in hardware (4x H100-80GB would do)"),
        ({"hardware": Hardware(tensor_parallel=1)}, "fewer limits in hardware (4x H100-80GB would do)"),
    ],
)
def test_limits_that_could_be_lifted(options: dict[str, Any], words: str) -> None:
    found = rejection(pool("H100-80GB"), profile=LLAMA_70B, context_length=32768, quality=LOSSLESS, **options)
    assert words in found.message


def test_a_pin_that_could_be_lifted() -> None:
    pair = pool("H100-80GB", node(devices=2))
    found = rejection(
        pair, profile=LLAMA_70B, context_length=49152, kv_dtype="auto", hardware=Hardware(quantization="None")
    )
    assert found.numbers.get("weightsQuantizationAuto") == 1
    cache = rejection(pair, profile=LLAMA_70B, context_length=131072, concurrency=8, kv_dtype="auto")
    assert "cache.dtype Auto" in cache.message


def test_what_nothing_would_help_says_only_what_is_missing() -> None:
    found = rejection(pool("L4"), profile=model("deepseek-ai--DeepSeek-V3"), context_length=32768)
    assert found.message == "weights of 79.29 GiB are more than the 21.96 GiB of each of 8x L4"
    assert not found.numbers


@settings(max_examples=40)
@given(asked=questions())
def test_whatever_is_named_was_found(asked: GpuQuestion) -> None:
    found = as_plan(asked)
    if isinstance(found, Plan) or rules.first_rejection(asked) is not None:
        return
    assert len(found.message) <= 1024
    for key, value in found.numbers.items():
        assert isinstance(value, int)
        assert search(_changed(asked, key, value)).chosen is not None, (key, value)


def _with_more(chosen: Pool, count: int) -> Pool:
    """As many devices more on every node, and on two nodes with main memory that were not there."""
    nodes = [replace(each, free=min(each.devices, each.free + count)) for each in chosen.nodes]
    size = chosen.devices_per_pod
    further = [node(f"more-{at}", devices=size, free=min(size, count), gib=4096) for at in range(2)]
    return replace(chosen, nodes=(*nodes, *further))


def _with_a_node(chosen: Pool, devices: int) -> Pool:
    """One more node, if devices are whole."""
    if chosen.sharing is not Sharing.NONE:
        return chosen
    return replace(chosen, nodes=(*chosen.nodes, node("more", devices=devices, gib=4096)))


def _changed(asked: GpuQuestion, key: str, value: int) -> GpuQuestion:
    demand, hardware = asked.demand, asked.hardware
    if key == "maxContextLength":
        typical = None if demand.typical_tokens is None else min(demand.typical_tokens, value)
        return replace(asked, demand=replace(demand, context_length=value, typical_tokens=typical))
    if key == "maxConcurrency":
        return replace(asked, demand=replace(demand, concurrency=value))
    if key.startswith("quality"):
        return replace(asked, demand=replace(demand, quality=Quality(key.removeprefix("quality"))))
    if key == "missingGpus":
        return replace(asked, pools=tuple(_with_more(each, value) for each in asked.pools))
    if key == "gpusOnOneNode":
        return replace(asked, pools=tuple(_with_a_node(each, value) for each in asked.pools))
    if key == "cacheDtypeAuto":
        return replace(asked, demand=replace(demand, kv_dtype=None))
    if key == "weightsQuantizationAuto":
        return replace(asked, hardware=replace(hardware, quantization=None))
    assert key == "hardwareFree", key
    return replace(asked, hardware=Hardware(quantization=hardware.quantization))
