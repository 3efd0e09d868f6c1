"""The ground that sequences run on: its nodes, models and classes, and what the core says of an object there.

What a field takes follows from its schema. What *means* something follows from the cluster: a model that is
there, a label that a node carries. That is said here, once, as hints; fields without one take what their
schema takes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from hypothesis import strategies as st
from pydantic import ValidationError

from sequences.schema import Path, Spec, Strategy, name_of
from tonnage.api import quantities
from tonnage.api.acceptance import Refusal, accept
from tonnage.api.demand import placement_of
from tonnage.api.v1alpha1 import Spec as SpecModel
from tonnage.api.workload import Accelerator
from tonnage.cluster.inspected import Failure, encode
from tonnage.gpus.nodes import Node, Taint
from tonnage.gpus.placement import select_nodes
from tonnage.gpus.records import Records
from tonnage.models import ResolvedModel
from tonnage.planning.gpu.contend import Site, contend
from tonnage.planning.plan import Plan, Rejection
from tonnage.rendering.decision import Subject, contender_of, made, plan_on_nodes
from tonnage.rendering.inspection import source_of
from unit.models.samples import latent_config, profile_of, smollm2_config

ENGINE_VERSION: Final = "0.32.0"
CLAIM: Final = "models"
# a pod of any plan fits, and so do those of all sequences at once: none waits for room that another takes
ROOM: Final = {"cpu": "1000000", "memory": "1Pi", "ephemeral-storage": "1Pi", "pods": "20000"}
TINY: Final = {"cpu": "8", "memory": "1Gi"}
PRIORITY_CLASS, RUNTIME_CLASS = "sequences-high", "sequences-runtime"
SECOND_SCHEDULER: Final = "second-scheduler"
SCHEDULER: Final = "default-scheduler"
NOWHERE: Final = "no-such"


@dataclass(frozen=True)
class GroundNode:
    """A simulated node."""

    name: str
    resources: Mapping[str, str]
    labels: Mapping[str, str]
    taints: tuple[Taint, ...] = ()

    @property
    def record(self) -> Node:
        """The node as planning sees it."""
        memory = quantities.whole_bytes(self.resources["memory"])
        return Node(
            name=self.name,
            labels={"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", **self.labels},
            taints=self.taints,
            ready=True,
            schedulable=True,
            memory_capacity_bytes=memory,
            memory_allocatable_bytes=memory,
            cpu_allocatable_millis=quantities.milli_cores(self.resources["cpu"]),
        )


DEDICATED: Final = Taint(key="dedicated", value="llm", effect="NoSchedule")
NODES: Final = (
    GroundNode("ground-a", ROOM, {"pool": "a"}),
    GroundNode("ground-tainted", ROOM, {"pool": "tainted"}, (DEDICATED,)),
    GroundNode("ground-tiny", TINY, {"pool": "tiny"}),
)

SMALL, LATENT, BROKEN, UNKNOWN = "smollm2-135m-instruct", "latent", "broken", "unknown-architecture"
_FILES: Final = "files-000000000001"
MODELS: Final[Mapping[str, ResolvedModel | Failure]] = {
    SMALL: ResolvedModel(profile=profile_of(smollm2_config()), revision=_FILES),
    f"copies/{SMALL}": ResolvedModel(profile=profile_of(smollm2_config()), revision=_FILES),
    LATENT: ResolvedModel(profile=profile_of(latent_config()), revision=_FILES),
    BROKEN: Failure(reason="ConfigMissing", message="there is no config.json in /models/broken"),
}
HUB_MODEL: Final = ResolvedModel(
    profile=profile_of(smollm2_config()),
    revision="5f0b02c75b57c5855da9ae460ce51323ea669d8a",
    download_bytes=2**28,
)
BASE: Final[Spec] = {"model": {"uri": f"pvc://{CLAIM}/{SMALL}"}}


def model_at(path: str, *, assume_full_attention: bool) -> ResolvedModel | Failure:
    """What an inspection of this directory finds."""
    if path == UNKNOWN:
        refused = Failure(reason="UnknownArchitecture", message="set model.assumeFullAttention")
        return MODELS[SMALL] if assume_full_attention else refused
    missing = Failure(reason="ModelPathMissing", message=f"there is no directory /models/{path}")
    return MODELS.get(path, missing)


def inspection_answer(pod: Mapping[str, Any]) -> tuple[str, int]:
    """What the inspection in this pod ends with: termination message and exit code."""
    arguments = pod["spec"]["containers"][0]["args"]
    result: ResolvedModel | Failure = HUB_MODEL
    if "--path" in arguments:
        path = arguments[arguments.index("--path") + 1].removeprefix("/models").strip("/")
        result = model_at(path, assume_full_attention="--assume-full-attention" in arguments)
    return encode(result), int(isinstance(result, Failure))


_HINTS: Final[Mapping[str, Strategy]] = {
    "model.uri": st.sampled_from(
        (
            *(f"pvc://{CLAIM}/{name}" for name in (SMALL, LATENT, f"copies/{SMALL}", UNKNOWN, BROKEN)),
            "hf://org/name",
        )
    ),
    "workload.contextLength": st.sampled_from((1, 2, 100, 2048, 4096, 8191, 8192, 8193, 2**31 - 1)),
    "workload.concurrency": st.sampled_from((1, 2, 7, 64, 256, 65535, 65536)),
    "workload.typicalTokens": st.sampled_from((1, 16, 511, 512, 4096, 2**31 - 1)),
    "cache.dtype": st.sampled_from(("Auto", "auto", "bfloat16", "fp8", "fp8_e5m2", "nvfp4", "no-such.dtype")),
    "weights.quantization": st.sampled_from(("Auto", "None", "fp8")),
    # more replicas than a few cost time and show nothing new
    "replicas": st.integers(0, 3),
    "engine.version": st.sampled_from(("0.32", "0.32.0", "0.32.1", "0.33.0", "0.1.0")),
    "engine.image": st.sampled_from(("registry.example/worker:1", "registry.example/worker:2")),
    "engine.extraArgs[]": st.sampled_from(
        ("--seed", "1", "--disable-log-requests", "--max-model-len=9", "--block_size", "--no-such-flag")
    ),
    "engine.env[].name": st.sampled_from(("LOUD", "VLLM_LOGGING_LEVEL", "_X1", "VLLM_PLUGINS", "TONNAGE_X")),
    "template.nodeSelector": st.sampled_from(
        ({"pool": "a"}, {"kubernetes.io/os": "linux"}, {"pool": "tiny"}, {"pool": "tainted"}, {"no": "such"})
    ),
    "template.tolerations[]": st.sampled_from(
        (
            {"operator": "Exists"},
            {"key": "dedicated", "operator": "Exists"},
            {"key": "dedicated", "value": "llm", "effect": "NoSchedule"},
            {"key": "dedicated", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0},
            {"key": "example.com/other", "operator": "Exists", "effect": "PreferNoSchedule"},
        )
    ),
    "template.resources.cpu": st.sampled_from((1, "1", "500m", "1.5", "2", "0.1", "1k", "1G")),
    "template.resources.memory": st.sampled_from(("64Gi", "70000M", "1Ti", "1Gi", "1Ei")),
    "template.priorityClassName": st.sampled_from((PRIORITY_CLASS, PRIORITY_CLASS, NOWHERE)),
    "template.runtimeClassName": st.just(RUNTIME_CLASS),
    "template.schedulerName": st.sampled_from((SECOND_SCHEDULER, SCHEDULER)),
}


def hint(path: Path) -> Strategy | None:
    """Values that mean something on this ground."""
    return _HINTS.get(name_of(path))


@dataclass(frozen=True)
class Verdict:
    """What must become of an object. `kind` is Invalid (the API server refuses it), Refused or Planned;
    `condition` is the one that says why not, with its `reason`."""

    kind: str
    condition: str = ""
    reason: str = ""


INVALID, REFUSED, PLANNED = "Invalid", "Refused", "Planned"


def verdict(spec: Mapping[str, Any]) -> Verdict:
    """The core's judgement of a spec on this ground: the models parse it, the planner plans it."""
    return _verdict(json.dumps(spec, sort_keys=True))


def is_taken(spec: Mapping[str, Any]) -> bool:
    """Do the models, and so the API server, take this spec?"""
    return _is_taken(json.dumps(spec, sort_keys=True))


@lru_cache(maxsize=100_000)
def _is_taken(text: str) -> bool:
    try:
        SpecModel.model_validate_json(text, strict=True)
    except ValidationError:
        return False
    return True


@lru_cache(maxsize=100_000)
def _verdict(text: str) -> Verdict:
    if not _is_taken(text):
        return Verdict(INVALID)
    accepted = accept({"spec": json.loads(text)})
    if isinstance(accepted, Refusal):
        return Verdict(REFUSED, "Accepted", accepted.reason)
    records = [node.record for node in NODES]
    wanted = accepted.model
    if not wanted.hub and wanted.claim != CLAIM:
        return Verdict(REFUSED, "ModelResolved", "Inspecting")
    model: ResolvedModel | Failure = HUB_MODEL
    if not wanted.hub:
        model = model_at(wanted.path, assume_full_attention=wanted.assume_full_attention)
    if isinstance(model, Failure):
        usable = select_nodes(records, placement=placement_of(accepted)).usable
        return Verdict(REFUSED, *(("ModelResolved", model.reason) if usable else ("Planned", "NoUsableNode")))
    subject = Subject(spec=accepted, source=source_of(accepted), model=model, default_version=ENGINE_VERSION)
    outcome = made(subject, _plan(subject, records), groups=False)
    return Verdict(REFUSED, "Planned", outcome.reason) if isinstance(outcome, Rejection) else Verdict(PLANNED)


def _plan(subject: Subject, records: Sequence[Node]) -> Plan | Rejection:
    if subject.spec.hardware.accelerator is not Accelerator.GPU:
        return plan_on_nodes(subject, nodes=records)
    contender = contender_of(subject, key="a/b", created="", priority=0, surges=False)
    if isinstance(contender, Rejection):
        return contender
    return contend([contender], site=Site(hardware=Records(nodes=tuple(records)), prices={}))["a/b"]
