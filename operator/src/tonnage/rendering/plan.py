"""Plan -> what is stored and shown of it: `status.plan` and the immutable ConfigMap."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tonnage.api.texts import REASON_BYTES, SENTENCE_BYTES, WORD_BYTES, clipped
from tonnage.api.v1alpha1 import Spec
from tonnage.api.workload import PrefixCaching
from tonnage.gpus.inventory import Access, Sharing, Vendor
from tonnage.models import ConfigError, ModelProfile, ResolvedModel
from tonnage.models.wire import from_wire
from tonnage.planning.plan import Alternative, GpuPlan, MemoryBytes, Plan, Quality
from tonnage.rendering.figures import figure, short_figure
from tonnage.rendering.inspection import access_of
from tonnage.rendering.names import (
    INPUTS,
    MODEL,
    PLAN,
    PLAN_COMPONENT,
    REFRESHED,
    Manifest,
    Owner,
    hash_in,
    metadata,
    owned_by,
    plan_name,
    short_hash,
)
from tonnage.rendering.settings import (
    ENDPOINT_SECONDS,
    KEPT_KEY,
    PLAN_KEY,
    SHUTDOWN_TIMEOUT_SECONDS,
)

SCHEMA = 1
# between a decision's inputs and the bytes that were left out of each device
WITHHELD = "+"


def build_plan_status(plan: Plan, *, plan_hash: str) -> Manifest:
    """`status.plan` (see tonnage.api.status.PlanStatus)."""
    status = _build_status(plan, plan_hash=plan_hash)
    if plan.gpu is not None:
        # So that a plan on CPU nodes reads, and is identified, as it was before there were others.
        _add_gpu(status, plan, gpu=plan.gpu)
    return status


def _build_status(plan: Plan, *, plan_hash: str) -> Manifest:
    memory = plan.memory
    return {
        "hash": plan_hash,
        "engineVersion": clipped(plan.engine_version, WORD_BYTES),
        "inputs": {
            "contextLength": plan.context_length,
            "concurrency": plan.concurrency,
            "typicalTokens": plan.typical_tokens,
        },
        "placement": {
            "pool": clipped(plan.pool, WORD_BYTES),
            "product": clipped(plan.product, WORD_BYTES),
            "gpusPerReplica": plan.gpus_per_replica,
            "tensorParallel": plan.tensor_parallel,
        },
        "weights": {"dtype": clipped(plan.weights_dtype, WORD_BYTES), "bytesPerRank": memory.weights},
        "memoryBytes": {
            "total": memory.total,
            "context": memory.context,
            "nonTorch": memory.non_torch,
            "weights": memory.weights,
            "activation": memory.activation,
            "graphs": memory.graphs,
            "burstMargin": memory.burst_margin,
            "kv": memory.kv,
        },
        "kv": _build_kv(plan),
        "quality": plan.quality.value,
        "reason": clipped(plan.reason, REASON_BYTES),
        "alternatives": [
            {"what": clipped(a.what, SENTENCE_BYTES), "why": clipped(a.why, SENTENCE_BYTES)}
            for a in plan.alternatives[:5]
        ],
    }


def _add_gpu(status: Manifest, plan: Plan, *, gpu: GpuPlan) -> None:
    status["placement"] |= {
        "pipelineParallel": gpu.pipeline_parallel,
        "nodesPerReplica": gpu.nodes_per_replica,
        "vendor": gpu.vendor.value,
        "access": gpu.access.value,
        "resource": clipped(gpu.resource, WORD_BYTES),
        "sharing": gpu.sharing.value,
        "deviceBytes": gpu.device_bytes,
    }
    if gpu.quantization:
        status["weights"]["quantization"] = clipped(gpu.quantization, WORD_BYTES)
    if gpu.kv_scales:
        status["kv"]["scales"] = clipped(gpu.kv_scales, WORD_BYTES)
    status["engine"] = {
        "graphMode": clipped(gpu.graph_mode, WORD_BYTES),
        "graphs": len(gpu.captured_sizes),
        "largestGraph": max(gpu.captured_sizes, default=0),
        "memoryUtilization": clipped(gpu.memory_utilization, WORD_BYTES),
    }
    if plan.attention_backend is not None:
        status["engine"]["attentionBackend"] = clipped(plan.attention_backend, WORD_BYTES)


def _build_kv(plan: Plan) -> Manifest:
    return {
        "dtype": clipped(plan.kv_dtype, WORD_BYTES),
        "blockSize": plan.block_size,
        "blocks": plan.blocks,
        "tokens": plan.tokens,
        "bytesPerBlock": plan.bytes_per_block,
        "concurrencyAtContext": short_figure(plan.concurrency_at_context),
        "concurrencyAtTypical": short_figure(plan.concurrency_at_typical),
        "savedByArchitecture": clipped(plan.saved_by_architecture, SENTENCE_BYTES),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the operator keeps of a decision, to find again after a restart.

    `inputs` identifies everything the plan depends on, `source` the model's files; `model` is the model's
    profile in its wire form, so that the files need not be read again. `revision` and `download_bytes` are
    those of the ResolvedModel, `refreshed` the refresh that was last asked for and made.
    """

    inputs: str
    source: str
    revision: str
    download_bytes: int
    model: Mapping[str, Any]
    plan: Plan
    refreshed: str = ""

    @property
    def withheld_bytes(self) -> int:
        """Bytes of each device that are kept free because workers of the plan before ran out of memory."""
        stated = self.inputs.partition(WITHHELD)[2]
        return int(stated) if stated.isdecimal() else 0

    def resolved(self) -> ResolvedModel | None:
        """The model as it was read for this plan; None if another version wrote it."""
        try:
            return ResolvedModel(
                profile=_parse_model(json.dumps(self.model)),
                revision=self.revision,
                download_bytes=self.download_bytes,
            )
        except ConfigError:
            return None


def hash_of(kept: Kept, *, spec: Spec) -> str:
    """Identity of a plan: whatever the worker reads from its plan file, and all that its pod is made from.

    Of a plan on accelerators that is the whole plan. One on CPU nodes is identified as it was before there
    were others; what of it is not in the file follows from what is.
    """
    content = _content(kept, spec=spec, plan_hash="")
    return short_hash(
        content if kept.plan.gpu is None else {**content, "whole": dataclasses.asdict(kept.plan)}
    )


def _content(kept: Kept, *, spec: Spec, plan_hash: str) -> dict[str, Any]:
    plan = kept.plan
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "hash": plan_hash,
        "model": {"source": kept.source, "revision": kept.revision},
        "engineVersion": plan.engine_version,
        "verification": spec.engine.verification.value,
        "expected": {
            "blocks": plan.blocks,
            "tokens": plan.tokens,
            "concurrency": figure(plan.concurrency_at_context),
            "blockSize": plan.block_size,
            "kvDtype": plan.kv_dtype,
            "kvCacheMemoryBytes": plan.memory.kv,
        },
        "drain": {
            "endpointSeconds": ENDPOINT_SECONDS,
            "shutdownTimeoutSeconds": SHUTDOWN_TIMEOUT_SECONDS,
        },
        "plan": build_plan_status(plan, plan_hash=plan_hash),
    }
    if spec.cache.prefix_caching is PrefixCaching.DISABLED:
        # nothing else of a plan differs without it
        content["prefixCaching"] = False
    return content if plan.gpu is None else {**content, "gpu": dataclasses.asdict(plan.gpu)}


def build_plan_config_map(kept: Kept, *, plan_hash: str, spec: Spec, owner: Owner) -> Manifest:
    """The immutable ConfigMap that holds a plan: the worker's file, and what the operator keeps it by.

    What may change while the plan stays is an annotation, since data cannot be changed: other inputs may lead
    to the same plan, a refresh may find the same files. By the label of the model other objects find it.
    """
    meta = metadata(
        owner,
        name=plan_name(owner, plan_hash),
        component=PLAN_COMPONENT,
        extra_labels={PLAN: plan_hash, MODEL: access_of(spec)},
    )
    meta["annotations"] = {INPUTS: kept.inputs}
    if kept.refreshed:
        meta["annotations"][REFRESHED] = kept.refreshed
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        "immutable": True,
        "data": {
            PLAN_KEY: json.dumps(_content(kept, spec=spec, plan_hash=plan_hash), separators=(",", ":")),
            KEPT_KEY: json.dumps(_wire(kept), separators=(",", ":")),
        },
    }


def read_kept(config_map: Mapping[str, Any]) -> Kept | None:
    """The decision kept in a plan ConfigMap; None if it is not readable (written by another version)."""
    try:
        kept = _parse_kept(config_map["data"][KEPT_KEY])
        annotations = config_map["metadata"].get("annotations", {})
        inputs = annotations.get(INPUTS, kept.inputs)
        refreshed = annotations.get(REFRESHED, kept.refreshed)
    except (KeyError, TypeError, ValueError):
        return None
    same = (inputs, refreshed) == (kept.inputs, kept.refreshed)
    return kept if same else dataclasses.replace(kept, inputs=inputs, refreshed=refreshed)


def _wire(kept: Kept) -> dict[str, Any]:
    fields = {field.name: getattr(kept, field.name) for field in dataclasses.fields(kept)}
    plan = dataclasses.asdict(kept.plan)
    if kept.plan.gpu is None:
        # So that a plan on CPU nodes reads as it did before there were others.
        del plan["gpu"]
    return {**fields, "plan": plan}


@functools.lru_cache(maxsize=256)
def _parse_kept(text: str) -> Kept:
    """Many objects keep the same decision, and each is read in every pass."""
    data = json.loads(text)
    plan = data["plan"]
    return Kept(
        inputs=data["inputs"],
        source=data["source"],
        revision=data["revision"],
        download_bytes=data["download_bytes"],
        refreshed=data["refreshed"],
        model=data["model"],
        plan=Plan(
            **{
                **plan,
                "memory": MemoryBytes(**plan["memory"]),
                "quality": Quality(plan["quality"]),
                "alternatives": tuple(Alternative(**a) for a in plan["alternatives"]),
                "gpu": _parse_gpu(plan["gpu"]) if "gpu" in plan else None,
            }
        ),
    )


def _parse_gpu(data: Mapping[str, Any]) -> GpuPlan:
    capability = data["compute_capability"]
    return GpuPlan(
        **{
            **data,
            "vendor": Vendor(data["vendor"]),
            "access": Access(data["access"]),
            "sharing": Sharing(data["sharing"]),
            "compute_capability": None if capability is None else (capability[0], capability[1]),
            "captured_sizes": tuple(data["captured_sizes"]),
            "selectors": tuple(data["selectors"]),
        }
    )


@functools.lru_cache(maxsize=256)
def _parse_model(text: str) -> ModelProfile:
    return from_wire(json.loads(text))


def kept_plans(config_maps: Iterable[Mapping[str, Any]], *, owner: Owner) -> Iterator[tuple[Kept, str]]:
    """The decisions about `owner` in ConfigMaps, each with its plan's hash; what is not one is left out."""
    for config_map in config_maps:
        plan_hash = hash_in(config_map["metadata"]["name"], owner=owner)
        kept = read_kept(config_map) if plan_hash and owned_by(config_map, owner) else None
        if kept is not None and plan_hash:
            yield kept, plan_hash
