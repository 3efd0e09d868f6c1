"""What all pods that Tonnage makes have in common: restricted, without a token, without host paths."""

from __future__ import annotations

from collections.abc import Mapping

from tonnage.api import quantities
from tonnage.api.base import ApiModel
from tonnage.api.template import Volume
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
    """On which nodes the pods may run, as the user's template says: the same for workers and inspections."""
    template = spec.template
    nodes = template.affinity.node_affinity if template.affinity else None
    fields: Manifest = {
        "nodeSelector": dict(template.node_selector),
        "tolerations": [_stated(toleration) for toleration in template.tolerations],
        "affinity": {"nodeAffinity": _stated(nodes)} if nodes else {},
        "priorityClassName": template.priority_class_name,
        "schedulerName": template.scheduler_name,
        "imagePullSecrets": [{"name": s.name} for s in template.image_pull_secrets],
    }
    return {name: value for name, value in fields.items() if value}


def worker_scheduling(spec: Spec, *, own_labels: Mapping[str, str]) -> Manifest:
    """What only workers have: neighbours, spread, and the identity and runtime of their pods.

    A spread without a selector counts the workers of this object, `own_labels`.
    """
    template = spec.template
    spreads = [
        {"labelSelector": {"matchLabels": dict(own_labels)}, **_stated(spread)}
        for spread in template.topology_spread_constraints
    ]
    fields: Manifest = {
        "affinity": _stated(template.affinity) if template.affinity else {},
        "topologySpreadConstraints": spreads,
        "runtimeClassName": template.runtime_class_name,
        # always stated: the API server keeps a copy under the field's old name, serviceAccount, and takes the
        # account from there when an apply no longer says it
        "serviceAccountName": template.service_account_name or "default",
    }
    return {name: value for name, value in fields.items() if value}


def literal(text: str) -> str:
    """`text` so that the kubelet passes it as it is: $(NAME) would else become a variable's value.

    An argument that the plan pins could hide in a variable.
    """
    return text.replace("$", "$$")


def user_volumes(spec: Spec) -> list[Manifest]:
    """The user's own volumes, named so that they can never be one of ours."""
    return [{"name": _volume_name(volume), **_source(volume)} for volume in spec.template.volumes]


def user_mounts(spec: Spec) -> list[Manifest]:
    """Where the user's volumes are seen."""
    return [
        {
            "name": _volume_name(volume),
            "mountPath": volume.mount_path,
            **({"readOnly": True} if volume.read_only else {}),
            **({"subPath": volume.sub_path} if volume.sub_path else {}),
        }
        for volume in spec.template.volumes
    ]


def _volume_name(volume: Volume) -> str:
    return f"user-{volume.name}"


def _source(volume: Volume) -> Manifest:
    if volume.persistent_volume_claim is not None:
        claim: Manifest = {"claimName": volume.persistent_volume_claim.claim_name}
        return {"persistentVolumeClaim": {**claim, "readOnly": True} if volume.read_only else claim}
    if volume.empty_dir is not None:
        limit = volume.empty_dir.size_limit
        text = None if limit is None else quantities.memory_quantity(quantities.whole_bytes(limit))
        return {"emptyDir": {"sizeLimit": text} if text else {}}
    if volume.config_map is not None:
        return {"configMap": _stated(volume.config_map)}
    return {"secret": _stated(volume.secret) if volume.secret is not None else {}}


def _stated(part: ApiModel) -> Manifest:
    """A part of the template as a Pod spells it, without what it does not say."""
    return part.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def model_volume(spec: Spec, *, size_limit: int = 0) -> Manifest:
    """Where the model lies: its claim, read-only, or for a hub model room for `size_limit` bytes."""
    if spec.model.hub_name:
        return {"name": "models", "emptyDir": {"sizeLimit": quantities.memory_quantity(size_limit)}}
    return {"name": "models", "persistentVolumeClaim": {"claimName": spec.model.claim, "readOnly": True}}


def model_mount(spec: Spec) -> Manifest:
    """Where that is seen inside a container."""
    mount: Manifest = {"name": "models", "mountPath": MODELS_PATH}
    return mount if spec.model.hub_name else {**mount, "readOnly": True}
