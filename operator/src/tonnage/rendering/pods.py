"""What all pods that Tonnage makes have in common: restricted, without a token, without host paths."""

from __future__ import annotations

from tonnage.api.v1alpha1 import Spec
from tonnage.rendering.names import Manifest
from tonnage.rendering.settings import MODELS_PATH, UID


def pod_security() -> Manifest:
    """Pod security context that Pod Security *restricted* accepts."""
    return {
        "runAsNonRoot": True,
        "runAsUser": UID,
        "runAsGroup": UID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Container security context that Pod Security *restricted* accepts."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def placement(spec: Spec) -> Manifest:
    """Where the pods may run, as the user's template says."""
    template = spec.template
    tolerations = [t.model_dump(by_alias=True, exclude_defaults=True) for t in template.tolerations]
    fields: Manifest = {
        "nodeSelector": dict(template.node_selector),
        "tolerations": tolerations,
        "priorityClassName": template.priority_class_name,
        "schedulerName": template.scheduler_name,
        "imagePullSecrets": [{"name": s.name} for s in template.image_pull_secrets],
    }
    return {name: value for name, value in fields.items() if value}


def model_volume(spec: Spec) -> Manifest:
    """The claim that holds the model, read-only."""
    return {"name": "models", "persistentVolumeClaim": {"claimName": spec.model.claim, "readOnly": True}}


def model_mount() -> Manifest:
    """Where the claim is seen inside a container."""
    return {"name": "models", "mountPath": MODELS_PATH, "readOnly": True}
