"""The Job that reads a model's facts where the model is: restricted, without a ServiceAccount token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tonnage.api.v1alpha1 import Spec
from tonnage.rendering.arguments import model_path
from tonnage.rendering.gpu import with_tolerations
from tonnage.rendering.hub import hub_environment
from tonnage.rendering.names import (
    INSPECT,
    MODEL,
    PLACEMENT,
    REFRESH_MODEL,
    REFRESHED,
    Manifest,
    Owner,
    labels,
    metadata,
    short_hash,
)
from tonnage.rendering.pods import container_security, model_mount, model_volume, placement, pod_security
from tonnage.rendering.settings import INSPECTION_DEADLINE_SECONDS, INSPECTION_TTL_SECONDS, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The wish to read a model.

    `source` identifies its files and how they are read, `access` also the credentials: what two objects of a
    namespace may share. `refreshed` identifies the refresh that was asked for, empty if none was.
    """

    source: str
    access: str
    refreshed: str = ""

    @property
    def attempt(self) -> str:
        """Identity of the Job that fulfils the wish."""
        return short_hash([self.access, self.refreshed]) if self.refreshed else self.access


def source_of(spec: Spec) -> str:
    """Identity of the model's files and of how they are read."""
    model = spec.model
    return short_hash([model.uri, model.revision, model.assume_full_attention])


def access_of(spec: Spec) -> str:
    """Identity of the files and of the credentials that they are read by."""
    source, secret = source_of(spec), spec.model.token_secret
    return short_hash([source, secret.name, secret.key]) if secret is not None else source


def reading_of(spec: Spec, *, annotations: Mapping[str, str]) -> Reading:
    """What an object with this spec and these annotations wants to be read."""
    asked = annotations.get(REFRESH_MODEL, "")
    return Reading(
        source=source_of(spec),
        access=access_of(spec),
        refreshed=short_hash(asked) if asked else "",
    )


def inspection_name(owner: Owner, reading: Reading) -> str:
    """Name of the owner's Job for a reading."""
    return f"{owner.name}-{INSPECT}-{reading.attempt}"


def build_inspection(
    spec: Spec, *, reading: Reading, owner: Owner, settings: Settings, tolerated: Sequence[str] = ()
) -> Manifest:
    """The Job; its pod's termination message is the result (see tonnage.cluster.inspected).

    `tolerated` are keys of taints that the pod tolerates beside those of the spec (`tolerated_taints`).
    """
    meta = metadata(
        owner,
        name=inspection_name(owner, reading),
        component=INSPECT,
        extra_labels={MODEL: reading.access},
    )
    meta["annotations"] = {PLACEMENT: short_hash(placement(spec))}
    if reading.refreshed:
        meta["annotations"][REFRESHED] = reading.refreshed
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
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
                    **_placement(spec, tolerated=tolerated),
                    **_build_reader(spec, settings=settings),
                },
            },
        },
    }


def _placement(spec: Spec, *, tolerated: Sequence[str]) -> Manifest:
    found = placement(spec)
    if not tolerated:
        return found
    return {**found, "tolerations": with_tolerations(found.get("tolerations", []), keys=tolerated)}


def is_placed_alike(job: Manifest, spec: Spec) -> bool:
    """Would an inspection for this spec run on the same nodes by the same means as this Job's pod?"""
    noted = job["metadata"].get("annotations", {}).get(PLACEMENT)
    return bool(noted == short_hash(placement(spec)))


def _build_reader(spec: Spec, *, settings: Settings) -> Manifest:
    container: Manifest = {
        "name": INSPECT,
        "image": settings.operator_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python3", "-P", "-m", "tonnage.cluster.inspection"],
        "args": _arguments(spec),
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": container_security(),
    }
    if spec.model.hub_name:
        return {"containers": [{**container, "env": hub_environment(spec, settings=settings)}]}
    return {
        "containers": [{**container, "volumeMounts": [model_mount(spec)]}],
        "volumes": [model_volume(spec)],
    }


def _arguments(spec: Spec) -> list[str]:
    name = spec.model.hub_name
    place = ["--hub", name, "--revision", spec.model.revision] if name else ["--path", model_path(spec)]
    return [*place, "--assume-full-attention"] if spec.model.assume_full_attention else place
