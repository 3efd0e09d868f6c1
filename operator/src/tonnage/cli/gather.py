"""The surroundings of objects in a cluster. Apart from the rest: the cluster's client is slow to import."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tonnage.cli.errors import Missing
from tonnage.cli.session import Here, ask, is_served, read_all
from tonnage.cli.surroundings import Surroundings, priorities_of
from tonnage.cluster.devices import claim_record, class_record, slice_record
from tonnage.cluster.port import (
    CONFIG_MAP,
    DEVICE_CLASS,
    GROUP_SET,
    LLM_DEPLOYMENT,
    NODE,
    POD,
    PRIORITY_CLASS,
    RESOURCE_CLAIM,
    RESOURCE_SLICE,
    Kind,
    Object,
)
from tonnage.cluster.records import node_record, pod_use
from tonnage.rendering.learned import LEARNED_COMPONENT
from tonnage.rendering.names import COMPONENT, PLAN_COMPONENT

_OF_HARDWARE: Final = (POD, RESOURCE_SLICE, RESOURCE_CLAIM, DEVICE_CLASS, PRIORITY_CLASS)


def online(options: argparse.Namespace, asked: Sequence[Mapping[str, Any]]) -> Surroundings:
    """What the cluster has for these objects. Raises UsageError where there is none."""
    return ask(options, lambda here: _gather(here, asked))


async def _gather(here: Here, asked: Sequence[Mapping[str, Any]]) -> Surroundings:
    nodes = await read_all(here, NODE)
    hardware = {kind: await _readable(here, kind) for kind in _OF_HARDWARE}
    selector = f"{COMPONENT}={PLAN_COMPONENT}"
    objects, plans = {}, {}
    for namespace in sorted({body["metadata"].get("namespace") or here.namespace for body in asked}):
        objects[namespace] = await read_all(here, LLM_DEPLOYMENT, namespace=namespace)
        plans[namespace] = await read_all(here, CONFIG_MAP, namespace=namespace, selector=selector)
    return Surroundings(
        namespace=here.namespace,
        context=here.context,
        nodes=nodes if isinstance(nodes, Missing) else tuple(map(node_record, nodes)),
        pods=tuple(map(pod_use, hardware[POD])),
        slices=tuple(map(slice_record, hardware[RESOURCE_SLICE])),
        claims=tuple(map(claim_record, hardware[RESOURCE_CLAIM])),
        classes=tuple(map(class_record, hardware[DEVICE_CLASS])),
        priorities=priorities_of(hardware[PRIORITY_CLASS]),
        objects=objects,
        plans=plans,
        groups=await is_served(here, GROUP_SET, namespace=here.namespace),
        learned=await read_all(here, CONFIG_MAP, selector=f"{COMPONENT}={LEARNED_COMPONENT}"),
    )


async def _readable(here: Here, kind: Kind) -> list[Object]:
    """Objects of all namespaces; nothing where they cannot be read, or the API server does not have them."""
    found = await read_all(here, kind)
    return [] if isinstance(found, Missing) else found
