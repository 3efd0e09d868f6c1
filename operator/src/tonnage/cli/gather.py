"""The surroundings of objects in a cluster. Apart from the rest: the cluster's client is slow to import."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from tonnage.cli.errors import Missing
from tonnage.cli.session import Here, ask, read_all
from tonnage.cli.surroundings import Surroundings
from tonnage.cluster.port import CONFIG_MAP, LLM_DEPLOYMENT, NODE
from tonnage.cluster.records import node_record
from tonnage.rendering.names import COMPONENT, PLAN_COMPONENT


def online(options: argparse.Namespace, asked: Sequence[Mapping[str, Any]]) -> Surroundings:
    """What the cluster has for these objects. Raises UsageError where there is none."""
    return ask(options, lambda here: _gather(here, asked))


async def _gather(here: Here, asked: Sequence[Mapping[str, Any]]) -> Surroundings:
    nodes = await read_all(here, NODE)
    selector = f"{COMPONENT}={PLAN_COMPONENT}"
    objects, plans = {}, {}
    for namespace in sorted({body["metadata"].get("namespace") or here.namespace for body in asked}):
        objects[namespace] = await read_all(here, LLM_DEPLOYMENT, namespace=namespace)
        plans[namespace] = await read_all(here, CONFIG_MAP, namespace=namespace, selector=selector)
    return Surroundings(
        namespace=here.namespace,
        context=here.context,
        nodes=nodes if isinstance(nodes, Missing) else tuple(map(node_record, nodes)),
        objects=objects,
        plans=plans,
    )
