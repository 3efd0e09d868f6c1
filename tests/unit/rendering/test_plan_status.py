"""`status.plan` of plans on accelerators: what a user needs to know, and nothing of it for CPU nodes."""

from __future__ import annotations

from typing import Any

import pytest

from tonnage.api.status import PlanStatus
from tonnage.planning.plan import GpuPlan
from tonnage.rendering.plan import build_plan_status
from unit.rendering.samples import A_SLICE, CLAIMED, EAGER, HASH, KEPT, ON_FOUR, on_gpus


def shown(gpu: GpuPlan, **changes: Any) -> dict[str, Any]:
    return build_plan_status(on_gpus(gpu, **changes).plan, plan_hash=HASH)


@pytest.mark.parametrize("gpu", [ON_FOUR, A_SLICE, CLAIMED, EAGER])
def test_the_schema_takes_every_field_as_it_is(gpu: GpuPlan) -> None:
    body = shown(gpu)
    parsed = PlanStatus.model_validate(body)
    assert parsed.model_dump(mode="json", by_alias=True, exclude_none=True) == body


def test_where_it_runs_and_how_devices_are_asked_for() -> None:
    assert shown(CLAIMED)["placement"] == {
        "pool": "a-pool",
        "product": "H100-80GB",
        "gpusPerReplica": 2,
        "tensorParallel": 2,
        "pipelineParallel": 1,
        "nodesPerReplica": 1,
        "vendor": "NVIDIA",
        "access": "Claim",
        "resource": "gpu.nvidia.com",
        "sharing": "None",
        "deviceBytes": CLAIMED.device_bytes,
    }
    assert shown(A_SLICE)["placement"]["sharing"] == "MIG"


def test_how_the_engine_is_started() -> None:
    assert shown(ON_FOUR)["engine"] == {
        "graphMode": "FULL_AND_PIECEWISE",
        "graphs": 4,
        "largestGraph": 8,
        "memoryUtilization": "0.913",
        "attentionBackend": "FLASH_ATTN",
    }
    without = shown(EAGER, attention_backend=None)["engine"]
    assert without == {"graphMode": "NONE", "graphs": 0, "largestGraph": 0, "memoryUtilization": "0.913"}


def test_what_is_quantized_and_scaled_is_said_only_where_something_is() -> None:
    assert shown(EAGER)["weights"]["quantization"] == "fp8_per_tensor"
    assert shown(EAGER)["kv"]["scales"] == "1.0"
    assert "quantization" not in shown(ON_FOUR)["weights"]
    assert "scales" not in shown(ON_FOUR)["kv"]


def test_a_plan_on_cpu_nodes_has_none_of_it() -> None:
    body = build_plan_status(KEPT.plan, plan_hash=HASH)
    assert "engine" not in body
    assert set(body["placement"]) == {"pool", "product", "gpusPerReplica", "tensorParallel"}
