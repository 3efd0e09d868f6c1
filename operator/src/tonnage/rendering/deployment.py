"""Plan -> the Deployment of the workers."""

from __future__ import annotations

from tonnage.api import quantities
from tonnage.api.demand import cpu_millis
from tonnage.api.operation import ScalingMode
from tonnage.api.v1alpha1 import Spec
from tonnage.planning.plan import Plan
from tonnage.rendering.arguments import engine_arguments
from tonnage.rendering.names import (
    ENGINE_CONTAINER,
    PLAN,
    WORKER,
    Manifest,
    Owner,
    labels,
    metadata,
    plan_name,
)
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
    ENDPOINT_SECONDS,
    ENGINE_PORT,
    GRACE_MARGIN_SECONDS,
    PLAN_KEY,
    PLAN_PATH,
    PROGRESS_DEADLINE_SECONDS,
    SHUTDOWN_TIMEOUT_SECONDS,
    WORKER_PORT,
    Settings,
)


def build_deployment(
    plan: Plan, *, plan_hash: str, spec: Spec, owner: Owner, settings: Settings, replicas: int | None
) -> Manifest:
    """The workers of one plan. `replicas` None leaves the field to whoever owns it."""
    deadline = spec.rollout.progress_deadline
    body: Manifest = {
        "selector": {"matchLabels": labels(owner, WORKER)},
        # one more than wanted while rolling, never one less: a plan that fails verification costs nothing
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "progressDeadlineSeconds": quantities.seconds(deadline) if deadline else PROGRESS_DEADLINE_SECONDS,
        "revisionHistoryLimit": 2,
        "template": {
            "metadata": _build_pod_metadata(plan_hash, spec=spec, owner=owner),
            "spec": _build_pod(plan, plan_hash=plan_hash, spec=spec, owner=owner, settings=settings),
        },
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


def replicas_of(spec: Spec) -> int | None:
    """Replicas to write into the Deployment; None where somebody else owns the field."""
    return None if spec.scaling.mode is ScalingMode.INTERNAL else spec.wanted_replicas


def _build_pod_metadata(plan_hash: str, *, spec: Spec, owner: Owner) -> Manifest:
    meta: Manifest = {"labels": {**spec.template.labels, **labels(owner, WORKER), PLAN: plan_hash}}
    if spec.template.annotations:
        meta["annotations"] = dict(spec.template.annotations)
    return meta


def _build_pod(plan: Plan, *, plan_hash: str, spec: Spec, owner: Owner, settings: Settings) -> Manifest:
    return {
        "automountServiceAccountToken": False,
        # a Service called "vllm" would otherwise set VLLM_PORT
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": ENDPOINT_SECONDS + SHUTDOWN_TIMEOUT_SECONDS + GRACE_MARGIN_SECONDS,
        "securityContext": pod_security(),
        **placement(spec),
        **worker_scheduling(spec, own_labels=labels(owner, WORKER)),
        "containers": [_build_container(plan, spec=spec, settings=settings)],
        "volumes": [
            model_volume(spec),
            {
                "name": "plan",
                "configMap": {
                    "name": plan_name(owner, plan_hash),
                    "items": [{"key": PLAN_KEY, "path": PLAN_KEY}],
                },
            },
            {"name": "tmp", "emptyDir": {}},
            {
                "name": "shm",
                "emptyDir": {
                    "medium": "Memory",
                    "sizeLimit": quantities.memory_quantity(plan.shared_memory_bytes),
                },
            },
            *user_volumes(spec),
        ],
    }


def _build_container(plan: Plan, *, spec: Spec, settings: Settings) -> Manifest:
    return {
        "name": ENGINE_CONTAINER,
        "image": spec.engine.image or settings.worker_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python3", "-P", "-m", "tonnage_worker.serve"],
        "args": ["--plan", f"{PLAN_PATH}/{PLAN_KEY}", "--", *map(literal, engine_arguments(plan, spec=spec))],
        "env": _build_env(plan, spec=spec),
        "ports": [
            {"name": "http", "containerPort": ENGINE_PORT, "protocol": "TCP"},
            {"name": "worker", "containerPort": WORKER_PORT, "protocol": "TCP"},
        ],
        "resources": _build_resources(plan, spec=spec),
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
            model_mount(),
            {"name": "plan", "mountPath": PLAN_PATH, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own emptyDir
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            *user_mounts(spec),
        ],
    }


def _build_env(plan: Plan, *, spec: Spec) -> list[Manifest]:
    fixed = {
        "HOME": "/tmp",  # noqa: S108 - the only writable place of the pod
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if plan.gpus_per_replica == 0:
        # else vLLM takes every core of the node and pins to it, and two pods share the same cores
        # (vLLM 0.32 v1/worker/cpu_worker.py)
        fixed["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        fixed["OMP_NUM_THREADS"] = str(max(1, cpu_millis(spec) // 1000))
    user = {variable.name: literal(variable.value) for variable in spec.engine.env}
    both = {**fixed, **user}
    return [{"name": name, "value": value} if value else {"name": name} for name, value in both.items()]


def _build_resources(plan: Plan, *, spec: Spec) -> Manifest:
    wanted = spec.template.resources
    memory = plan.request_bytes if wanted.memory is None else quantities.whole_bytes(wanted.memory)
    millis = cpu_millis(spec)
    cpu = f"{millis}m" if millis % 1000 else quantities.decimal_quantity(millis // 1000)
    memory_text = quantities.memory_quantity(memory)
    return {"requests": {"cpu": cpu, "memory": memory_text}, "limits": {"memory": memory_text}}
