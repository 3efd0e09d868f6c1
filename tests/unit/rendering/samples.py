"""A plan, a spec and workers for the tests of rendering."""

from __future__ import annotations

import dataclasses
from typing import Any

from tonnage.api.v1alpha1 import Spec
from tonnage.gpus.inventory import Access, Sharing, Vendor
from tonnage.planning.plan import GpuPlan, MemoryBytes, Plan, Quality
from tonnage.rendering.findings import Worker
from tonnage.rendering.names import PLAN, Owner
from tonnage.rendering.observations import Capacity, Pod, Report, Termination
from tonnage.rendering.plan import Kept
from tonnage.rendering.settings import Settings

OWNER = Owner(namespace="default", name="chat", uid="u1")
SETTINGS = Settings(operator_image="operator:1", worker_image="worker:1", engine_version="0.32.0")
HASH = "0123456789"
PLAN_182 = Plan(
    engine_version="0.32.0",
    engine_rules="0.32",
    pool="cpu",
    product="CPU",
    gpus_per_replica=0,
    tensor_parallel=1,
    context_length=2048,
    concurrency=8,
    typical_tokens=512,
    quality=Quality.LOSSLESS,
    weights_dtype="bfloat16",
    memory=MemoryBytes(
        context=0,
        non_torch=2**31,
        weights=269_030_016,
        activation=0,
        graphs=0,
        burst_margin=0,
        kv=134_184_960,
    ),
    shared_memory_bytes=2**28,
    request_bytes=2701 * 2**20,
    kv_dtype="auto",
    block_size=32,
    blocks=182,
    tokens=5824,
    bytes_per_block=737_280,
    concurrency_at_context=2.84375,
    concurrency_at_typical=11.375,
    max_num_seqs=8,
    max_num_batched_tokens=2048,
    prefix_caching=True,
    attention_backend=None,
    saved_by_architecture="",
    reason="fits",
)

KEPT = Kept(
    inputs="i",
    source="s",
    revision="files-000000000001",
    download_bytes=0,
    model={"architecture": "LlamaForCausalLM"},
    plan=PLAN_182,
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = {"uri": "hf://acme/smollm2", "tokenSecret": {"name": "hub", "key": "token"}}
HUB_KEPT = dataclasses.replace(KEPT, revision=COMMIT, download_bytes=272_585_121)

GIB = 2**30
ON_FOUR = GpuPlan(
    vendor=Vendor.NVIDIA,
    access=Access.RESOURCE,
    resource="nvidia.com/gpu",
    sharing=Sharing.NONE,
    clients=1,
    node_labels={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    device_bytes=85_029_158_912,
    compute_capability=(9, 0),
    devices_per_pod=4,
    nodes_per_replica=1,
    pipeline_parallel=1,
    quantization="",
    kv_scales="",
    graph_mode="FULL_AND_PIECEWISE",
    captured_sizes=(1, 2, 4, 8),
    enforce_eager=False,
    memory_utilization="0.913",
)
CLAIMED = dataclasses.replace(
    ON_FOUR,
    access=Access.CLAIM,
    resource="gpu.nvidia.com",
    node_labels={},
    selectors=('device.attributes["gpu.nvidia.com"].productName == "NVIDIA H100 80GB HBM3"',),
    devices_per_pod=2,
)
EAGER = dataclasses.replace(
    ON_FOUR,
    enforce_eager=True,
    graph_mode="NONE",
    captured_sizes=(),
    quantization="fp8_per_tensor",
    kv_scales="1.0",
    pipeline_parallel=2,
    nodes_per_replica=2,
)
A_SLICE = dataclasses.replace(
    ON_FOUR,
    resource="nvidia.com/mig-1g.20gb",
    sharing=Sharing.MIG,
    node_labels={"nvidia.com/mig-1g.20gb.product": "NVIDIA-H100-80GB-HBM3-MIG-1g.20gb"},
    device_bytes=21_067_857_920,
    devices_per_pod=1,
)


def on_gpus(gpu: GpuPlan = ON_FOUR, *, kept: Kept | None = None, **changes: Any) -> Kept:
    """A decision for a plan on accelerators; ranks follow from the devices."""
    ranks = gpu.devices_per_pod * gpu.nodes_per_replica
    plan = dataclasses.replace(
        PLAN_182,
        pool="a-pool",
        product="H100-80GB",
        gpus_per_replica=ranks,
        tensor_parallel=ranks // gpu.pipeline_parallel,
        shared_memory_bytes=(1 + gpu.devices_per_pod) * GIB,
        request_bytes=(5 + 5 * gpu.devices_per_pod) * GIB,
        gpu=gpu,
        **{"attention_backend": "FLASH_ATTN", **changes},
    )
    return dataclasses.replace(kept or KEPT, plan=plan)


def spec(**fields: Any) -> Spec:
    return Spec.model_validate({"model": {"uri": "pvc://models/smollm2"}, **fields})


def pod(name: str = "chat-1", *, plan_hash: str = HASH, **fields: Any) -> Pod:
    known: dict[str, Any] = {
        "namespace": "default",
        "name": name,
        "uid": name,
        "labels": {PLAN: plan_hash},
        "phase": "Running",
        "ip": "10.0.0.1",
        "ready": True,
        "deleting": False,
        "unschedulable": "",
        "waiting_reason": "",
        "waiting_message": "",
        "container_id": "c1",
        "running": True,
        "restarts": 0,
        "last_exit": None,
    }
    return Pod(**{**known, **fields})


def report(state: str = "Verified", **fields: Any) -> Report:
    known: dict[str, Any] = {
        "state": state,
        "plan_hash": HASH,
        "observed": Capacity(blocks=182, tokens=5824, concurrency="2.84375"),
        "engine_version": "0.32.0",
        "start_seconds": 31.24,
        "reason": "",
        "message": "",
        "kv_usage": 0.0,
    }
    return Report(**{**known, **fields})


def worker(said: Report | None = None, **fields: Any) -> Worker:
    return Worker(pod=pod(**fields), report=said)


__all__ = [
    "A_SLICE",
    "CLAIMED",
    "COMMIT",
    "HASH",
    "HUB",
    "HUB_KEPT",
    "KEPT",
    "ON_FOUR",
    "OWNER",
    "PLAN_182",
    "SETTINGS",
    "Capacity",
    "Termination",
    "on_gpus",
    "pod",
    "report",
    "spec",
    "worker",
]
