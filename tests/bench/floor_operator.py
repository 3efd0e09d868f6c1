"""The least that an operator on kopf can do: a keyed queue, and one Deployment per object, applied.

With `--children` it makes a ConfigMap and a Service as well, as Tonnage does. It has no status, no plan, no
check of what is there, no leader lease. What it costs is what kopf, the client and the API server cost;
`bench.operator` prints it beside Tonnage.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import kopf

from tonnage.api.base import GROUP, PLURAL, VERSION
from tonnage.cluster.kubernetes import KubernetesCluster, connect
from tonnage.cluster.port import BY_KIND
from tonnage.control.queue import Key, KeyedQueue
from tonnage.rendering.names import WORKER, Owner, labels, metadata
from tonnage.rendering.service import build_service

WORKERS = 4
# as long as a plan of Tonnage
FILLING = {"plan.json": "x" * 3000}


def children(owner: Owner) -> list[dict[str, Any]]:
    """What stands beside the Deployment."""
    meta = metadata(owner, name=f"{owner.name}-plan-0", component=WORKER)
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": FILLING}
    return [config_map, build_service(owner)]


def desired(owner: Owner) -> dict[str, Any]:
    """A Deployment of one pod."""
    selected = labels(owner, WORKER)
    container = {"name": "engine", "image": "floor", "resources": {"requests": {"cpu": "1"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(owner, name=owner.name, component=WORKER),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": selected},
            "template": {"metadata": {"labels": selected}, "spec": {"containers": [container]}},
        },
    }


def main() -> None:
    """Run until SIGTERM."""
    registry, queue, uids = kopf.OperatorRegistry(), KeyedQueue(), dict[Key, str]()
    stop_flag = threading.Event()
    beside = children if "--children" in sys.argv else lambda _owner: []
    tasks: list[asyncio.Task[None]] = []

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True
        cluster = KubernetesCluster(await connect())
        tasks.extend(asyncio.create_task(work(cluster)) for _ in range(WORKERS))

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        meta = event["object"]["metadata"]
        if event["type"] != "DELETED":
            uids[meta["namespace"], meta["name"]] = meta["uid"]
            queue.add((meta["namespace"], meta["name"]))

    async def work(cluster: KubernetesCluster) -> None:
        while True:
            key = await queue.take()
            owner = Owner(namespace=key[0], name=key[1], uid=uids[key])
            for body in (*beside(owner), desired(owner)):
                await cluster.apply(BY_KIND[body["kind"]], body)
            queue.done(key)

    kopf.run(registry=registry, clusterwide=True, standalone=True, stop_flag=stop_flag)


if __name__ == "__main__":
    main()
