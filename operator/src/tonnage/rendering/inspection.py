"""The Job that reads a model's facts where the model is: operator image, restricted, no token."""

from __future__ import annotations

from tonnage.api.v1alpha1 import Spec
from tonnage.rendering.arguments import model_path
from tonnage.rendering.names import INSPECT, Manifest, Owner, labels, metadata, short_hash
from tonnage.rendering.pods import container_security, model_mount, model_volume, placement, pod_security
from tonnage.rendering.settings import INSPECTION_DEADLINE_SECONDS, INSPECTION_TTL_SECONDS, Settings


def source_of(spec: Spec) -> str:
    """Identity of the model's files and of how they are read."""
    return short_hash([spec.model.uri, spec.model.revision, spec.model.assume_full_attention])


def inspection_name(owner: Owner, source: str) -> str:
    """Name of the Job that reads the model `source`."""
    return f"{owner.name}-{INSPECT}-{source}"


def build_inspection(spec: Spec, *, owner: Owner, settings: Settings) -> Manifest:
    """The Job; its pod's termination message is the result (see tonnage.cluster.inspection)."""
    arguments = ["--path", model_path(spec)]
    if spec.model.assume_full_attention:
        arguments.append("--assume-full-attention")
    source = source_of(spec)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(owner, name=inspection_name(owner, source), component=INSPECT),
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": INSPECTION_DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": INSPECTION_TTL_SECONDS,
            "template": {
                "metadata": {"labels": labels(owner, INSPECT)},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": pod_security(),
                    **placement(spec),
                    "containers": [
                        {
                            "name": INSPECT,
                            "image": settings.operator_image,
                            "imagePullPolicy": settings.image_pull_policy,
                            "command": ["python3", "-P", "-m", "tonnage.cluster.inspection"],
                            "args": arguments,
                            "resources": {
                                "requests": {"cpu": "50m", "memory": "64Mi"},
                                "limits": {"memory": "256Mi"},
                            },
                            "securityContext": container_security(),
                            "volumeMounts": [model_mount()],
                        }
                    ],
                    "volumes": [model_volume(spec)],
                },
            },
        },
    }
