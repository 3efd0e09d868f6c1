"""A failed inspection is tried again with growing pauses, by a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from cluster.objects import condition, inspected, llm
from harness.chart import ENGINE_VERSION
from harness.cluster import Cluster
from harness.simulation import INSPECTION_LABEL, end_inspection
from tonnage.cluster.engine import EngineScraper
from tonnage.cluster.kubeconfig import open_session
from tonnage.cluster.kubernetes import KubernetesCluster
from tonnage.cluster.port import CHILDREN, GROUP_SET, LLM_DEPLOYMENT, NODE, POD
from tonnage.control.hardware import Hardware
from tonnage.control.ports import Ports
from tonnage.control.process import rfc3339
from tonnage.control.reconcile import reconcile
from tonnage.control.store import Store
from tonnage.control.world import Clock, World
from tonnage.rendering.names import MANAGED_BY, MANAGER
from tonnage.rendering.quiet import News
from tonnage.rendering.settings import Settings

pytestmark = pytest.mark.cluster
SPACE = "inspection-retry"
KEY = (SPACE, "chat")
FAILURE = '{"error": {"reason": "HubBusy", "message": "too many requests"}}'


class Hand:
    """An operator without tasks: it lists, and takes a pass, when told to."""

    def __init__(self, ports: Ports) -> None:
        self.now = 1000.0
        self._ports = ports
        self._store = Store(touched=lambda _key, _first: None)
        settings = Settings(
            operator_image="tonnage/operator:test",
            worker_image="tonnage/worker:test",
            engine_version=ENGINE_VERSION,
        )
        self._hardware = Hardware(changed=lambda: None)
        self._world = World(
            cluster=ports.cluster,
            scraper=ports.scraper,
            store=self._store,
            hardware=self._hardware,
            settings=settings,
            clock=Clock(monotonic=lambda: self.now, now=rfc3339),
        )

    async def one_pass(self) -> float | None:
        """List all, then reconcile the object; when it wants to be looked at again."""
        for kind in (*CHILDREN, POD, NODE, LLM_DEPLOYMENT):
            if kind == GROUP_SET:
                continue  # this API server serves none
            selector = "" if kind in (NODE, LLM_DEPLOYMENT) else f"{MANAGED_BY}={MANAGER}"
            listing = await self._ports.cluster.list(kind, selector=selector)
            sink = self._hardware if kind == NODE else self._store
            sink.replace(kind, listing.items, version=listing.resource_version)
        return await reconcile(KEY, self._world)

    async def told(self) -> float:
        """Passes until nothing is held back; seconds from the first until the object is looked at again."""
        begun, again = self.now, await self.one_pass()
        while again is not None and again <= News.DETAILS.hold_seconds:
            self.now += again
            again = await self.one_pass()
        return float("inf") if again is None else self.now + again - begun


@pytest.fixture
async def hand(cluster: Cluster) -> AsyncIterator[Hand]:
    """The passes, and a namespace with an object of a hub model."""
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    cluster.apply(llm(model={"uri": "hf://acme/small"}), namespace=SPACE)
    session, scraper = await open_session(kubeconfig=str(cluster.kubeconfig)), EngineScraper()
    yield Hand(Ports(KubernetesCluster(session.client), scraper))
    await scraper.close()
    await session.client.close()
    cluster.delete("namespace", SPACE, wait=False)


async def until(found: Callable[[], object]) -> None:
    """What the cluster does by itself takes its time."""
    for _ in range(300):
        if found():
            return
        await asyncio.sleep(0.2)
    raise TimeoutError


def jobs(cluster: Cluster) -> list[str]:
    return [str(job["metadata"]["uid"]) for job in cluster.find("jobs", namespace=SPACE)]


async def end(cluster: Cluster, text: str) -> None:
    """Let the inspection that runs end with this, and wait until it did."""

    def phases(wanted: str) -> list[str]:
        pods = cluster.find("pods", namespace=SPACE, labels=INSPECTION_LABEL)
        return [str(p["metadata"]["name"]) for p in pods if p["status"].get("phase") == wanted]

    await until(lambda: phases("Running"))
    (name,) = phases("Running")
    end_inspection(cluster, name, text, namespace=SPACE)
    await until(lambda: name in phases("Succeeded"))


async def test_pauses_grow_and_success_ends_them(cluster: Cluster, hand: Hand) -> None:
    await hand.one_pass()
    for pause in (30.0, 60.0):
        (job,) = jobs(cluster)
        await end(cluster, FAILURE)
        begun = hand.now
        assert await hand.told() == pause
        assert condition(cluster, "ModelResolved", namespace=SPACE)["reason"] == "HubBusy"
        hand.now = begun + pause - 1
        assert await hand.one_pass() == 1.0
        assert jobs(cluster) == [job]
        hand.now += 1
        await hand.one_pass()
        await until(lambda: not jobs(cluster))
        await hand.one_pass()
        assert len(jobs(cluster)) == 1
        # what failed last is said until something else is known
        assert condition(cluster, "ModelResolved", namespace=SPACE)["reason"] == "HubBusy"
    await end(cluster, inspected("1" * 40))
    await hand.told()
    assert condition(cluster, "ModelResolved", namespace=SPACE)["status"] == "True"
    assert condition(cluster, "Planned", namespace=SPACE)["status"] == "True"
