"""What to do next about a condition, in one sentence; the condition's own message says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tonnage.rendering.names import COMPONENT, DEPLOYMENT, INSPECT, WORKER

_PODS: Final = f"kubectl -n {{namespace}} get pods -l {DEPLOYMENT}={{name}},{COMPONENT}="
_LOGS: Final = f"kubectl -n {{namespace}} logs -l {DEPLOYMENT}={{name}},{COMPONENT}={WORKER} --tail=50"
_EDIT: Final = "correct the spec and apply it again; what served before goes on serving"
_FILES: Final = "correct the files, or model.uri; files are read again by themselves after a pause"
_HUB: Final = (
    "it is tried again by itself; the pods read the hub through the chart's hub.endpoint and proxy: can they "
    "reach it?"
)
_GATED: Final = (
    "accept the model's licence on the hub as the token's owner, and check model.tokenSecret; it is tried "
    "again by itself"
)
_NAMED: Final = "correct model.uri or model.revision"
_ROOM: Final = (
    "try changes with `tonnage plan -f FILE` before applying them, or add a node; room is looked for again"
)
_WAIT_START: Final = f"wait for the engine; `{_LOGS}` shows its start"
_WAIT_READ: Final = f"wait; if it stays so: `{_PODS}{INSPECT}`"
_GPUS: Final = (
    "wait: it is planned as soon as there is room; or add GPUs, or try changes with `tonnage plan -f FILE` "
    "before applying them"
)
_LABELS: Final = (
    "compare hardware and template with `kubectl get nodes --show-labels`; nodes are looked at again as they "
    "change"
)
_LACKING: Final = (
    "look what else uses that memory, or ask for less in workload; on GPUs a plan that keeps more free is "
    "made by itself, once"
)
_POD: Final = f"`kubectl -n {{namespace}} describe pods -l {DEPLOYMENT}={{name}}` says more"
_CRASH: Final = f"`{_LOGS} --previous` shows the engine's last words"
_MISMATCH: Final = (
    "the engine holds something else than planned and does not serve: check that engine.version is that of "
    "engine.image; engine.verification: AtLeast accepts an engine that holds more"
)

_BY_REASON: Final[Mapping[str, str]] = {
    "InvalidSpec": _EDIT,
    "NotSupportedYet": _EDIT,
    "PinnedByPlan": _EDIT,
    "Inspecting": _WAIT_READ,
    "InspectionFailed": f"`kubectl -n {{namespace}} describe jobs -l {DEPLOYMENT}={{name}}` says more; "
    "it is tried again",
    "ModelPathMissing": _FILES,
    "ConfigMissing": _FILES,
    "ConfigUnreadable": _FILES,
    "ConfigInvalid": _FILES,
    "WeightsMissing": _FILES,
    "WeightsInvalid": _FILES,
    "WeightsUnreadable": _FILES,
    "ModelUnreadable": _FILES,
    "IndexMissing": _FILES,
    **dict.fromkeys(
        ("HubBusy", "HubFailing", "HubRedirects", "HubTimeout", "HubUnreachable", "HubUnreadable"), _HUB
    ),
    "ModelNotAllowed": _GATED,
    "TokenRejected": _GATED,
    "TokenSecretMissing": "make the Secret: it is picked up by itself",
    "ModelUnknown": _NAMED,
    "RevisionUnknown": _NAMED,
    "RefreshFailed": "it is tried again by itself; what was planned before goes on serving",
    "UnknownArchitecture": (
        "model.assumeFullAttention: true plans it as plain attention on CPU nodes, at your own risk"
    ),
    "NotEnoughMemory": _ROOM,
    "NoUsableNode": "compare `kubectl get nodes --show-labels` with template.nodeSelector and tolerations; "
    "nodes are looked at again as they change",
    "MemoryRequestTooSmall": _EDIT,
    "Waiting": "wait: it is planned once the operator has looked at all objects",
    **dict.fromkeys(("NotEnoughGpus", "NoRoomForSurge"), _GPUS),
    **dict.fromkeys(("NoAccelerators", "NoUsablePool", "ProductNotAllowed"), _LABELS),
    "MultiNodeNotSupported": (
        "install LeaderWorkerSet, which is seen by itself; or try changes with `tonnage plan -f FILE`"
    ),
    "NodesUnknown": "set the chart's rbac.nodes, or state the GPUs in its inventory.pools",
    **dict.fromkeys(("InsufficientMemory", "OutOfMemory"), _LACKING),
    "NoPlan": "",
    "Verifying": _WAIT_START,
    "CapacityMismatch": _MISMATCH,
    "CapacityDiffers": _MISMATCH,
    "ReportedOnly": "engine.verification: Strict would keep an engine with other figures from serving",
    "WorkersUnreachable": "allow the operator's pods to reach port 8081 of the workers in your NetworkPolicy",
    "ScaledToZero": "`kubectl -n {namespace} scale llmdep {name} --replicas=1` starts it again",
    "NoReadyReplicas": _WAIT_START,
    "RollingOut": f"wait; `{_PODS}{WORKER}` shows how far it is",
    "ProgressDeadlineExceeded": _POD,
    "Paused": "set rollout.paused: false to go on",
    "NameTaken": _EDIT,
    "ApplyRefused": "remove what the API server objects to (a quota, an admission policy); it is tried again",
    "ApiRequestFailed": "it is tried again by itself; if it stays, look at the API server",
    "FailedCreate": "`kubectl -n {namespace} describe replicasets` says who refuses the pods",
    "ImagePullBackOff": f"check engine.image and template.imagePullSecrets; {_POD}",
    "ErrImagePull": f"check engine.image and template.imagePullSecrets; {_POD}",
    "ErrImageNeverPull": f"check engine.image and template.imagePullSecrets; {_POD}",
    "InvalidImageName": "correct engine.image",
    "CreateContainerConfigError": _POD,
    "CreateContainerError": _POD,
    "RunContainerError": _POD,
    "CrashLoopBackOff": _CRASH,
}
_BY_TYPE: Final[Mapping[str, str]] = {
    "Accepted": _EDIT,
    "ModelResolved": _FILES,
    "Planned": _EDIT,
    "CapacityVerified": _WAIT_START,
    "Available": _WAIT_START,
    "Progressing": _POD,
    "Degraded": _CRASH,
}


def next_step(kind: str, reason: str, *, namespace: str, name: str) -> str:
    """What to do about a condition that is not as it should be; empty where nothing is known."""
    text = _BY_REASON.get(reason, _BY_TYPE.get(kind, ""))
    return text.replace("{namespace}", namespace).replace("{name}", name)
