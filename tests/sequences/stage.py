"""Where histories are played: a simulated cluster with the ground's nodes, and an operator process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from cluster.operator_process import ACCOUNT, OperatorProcess, operator_process
from harness.audit import Write
from harness.cluster import Cluster
from harness.models_volume import make_claim
from harness.simulation import add_node
from harness.waiting import wait_until
from sequences.client import Client, Family, Mirror, connected
from sequences.ground import BASE, CLAIM, NODES, PRIORITY_CLASS, RUNTIME_CLASS
from tonnage.api.base import GROUP, KIND, VERSION
from tonnage.cluster.port import LLM_DEPLOYMENT, Object

SETTLE_SECONDS = 120.0
SENTINEL, KEEPER = "sentinel", "keeper"
_REFUSED = {"sharing": {"mode": "Pool", "pool": {}}}
_TRACEBACK = re.compile(r"Traceback|pass failed by a bug")


def manifest(namespace: str, name: str, spec: Object) -> Object:
    """An LLMDeployment."""
    meta = {"namespace": namespace, "name": name}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": meta, "spec": spec}


class Stage:
    """A client, a mirror, the operator, and namespaces to play in."""

    def __init__(
        self, cluster: Cluster, client: Client, mirror: Mirror, *, namespaces: Sequence[str], port: int
    ) -> None:
        self.cluster, self.client, self.mirror = cluster, client, mirror
        self.namespaces = namespaces
        self._port, self._process = port, ExitStack()
        self._runs = 0
        self._beats = 0
        self.operator: OperatorProcess | None = None

    async def start_operator(self) -> None:
        """Start the operator, or another one in its place; returns when it has looked at everything."""
        await asyncio.to_thread(self._restart)
        await self.passed()

    def _restart(self) -> None:
        self._process.close()
        self._runs += 1
        identity = f"sequences-{self._port}-{self._runs}"
        running = operator_process(self.cluster, port=self._port, identity=identity)
        self.operator = self._process.enter_context(running)
        wait_until("the lease", self.operator.leads)

    def stop_operator(self) -> None:
        """End the operator."""
        self._process.close()

    async def passed(self) -> None:
        """Return when the operator has dealt with everything that it was told before this was called.

        A refused object is changed last, twice: its passes come after those that are waiting, and no pass
        that was under way outlives both and an empty queue.
        """
        for _ in range(2):
            self._beats += 1
            spec = {**BASE, "cache": _REFUSED, "workload": {"concurrency": 1 + self._beats % 60_000}}
            _, body = await self.client.apply(LLM_DEPLOYMENT, manifest(self.namespaces[0], SENTINEL, spec))
            await self.observed((self.namespaces[0], SENTINEL), body["metadata"]["generation"])
        await asyncio.to_thread(wait_until, "an empty queue", self._idle)

    async def keep_the_base_model(self) -> None:
        """In each namespace an object that has the base's model, so that it is known there: a history whose
        pods nothing admits could not read it."""
        for namespace in self.namespaces:
            await self.client.apply(LLM_DEPLOYMENT, manifest(namespace, KEEPER, {**BASE, "replicas": 0}))
        for namespace in self.namespaces:
            if text := await self.mirror.until((namespace, KEEPER), _has_no_plan, seconds=SETTLE_SECONDS):
                raise AssertionError(text)

    async def observed(self, key: tuple[str, str], generation: int) -> None:
        """Wait until the operator has told about this generation of an object."""

        def wrong(family: Family) -> str:
            seen = (family.object or {}).get("status", {}).get("observedGeneration", 0)
            return "" if seen >= generation else f"{key[1]}: generation {generation} is not observed"

        if text := await self.mirror.until(key, wrong, seconds=SETTLE_SECONDS):
            raise AssertionError(text)

    def _idle(self) -> bool:
        assert self.operator is not None
        page = self.operator.page("/metrics")
        return "tonnage_queue_length 0.0" in page

    def writes(self, position: int) -> list[Write]:
        """What the operator wrote since a position of the audit log, but for its lease and the sentinel."""
        return [
            write
            for write in self.cluster.audit.writes(after=position, user=ACCOUNT)
            if write.namespace in self.namespaces and write.name not in {SENTINEL, KEEPER}
        ]

    def bugs(self) -> str:
        """Passes that a bug ended, by the metrics and the log of the running operator; "" if none."""
        assert self.operator is not None
        counted = re.search(r'^tonnage_reconciles_total{result="bug"} (\S+)', self._metrics(), re.MULTILINE)
        told = _TRACEBACK.search(self.operator.log.read_text())
        if told or (counted and float(counted[1])):
            return f"passes ended by a bug: {counted[1] if counted else 0}; see {self.operator.log}"
        return ""

    def _metrics(self) -> str:
        assert self.operator is not None
        return self.operator.page("/metrics")


def _has_no_plan(family: Family) -> str:
    planned = (family.object or {}).get("status", {}).get("plan")
    return "" if planned else "the model of the base is not read yet"


@asynccontextmanager
async def stage(cluster: Cluster, *, namespaces: int, port: int, prefix: str) -> AsyncIterator[Stage]:
    """A stage on a cluster that has the operator's rights; what it makes is deleted in the end."""
    names = [f"{prefix}-{number}" for number in range(namespaces)]
    await asyncio.to_thread(_prepare, cluster, names)
    async with connected(cluster) as (client, mirror):
        found = Stage(cluster, client, mirror, namespaces=names, port=port)
        try:
            await found.start_operator()
            await found.keep_the_base_model()
            yield found
        finally:
            await asyncio.to_thread(found.stop_operator)
            await asyncio.to_thread(_clear, cluster, names)


def _prepare(cluster: Cluster, names: Sequence[str]) -> None:
    for node in NODES:
        resources = dict(node.resources)
        cpu, memory = resources.pop("cpu"), resources.pop("memory")
        add_node(cluster, node.name, cpu=cpu, memory=memory, labels=node.labels, extended=resources)
        taints = [{"key": t.key, "value": t.value, "effect": t.effect} for t in node.taints]
        if taints:
            cluster.patch("node", node.name, {"spec": {"taints": taints}})
    cluster.apply(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": PRIORITY_CLASS},
            "value": 1000,
        },
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": RUNTIME_CLASS},
            "handler": "runc",
        },
    )
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: _make_namespace(cluster, name), names))


def _make_namespace(cluster: Cluster, name: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    make_claim(cluster, Path("/models"), namespace=name, name=CLAIM)


def _clear(cluster: Cluster, names: Sequence[str]) -> None:
    for name in names:
        cluster.delete("namespace", name, wait=False)
        cluster.delete("pv", f"{name}-{CLAIM}", wait=False)
    for node in NODES:
        cluster.delete("node", node.name, wait=False)
