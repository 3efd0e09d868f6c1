"""The ConfigMap that keeps what starts taught, as it is written and found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tonnage.api.base import GROUP
from tonnage.planning.residuals import NOTHING_LEARNED, Residuals, read
from tonnage.rendering.names import COMPONENT, Manifest

LEARNED_COMPONENT: Final = "learned"
SERVES: Final = f"{GROUP}/serves"
"""The namespaces that the operator which learned this serves, all where it is empty."""


def build_learned(data: Mapping[str, str], *, namespace: str, name: str, watched: Iterable[str]) -> Manifest:
    """The ConfigMap with what was learned. It belongs to no LLMDeployment and has none of their labels, so
    that it is nobody's child."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": {"app.kubernetes.io/name": "tonnage", COMPONENT: LEARNED_COMPONENT},
            "annotations": {SERVES: ",".join(watched)},
        },
        "data": dict(data),
    }


def serving(config_maps: Iterable[Mapping[str, Any]], *, namespace: str) -> Mapping[str, Any] | None:
    """That of the operator which serves a namespace: one that names it before one that serves all."""
    found = [(_served(each), each) for each in config_maps]
    named = (each for served, each in found if namespace in served)
    return next(named, next((each for served, each in found if not served), None))


def learned_in(config_maps: Iterable[Mapping[str, Any]], *, namespace: str) -> Residuals:
    """What the operator which serves a namespace has learned."""
    found = serving(config_maps, namespace=namespace)
    return NOTHING_LEARNED if found is None else read(found.get("data") or {})[0]


def _served(config_map: Mapping[str, Any]) -> tuple[str, ...]:
    text = (config_map["metadata"].get("annotations") or {}).get(SERVES) or ""
    return tuple(filter(None, text.split(",")))
