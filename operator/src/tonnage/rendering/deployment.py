"""Plan -> the Deployment of the workers, and the pods that any workload of a plan has."""

from __future__ import annotations

from tonnage.api import quantities
from tonnage.api.demand import cpu_millis
from tonnage.api.operation import ScalingMode
from tonnage.api.v1alpha1 import Spec
from tonnage.planning.plan import Plan
from tonnage.rendering.arguments import Role, engine_arguments, group_arguments
from tonnage.rendering.gpu import (
    NO_VARIABLES,
    VARIABLES,
    has_own_shared_memory,
    with_device_resources,
    with_devices,
)
from tonnage.rendering.hub import hub_environment
from tonnage.rendering.names import (
    ENGINE_CONTAINER,
    FOLLOWER,
    PLAN,
    WORKER,
    Manifest,
    Owner,
    labels,
    metadata,
    plan_name,
)
from tonnage.rendering.plan import Kept
from tonnage.rendering.pods import (
    container_security,
    literal,
    model_mount,
    model_volume,
    placement,
    pod_security,
    user_mounts,
    user_volumes,
    worker_scheduling,
)
from tonnage.rendering.settings import (
    DOWNLOAD_MARGIN_BYTES,
    ENDPOINT_SECONDS,
    ENGINE_PORT,
    GRACE_MARGIN_SECONDS,
    MODELS_PATH,
    PLAN_KEY,
    PLAN_PATH,
    PROGRESS_DEADLINE_SECONDS,
    SHUTDOWN_TIMEOUT_SECONDS,
    SLOWEST_DOWNLOAD_BYTES_PER_SECOND,
    WORKER_PORT,
    Settings,
)

_DOWNLOADING = {
    "HF_HOME": MODELS_PATH,
    # an image may have it set
    "HF_HUB_OFFLINE": "0",
    # its cache of chunks would need room beside the files
    "HF_XET_CHUNK_CACHE_SIZE_BYTES": "0",
    # the engine's front gives its core 600 s to load weights, which may be downloaded first; whether a start
    # takes too long is for the roll-out's deadline to say (vLLM 0.32 v1/engine/core_client.py)
    "VLLM_ENGINE_READY_TIMEOUT_S": "86400",
}
_HOST_IP = "VLLM_HOST_IP"
_HTTP_PORT = {"name": "http", "containerPort": ENGINE_PORT, "protocol": "TCP"}


def build_deployment(
    kept: Kept, *, plan_hash: str, spec: Spec, owner: Owner, settings: Settings, replicas: int | None
) -> Manifest:
    """The workers of one plan. `replicas` None leaves the field to whoever owns it."""
    body: Manifest = {
        "selector": {"matchLabels": labels(owner, WORKER)},
        # one more than wanted while rolling, never one less: a plan that fails verification costs nothing
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": _most_unavailable(kept, spec=spec)},
        },
        "progressDeadlineSeconds": progress_seconds(kept, spec=spec),
        "revisionHistoryLimit": 2,
        "template": build_pod_template(kept, plan_hash=plan_hash, spec=spec, owner=owner, settings=settings),
    }
    if replicas is not None:
        body["replicas"] = replicas
    if spec.rollout.paused:
        body["paused"] = True
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(owner, name=owner.name, component=WORKER),
        "spec": body,
    }


def _most_unavailable(kept: Kept, *, spec: Spec) -> int | str:
    """As a Deployment is told: all of them where downtime is allowed, since a new pod may need the devices of
    several old ones."""
    return "100%" if spec.rollout.allow_downtime else most_unavailable(kept, spec=spec)


def most_unavailable(kept: Kept, *, spec: Spec) -> int:
    """Replicas that may be down to make room for the next: all where downtime is allowed; one where the
    workers before fail anyway."""
    if spec.rollout.allow_downtime:
        return spec.wanted_replicas
    return 1 if kept.withheld_bytes else 0


def replicas_of(spec: Spec) -> int | None:
    """Replicas to write into the Deployment; None where somebody else owns the field."""
    return None if spec.scaling.mode is ScalingMode.INTERNAL else spec.wanted_replicas


def progress_seconds(kept: Kept, *, spec: Spec) -> int:
    """How long a roll-out may make no progress: a hub model is downloaded first."""
    if spec.rollout.progress_deadline:
        return quantities.seconds(spec.rollout.progress_deadline)
    return PROGRESS_DEADLINE_SECONDS + kept.download_bytes // SLOWEST_DOWNLOAD_BYTES_PER_SECOND


def download_room_bytes(kept: Kept) -> int:
    """Disk that a worker may fill with its hub model."""
    room = kept.download_bytes + kept.download_bytes // 100 + DOWNLOAD_MARGIN_BYTES
    return -(-room // 2**20) * 2**20


def build_pod_template(
    kept: Kept,
    *,
    plan_hash: str,
    spec: Spec,
    owner: Owner,
    settings: Settings,
    role: Role = Role.ALONE,
) -> Manifest:
    """A worker pod of a plan. Clients, probes of the operator and budgets know leaders as they know a worker
    alone; a follower has a component of its own."""
    return {
        "metadata": _build_pod_metadata(plan_hash, spec=spec, owner=owner, role=role),
        "spec": _build_pod(kept, plan_hash=plan_hash, spec=spec, owner=owner, settings=settings, role=role),
    }


def _build_pod_metadata(plan_hash: str, *, spec: Spec, owner: Owner, role: Role) -> Manifest:
    component = FOLLOWER if role is Role.FOLLOWER else WORKER
    meta: Manifest = {"labels": {**spec.template.labels, **labels(owner, component), PLAN: plan_hash}}
    if spec.template.annotations:
        meta["annotations"] = dict(spec.template.annotations)
    return meta


def _build_pod(
    kept: Kept, *, plan_hash: str, spec: Spec, owner: Owner, settings: Settings, role: Role
) -> Manifest:
    scheduling = {**placement(spec), **worker_scheduling(spec, own_labels=labels(owner, WORKER))}
    return {
        "automountServiceAccountToken": False,
        # a Service called "vllm" would otherwise set VLLM_PORT
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": ENDPOINT_SECONDS + SHUTDOWN_TIMEOUT_SECONDS + GRACE_MARGIN_SECONDS,
        "securityContext": pod_security(),
        **with_devices(scheduling, gpu=kept.plan.gpu, claim=plan_name(owner, plan_hash)),
        "containers": [_build_container(kept, spec=spec, settings=settings, role=role)],
        "volumes": [
            model_volume(spec, size_limit=download_room_bytes(kept)),
            {
                "name": "plan",
                "configMap": {
                    "name": plan_name(owner, plan_hash),
                    "items": [{"key": PLAN_KEY, "path": PLAN_KEY}],
                },
            },
            {"name": "tmp", "emptyDir": {}},
            *_shared_memory(kept.plan),
            *user_volumes(spec),
        ],
    }


def _shared_memory(plan: Plan) -> list[Manifest]:
    if not has_own_shared_memory(plan.gpu):
        return []
    limit = quantities.memory_quantity(plan.shared_memory_bytes)
    return [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": limit}}]


def _build_container(kept: Kept, *, spec: Spec, settings: Settings, role: Role) -> Manifest:
    plan = kept.plan
    arguments = engine_arguments(plan, spec=spec, revision=kept.revision)
    return {
        "name": ENGINE_CONTAINER,
        "image": spec.engine.image or settings.worker_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python3", "-P", "-m", "tonnage_worker.serve"],
        "args": [
            *("--plan", f"{PLAN_PATH}/{PLAN_KEY}"),
            *(("--follower",) if role is Role.FOLLOWER else ()),
            *("--", *map(literal, arguments), *group_arguments(plan, role=role)),
        ],
        "env": _build_env(kept, spec=spec, settings=settings, role=role),
        "ports": [
            *([_HTTP_PORT] if role is not Role.FOLLOWER else []),
            {"name": "worker", "containerPort": WORKER_PORT, "protocol": "TCP"},
        ],
        "resources": _build_resources(kept, spec=spec),
        # one failure is enough: a draining worker must leave the endpoints at once
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": "worker"},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 1,
        },
        "livenessProbe": {
            "httpGet": {"path": "/live", "port": "worker"},
            "initialDelaySeconds": 10,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "securityContext": container_security(),
        "volumeMounts": [
            model_mount(spec),
            {"name": "plan", "mountPath": PLAN_PATH, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own emptyDir
            *([{"name": "shm", "mountPath": "/dev/shm"}] if has_own_shared_memory(plan.gpu) else []),  # noqa: S108
            *user_mounts(spec),
        ],
    }


def _build_env(kept: Kept, *, spec: Spec, settings: Settings, role: Role) -> list[Manifest]:
    fixed = {
        "HOME": "/tmp",  # noqa: S108 - the only writable place of the pod
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        **(_DOWNLOADING if spec.model.hub_name else {"HF_HUB_OFFLINE": "1"}),
        **(NO_VARIABLES if kept.plan.gpu is None else VARIABLES),
    }
    if kept.plan.gpu is None:
        # else vLLM takes every core of the node and pins to it, and two pods share the same cores
        # (vLLM 0.32 v1/worker/cpu_worker.py)
        fixed["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        fixed["OMP_NUM_THREADS"] = str(max(1, cpu_millis(spec) // 1000))
    user = {variable.name: literal(variable.value) for variable in spec.engine.env}
    both = {**fixed, **user}
    variables: list[Manifest] = [
        {"name": name, "value": value} if value else {"name": name} for name, value in both.items()
    ]
    if role is not Role.ALONE and _HOST_IP not in user:
        # what the engine tells the others to reach it by, which it would else guess (vLLM 0.32
        # utils/network_utils.py get_ip)
        own = {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}
        variables.append({"name": _HOST_IP, "valueFrom": own})
    if not spec.model.hub_name:
        return variables
    return [*variables, *(v for v in hub_environment(spec, settings=settings) if v["name"] not in user)]


def _build_resources(kept: Kept, *, spec: Spec) -> Manifest:
    wanted = spec.template.resources
    memory = kept.plan.request_bytes if wanted.memory is None else quantities.whole_bytes(wanted.memory)
    millis = cpu_millis(spec)
    cpu = f"{millis}m" if millis % 1000 else quantities.decimal_quantity(millis // 1000)
    memory_text = quantities.memory_quantity(memory)
    requests = {"cpu": cpu, "memory": memory_text}
    if spec.model.hub_name:
        requests["ephemeral-storage"] = quantities.memory_quantity(download_room_bytes(kept))
    resources = {"requests": requests, "limits": {"memory": memory_text}}
    return with_device_resources(resources, gpu=kept.plan.gpu)
