"""The least that an operator on kopf can do: a keyed queue, and one Deployment per object, applied.

It has no status, no plan, no check of what is there, no leader lease. What it costs is what kopf, the client
and the API server cost; `bench.operator` prints it beside Tonnage.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import kopf

from tonnage.api.base import GROUP, PLURAL, VERSION
from tonnage.cluster.kubernetes import KubernetesCluster, connect
from tonnage.cluster.port import DEPLOYMENT
from tonnage.control.queue import Key, KeyedQueue
from tonnage.rendering.names import WORKER, Owner, labels, metadata

WORKERS = 4


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
            await cluster.apply(DEPLOYMENT, desired(Owner(namespace=key[0], name=key[1], uid=uids[key])))
            queue.done(key)

    kopf.run(registry=registry, clusterwide=True, standalone=True, stop_flag=stop_flag)


if __name__ == "__main__":
    main()
