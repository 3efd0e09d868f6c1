"""What is stored of a plan: a CPU plan as it always was, a plan on accelerators whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.gpus.inventory import Access, Sharing, Vendor
from tonnage.planning.plan import Alternative, GpuPlan, Plan, Quality
from tonnage.rendering.decision import Decision
from tonnage.rendering.plan import Kept, build_plan_config_map, hash_of, read_kept
from unit.planning.samples import node
from unit.rendering.samples import KEPT, ON_FOUR, OWNER, on_gpus, spec
from unit.rendering.test_decision import decide, made, subject


def stored(kept: Kept) -> Mapping[str, Any]:
    body = build_plan_config_map(kept, plan_hash=hash_of(kept, spec=spec()), spec=spec(), owner=OWNER)
    data: Mapping[str, Any] = body["data"]
    return data


def digest(kept: Kept) -> str:
    return hashlib.sha256(json.dumps(stored(kept), sort_keys=True).encode()).hexdigest()[:16]


def test_plans_of_cpu_nodes_are_stored_as_before_there_were_others() -> None:
    """Figures of the version before plans had a GPU part: another figure here restarts what runs."""
    decision = made(subject())
    assert (hash_of(KEPT, spec=spec()), digest(KEPT)) == ("c3e80f8039", "1bf143d0ea2be579")
    assert (decision.plan_hash, digest(decision.kept)) == ("fc7e7f0601", "e833bcf3305c6383")


def test_a_plan_on_accelerators_is_found_again_exactly() -> None:
    for gpu in (ON_FOUR, dataclasses.replace(ON_FOUR, vendor=Vendor.AMD, compute_capability=None)):
        assert read_kept({"metadata": {}, "data": stored(on_gpus(gpu))}) == on_gpus(gpu)


@pytest.mark.parametrize("field", dataclasses.fields(GpuPlan), ids=lambda field: str(field.name))
def test_whatever_an_engine_is_started_with_is_part_of_the_hash(field: dataclasses.Field[Any]) -> None:
    other: dict[str, Any] = {
        "vendor": Vendor.AMD,
        "access": Access.CLAIM,
        "sharing": Sharing.MIG,
        "node_labels": {},
        "compute_capability": None,
        "captured_sizes": (1,),
        "selectors": ("device.driver == 'gpu.nvidia.com'",),
        "enforce_eager": True,
    }
    value = getattr(ON_FOUR, field.name)
    changed = other.get(field.name, value + 1 if isinstance(value, int) else f"{value}x")
    assert hash_of(on_gpus(dataclasses.replace(ON_FOUR, **{field.name: changed})), spec=spec()) != hash_of(
        on_gpus(), spec=spec()
    )


VALUES: dict[str, tuple[Any, ...]] = {
    "engine_version": ("0.32.0", "0.32.1"),
    "gpus_per_replica": (1, 2),
    "tensor_parallel": (1, 2),
    "memory": (KEPT.plan.memory, dataclasses.replace(KEPT.plan.memory, kv=1)),
    "shared_memory_bytes": (1, 2),
    "request_bytes": (1, 2),
    "kv_dtype": ("bfloat16", "fp8"),
    "attention_backend": (None, "FLASHINFER"),
    "block_size": (16, 32),
    "bytes_per_block": (1, 2),
    "max_num_seqs": (1, 2),
    "max_num_batched_tokens": (1, 2),
    "prefix_caching": (True, False),
    "concurrency_at_context": (1.0, 1.00000001),
    "reason": ("", "x"),
    "alternatives": ((), (Alternative(what="a", why="b"),)),
    "gpu": (ON_FOUR, dataclasses.replace(ON_FOUR, offload_bytes=1)),
}
GPU_PLANS = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()})


@given(GPU_PLANS, GPU_PLANS)
def test_plans_on_accelerators_have_one_hash_if_and_only_if_they_are_one(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    kept = [dataclasses.replace(KEPT, plan=dataclasses.replace(KEPT.plan, **each)) for each in (one, other)]
    hashes = {hash_of(each, spec=spec()) for each in kept}
    assert (len(hashes) == 1) == (one == other)


@pytest.mark.parametrize("field", dataclasses.fields(Plan), ids=lambda field: str(field.name))
def test_no_field_of_a_plan_on_accelerators_is_left_out_of_its_hash(field: dataclasses.Field[Any]) -> None:
    plan = on_gpus().plan
    value = getattr(plan, field.name)
    other: dict[str, Any] = {
        "quality": next(each for each in Quality if each is not plan.quality),
        "memory": dataclasses.replace(plan.memory, kv=plan.memory.kv + 1),
        "attention_backend": "FLASHINFER",
        "prefix_caching": not plan.prefix_caching,
        "alternatives": (Alternative(what="a", why="b"),),
        "gpu": dataclasses.replace(ON_FOUR, offload_bytes=1),
    }
    changed = other.get(field.name, value + 1 if isinstance(value, int | float) else f"{value}x")
    kept = dataclasses.replace(KEPT, plan=dataclasses.replace(plan, **{field.name: changed}))
    assert kept.plan != plan
    assert hash_of(kept, spec=spec()) != hash_of(on_gpus(), spec=spec())


DEMANDS = [
    {},
    {"cache": {"prefixCaching": "Enabled"}},
    {"cache": {"prefixCaching": "Disabled"}},
    {"cache": {"dtype": "fp8"}},
    {"cache": {"dtype": "auto"}},
    {"quality": "Lossless"},
    {"workload": {"contextLength": 2048, "concurrency": 9, "typicalTokens": 512}},
    {"workload": {"contextLength": 2048, "concurrency": 8, "typicalTokens": 513}},
    {"workload": {"contextLength": 2049, "concurrency": 8, "typicalTokens": 512}},
    {"template": {"nodeSelector": {"a": "b"}}},
]


def test_plans_with_one_hash_are_equal() -> None:
    """A ConfigMap is found by the hash and cannot be changed: what differs in a plan must be in it."""
    plans: dict[str, Any] = {}
    for fields in DEMANDS:
        found = decide(subject(**fields), nodes=[node(labels={"a": "b"})], before=())
        assert isinstance(found, Decision), found
        assert plans.setdefault(found.plan_hash, found.kept.plan) == found.kept.plan, fields
    assert len(plans) >= 6
