"""A plan, a spec and workers for the tests of rendering."""

from __future__ import annotations

import dataclasses
from typing import Any

from tonnage.api.v1alpha1 import Spec
from tonnage.planning.plan import MemoryBytes, Plan, Quality
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
    "COMMIT",
    "HASH",
    "HUB",
    "HUB_KEPT",
    "KEPT",
    "OWNER",
    "PLAN_182",
    "SETTINGS",
    "Capacity",
    "Termination",
    "pod",
    "report",
    "spec",
    "worker",
]
