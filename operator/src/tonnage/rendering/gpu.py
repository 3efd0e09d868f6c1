"""What plans on accelerators add to what is rendered: devices, the nodes that have them, engine arguments.

Claims: k8s.io/api resource/v1 types.go (Kubernetes 1.34). Tolerations: what the admission plugin
ExtendedResourceToleration adds where it is enabled (plugin/pkg/admission/extendedresourcetoleration).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tonnage.gpus.inventory import Access, Sharing
from tonnage.gpus.nodes import Node
from tonnage.gpus.placement import Placement, find_obstacle
from tonnage.planning.plan import GpuPlan, Plan, Rejection
from tonnage.rendering.names import PLAN, WORKER, Manifest, Owner, labels, metadata, plan_name

DEVICES: Final = "gpus"
"""The name of a claim in a pod, and of the request in the claim."""
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
NO_VARIABLES: Final[Mapping[str, str]] = {}
VARIABLES: Final[Mapping[str, str]] = {
    # The user id has no entry in the image's /etc/passwd, and libraries ask for its name while they are
    # imported (torch before 2.13: vllm-project/vllm#46734). Caches of compiled kernels (vLLM, Triton,
    # Inductor, FlashInfer, DeepGEMM, the driver's) are below HOME or the temporary directory.
    "USER": "tonnage",
    # whether large weights, compilation and graphs take too long is for the roll-out's deadline to say; the
    # engine's front gives them 600 s (vLLM 0.32 v1/engine/core_client.py)
    "VLLM_ENGINE_READY_TIMEOUT_S": "86400",
}


def not_rendered(plan: Plan, *, groups: bool) -> Rejection | None:
    """Why a plan cannot become pods: its replica needs several nodes, and the API server has no kind for
    `groups` of pods."""
    gpu = plan.gpu
    if gpu is None or gpu.nodes_per_replica == 1 or groups:
        return None
    return Rejection(
        reason="MultiNodeNotSupported",
        message=(
            f"the best plan is {gpu.nodes_per_replica} nodes with {gpu.devices_per_pod}x {plan.product} each "
            "for one replica, for which LeaderWorkerSet must be installed (leaderworkersets."
            "leaderworkerset.x-k8s.io v1, see docs/multi-node.md), and this cluster has none: install it; or "
            "set spec.hardware.maxGPUsPerReplica to the GPUs of one node and leave parallelism.pipeline out "
            "to get what one node holds, ask for less (workload, or a lower quality), or add nodes with more "
            "or larger GPUs"
        ),
        numbers={"nodes": gpu.nodes_per_replica, "gpusPerNode": gpu.devices_per_pod},
    )


def engine_words(gpu: GpuPlan) -> list[str]:
    """Arguments of vLLM's API server for a plan on accelerators, beside those of every plan.

    Names as in vLLM 0.32 engine/arg_utils.py, config/compilation.py. Scales of an fp8 cache need none: those
    of the checkpoint are loaded, and they are 1.0 where it has none.
    """
    words = ["--gpu-memory-utilization", gpu.memory_utilization]
    if gpu.pipeline_parallel > 1:
        words += ["--pipeline-parallel-size", str(gpu.pipeline_parallel)]
    if gpu.devices_per_pod > 1 or gpu.nodes_per_replica > 1:
        words += ["--distributed-executor-backend", "mp"]
    if gpu.quantization:
        words += ["--quantization", gpu.quantization]
    return words + (["--enforce-eager"] if gpu.enforce_eager else ["--compilation-config", _graphs(gpu)])


def _graphs(gpu: GpuPlan) -> str:
    graphs = {"cudagraph_mode": gpu.graph_mode, "cudagraph_capture_sizes": gpu.captured_sizes}
    return json.dumps(graphs, separators=(",", ":"))


def has_own_shared_memory(gpu: GpuPlan | None) -> bool:
    """Whether /dev/shm is a volume of the pod.

    To a client of MPS the device plugin gives the control daemon's, which a volume would hide
    (NVIDIA/k8s-device-plugin internal/plugin/mps.go); its one rank needs no other.
    """
    return gpu is None or gpu.sharing is not Sharing.MPS


def with_devices(scheduling: Manifest, *, gpu: GpuPlan | None, claim: str) -> Manifest:
    """Scheduling fields of a worker pod, so that it is placed on nodes of its plan's pool and given devices.

    What the user asks of a node stays; all of `node_labels` are asked too. `claim` names the
    ResourceClaimTemplate of the plan.
    """
    if gpu is None:
        return scheduling
    found = dict(scheduling)
    if gpu.node_labels:
        found["affinity"] = _on_nodes(scheduling.get("affinity", {}), gpu.node_labels)
    if gpu.access is Access.RESOURCE:
        found["tolerations"] = with_tolerations(scheduling.get("tolerations", []), keys=[gpu.resource])
    if gpu.access is Access.CLAIM:
        found["resourceClaims"] = [{"name": DEVICES, "resourceClaimTemplateName": claim}]
    return found


def _on_nodes(affinity: Mapping[str, Any], node_labels: Mapping[str, str]) -> Manifest:
    """Terms are alternatives: each of the user's gets all labels; where there is none, one has them."""
    ours = [{"key": key, "operator": "In", "values": [value]} for key, value in sorted(node_labels.items())]
    nodes = affinity.get("nodeAffinity", {})
    terms = nodes.get(_REQUIRED, {}).get("nodeSelectorTerms", [{}])
    pinned = [{**term, "matchExpressions": [*term.get("matchExpressions", []), *ours]} for term in terms]
    return {**affinity, "nodeAffinity": {**nodes, _REQUIRED: {"nodeSelectorTerms": pinned}}}


def with_tolerations(stated: Iterable[Manifest], *, keys: Iterable[str]) -> list[Manifest]:
    """The user's tolerations, and of NoSchedule taints with these keys where they are not among them."""
    found = list(stated)
    for key in keys:
        toleration = {"key": key, "operator": "Exists", "effect": "NoSchedule"}
        if toleration not in found:
            found.append(toleration)
    return found


def with_device_resources(resources: Manifest, *, gpu: GpuPlan | None) -> Manifest:
    """Resources of the engine's container with its devices: as many of an extended resource, or the claim."""
    if gpu is None:
        return resources
    if gpu.access is Access.CLAIM:
        return {**resources, "claims": [{"name": DEVICES}]}
    devices = {gpu.resource: str(gpu.devices_per_pod)}
    return {name: {**amounts, **devices} for name, amounts in resources.items()}


def build_claim_templates(plan: Plan, *, plan_hash: str, owner: Owner) -> list[Manifest]:
    """The ResourceClaimTemplate of a plan whose pods claim devices, named as its ConfigMap; else nothing.

    Its spec cannot be changed once it is made, and need not be: another plan has another hash. Claims carry
    our labels, by which their devices are told to be this object's own.
    """
    gpu = plan.gpu
    if gpu is None or gpu.access is not Access.CLAIM:
        return []
    exactly = {
        "deviceClassName": gpu.resource,
        "allocationMode": "ExactCount",
        "count": gpu.devices_per_pod,
        "selectors": [{"cel": {"expression": expression}} for expression in gpu.selectors],
    }
    name = plan_name(owner, plan_hash)
    template: Manifest = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": metadata(owner, name=name, component=WORKER, extra_labels={PLAN: plan_hash}),
        "spec": {
            "metadata": {"labels": {**labels(owner, WORKER), PLAN: plan_hash}},
            "spec": {"devices": {"requests": [{"name": DEVICES, "exactly": exactly}]}},
        },
    }
    return [template]


def tolerated_taints(nodes: Iterable[Node], *, placement: Placement) -> tuple[str, ...]:
    """Keys of taints that the pod which reads a model must tolerate, though it asks for no device.

    None while a node without them can be used: the pod is not to take the place of others there, nor to make
    an autoscaler add a node with accelerators. Where all that keeps it away are taints against pods that ask
    for no device (their keys are extended resources of that node), those: the workers tolerate them too, and
    the model is read where they may run.
    """
    known = tuple(nodes)
    if any(find_obstacle(node, placement=placement) is None for node in known):
        return ()
    devices = {node.name: frozenset(node.capacity) for node in known}
    able = [n for n in known if find_obstacle(n, placement=placement, tolerated=devices[n.name]) is None]
    return tuple(
        sorted({t.key for n in able for t in n.taints if t.effect == "NoSchedule" and t.key in n.capacity})
    )
