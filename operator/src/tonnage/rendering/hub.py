"""What a pod needs to read from the hub: variables, and never a token's value."""

from __future__ import annotations

from tonnage.api.v1alpha1 import Spec
from tonnage.rendering.names import Manifest
from tonnage.rendering.settings import Settings

TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - the name of a variable


def hub_environment(spec: Spec, *, settings: Settings) -> list[Manifest]:
    """Where the hub is and the way there, and the token as a reference that the kubelet resolves."""
    hub = settings.hub
    values = {"HF_ENDPOINT": hub.endpoint, "HTTPS_PROXY": hub.https_proxy, "NO_PROXY": hub.no_proxy}
    variables: list[Manifest] = [{"name": name, "value": value} for name, value in values.items() if value]
    secret = spec.model.token_secret
    if secret is not None:
        reference = {"secretKeyRef": {"name": secret.name, "key": secret.key}}
        variables.append({"name": TOKEN_VARIABLE, "valueFrom": reference})
    return variables
