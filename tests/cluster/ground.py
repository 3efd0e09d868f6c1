"""The ground that in-process operators work on: seen, changed and fed by the test as an administrator.

Everything is read by watches, so that many operators and objects at a time cost little.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import ApiClient, Configuration

from cluster.between import Between
from cluster.conftest import PROFILE
from cluster.objects import llm
from cluster.operator_process import ACCOUNT
from harness.audit import Write
from harness.chart import ENGINE_VERSION, NAMESPACE, RELEASE
from harness.cluster import Cluster
from harness.models_volume import make_claim
from harness.simulation import add_node, answered_inspection, remove_node
from tonnage.cluster.kubernetes import KubernetesCluster
from tonnage.cluster.port import CHILDREN, EVENT, GROUP_SET, LLM_DEPLOYMENT, POD, ApiError, Kind, Object
from tonnage.cluster.reflector import Reflector
from tonnage.control.config import Config
from tonnage.control.ports import Ports
from tonnage.control.process import Process
from tonnage.rendering.drift import RENDERED
from tonnage.rendering.findings import VERIFIED
from tonnage.rendering.names import COMPONENT, DEPLOYMENT, INSPECT, MANAGED_BY, MANAGER, PLAN
from tonnage.rendering.observations import Capacity, Pod, Report
from tonnage.rendering.settings import Settings

REPLICA_SET = Kind("apps", "v1", "ReplicaSet", "replicasets")
# no plan here spans nodes
KINDS = (LLM_DEPLOYMENT, *(kind for kind in CHILDREN if kind != GROUP_SET), REPLICA_SET, POD)
CASE = "test.tonnage.dev/case"
SETTLED_SECONDS = 1.0
LIMIT_SECONDS = 120.0
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
# RENDERED is a hash of the rest, names and identities included
_UNCOMPARED = {"uid", "resourceVersion", "managedFields", "clusterIP", "clusterIPs", "generateName", RENDERED}
State = dict[str, list[str]]


class Workers:
    """Workers whose engines hold what was planned; there is no engine behind a simulated pod."""

    async def report(self, pod: Pod) -> Report | None:
        """See `Scraper`."""
        return Report(
            state=VERIFIED,
            plan_hash=pod.labels[PLAN],
            observed=Capacity(blocks=34, tokens=4352, concurrency="2.12"),
            engine_version=ENGINE_VERSION,
            start_seconds=1.0,
            reason="",
            message="",
            kv_usage=0.0,
        )


class Seen:
    """All that is in the namespace of the objects under test, and when each case changed last."""

    def __init__(self, *, inspected: Callable[[Object], None]) -> None:
        self.objects: dict[Kind, dict[str, Object]] = {kind: {} for kind in KINDS}
        self.changed_at: defaultdict[str, float] = defaultdict(float)
        self._inspected = inspected

    def replace(self, kind: Kind, objects: list[Object], *, namespace: str, version: str) -> None:
        """See `Sink`."""
        self.objects[kind] = {}
        for body in objects:
            self.put(kind, body)

    def put(self, kind: Kind, body: Object) -> None:
        """See `Sink`."""
        self.objects[kind][body["metadata"]["name"]] = body
        self.changed_at[case_of(kind, body)] = time.monotonic()
        if kind == POD and body["metadata"]["labels"].get(COMPONENT) == INSPECT:
            self._inspected(body)

    def remove(self, kind: Kind, body: Object) -> None:
        """See `Sink`."""
        self.objects[kind].pop(body["metadata"]["name"], None)
        self.changed_at[case_of(kind, body)] = time.monotonic()

    def of(self, name: str, kind: Kind) -> list[Object]:
        """Objects of a kind that belong to one LLMDeployment."""
        return [body for body in self.objects[kind].values() if case_of(kind, body) == name]

    def state(self, name: str) -> State:
        """What is there of one LLMDeployment, without its name, times and identities: comparable.

        Inspections are left out: they end by themselves, and a model that another object of the namespace
        brought in needs none.
        """
        found = {
            kind.plural: sorted(
                _plain(kind, body, name) for body in self.of(name, kind) if not _inspects(body)
            )
            for kind in KINDS
        }
        return {kind: texts for kind, texts in found.items() if texts}

    def left(self, name: str) -> list[str]:
        """Kinds and names of everything that belongs to one LLMDeployment, inspections too."""
        return [f"{kind.plural} {body['metadata']['name']}" for kind in KINDS for body in self.of(name, kind)]


def case_of(kind: Kind, body: Object) -> str:
    """The LLMDeployment that an object belongs to."""
    meta = body["metadata"]
    return str(meta["name"] if kind == LLM_DEPLOYMENT else meta.get("labels", {}).get(DEPLOYMENT, ""))


def _inspects(body: Object) -> bool:
    return bool(body["metadata"].get("labels", {}).get(COMPONENT) == INSPECT)


def _plain(kind: Kind, body: Object, name: str) -> str:
    meta, spec = body["metadata"], body.get("spec", {})
    if kind in (POD, REPLICA_SET):
        # their names hold a hash of the whole template, and with it the name of the case
        labels = {key: value for key, value in meta["labels"].items() if key in (COMPONENT, PLAN)}
        shown: Any = {"labels": labels, "replicas": spec.get("replicas"), "ends": "deletionTimestamp" in meta}
    elif kind == LLM_DEPLOYMENT:
        shown = body
    else:
        shown = {key: value for key, value in body.items() if key != "status"}
    text = re.sub(rf"\b{name}-[0-9a-f]+-[a-z0-9]{{5}}\b", "POD", json.dumps(_stripped(shown), sort_keys=True))
    return _TIME.sub("TIME", _UID.sub("UID", text)).replace(name, "NAME")


def _stripped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _stripped(part) for key, part in value.items() if key not in _UNCOMPARED}
    return [_stripped(part) for part in value] if isinstance(value, list) else value


def difference(wanted: State, found: State) -> str:
    """Where two states part, for a reader."""
    lines = []
    for kind in sorted({*wanted, *found}):
        missing = [text for text in wanted.get(kind, []) if text not in found.get(kind, [])]
        more = [text for text in found.get(kind, []) if text not in wanted.get(kind, [])]
        for one, other in zip_longest(missing, more, fillvalue=""):
            same = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
            begin = max(0, same - 100)
            lines.append(f"{kind}: wanted {one[begin : same + 200]!r}, found {other[begin : same + 200]!r}")
    return "\n".join(lines) or "the same kinds in other numbers"


class Ground:
    """A namespace with a claim, its inspections answered; objects are made and operators started in it."""

    def __init__(self, cluster: Cluster, *, namespace: str, admin: ApiClient, account: ApiClient) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.admin = KubernetesCluster(admin)
        self.account = KubernetesCluster(account)
        self.seen = Seen(inspected=self._inspected)
        self.audit_start = cluster.audit.position()
        self._tasks: list[asyncio.Task[None]] = []
        self._answered: set[str] = set()
        self.cases: set[str] = set()

    async def watch(self) -> None:
        """Begin to see."""
        reflectors = [
            Reflector(
                self.admin,
                kind,
                self.seen,
                selector="" if kind == LLM_DEPLOYMENT else f"{MANAGED_BY}={MANAGER}",
                clock=time.monotonic,
                namespace=self.namespace,
            )
            for kind in KINDS
        ]
        self._tasks += [asyncio.create_task(reflector.run()) for reflector in reflectors]
        await asyncio.gather(*(reflector.synced.wait() for reflector in reflectors))

    async def close(self) -> None:
        """See no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # what users do

    async def apply(self, name: str, **spec: Any) -> None:
        """Create or change an LLMDeployment; no name may begin with another."""
        self.cases.add(name)
        body = llm(name, **spec)
        body["metadata"] |= {"namespace": self.namespace, "labels": {CASE: name}}
        await self._see(await self.admin.apply(LLM_DEPLOYMENT, body))

    async def scale(self, name: str, replicas: int) -> None:
        """Set the replicas of an LLMDeployment, and nothing else."""
        meta = {"namespace": self.namespace, "name": name}
        body = {"metadata": meta, "spec": {"replicas": replicas}}
        await self._see(await self.admin.overwrite(LLM_DEPLOYMENT, body))

    async def delete(self, name: str, kind: Kind = LLM_DEPLOYMENT) -> None:
        """Delete an object."""
        uid = self.seen.objects[kind][name]["metadata"]["uid"]
        await self.admin.delete(kind, namespace=self.namespace, name=name, uid=uid)
        await self.until("the deletion to be seen", lambda: name not in self.seen.objects[kind])

    async def _see(self, stored: Object) -> None:
        """Wait until the watch has told what a write was answered: what is read after it is no older."""
        name, version = stored["metadata"]["name"], int(stored["metadata"]["resourceVersion"])

        def seen() -> bool:
            body = self.seen.objects[LLM_DEPLOYMENT].get(name)
            return body is not None and int(body["metadata"]["resourceVersion"]) >= version

        await self.until(f"{name} to be seen", seen)

    # what is waited for

    def is_served(self, name: str) -> bool:
        """Is everything that the spec says brought about and told?"""
        body = self.seen.objects[LLM_DEPLOYMENT].get(name)
        if body is None:
            return False
        conditions = {c["type"]: c for c in body.get("status", {}).get("conditions", ())}
        ready = conditions.get("Ready", {})
        moving = conditions.get("Progressing", {}).get("status") != "False"
        current = ready.get("observedGeneration") == body["metadata"]["generation"]
        pods = self.seen.of(name, POD)
        return (
            current
            and ready["status"] == "True"
            and not moving
            and not any("deletionTimestamp" in pod["metadata"] for pod in pods)
        )

    async def until(self, what: str, probe: Callable[[], bool]) -> None:
        """Wait until something is true; AssertionError with what it is after a generous while."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not probe():
            assert time.monotonic() < deadline, f"waited {LIMIT_SECONDS:g} s for {what}"
            await asyncio.sleep(0.05)

    async def settled(self, name: str, probe: Callable[[], bool]) -> State:
        """The state of a case when `probe` is true and nothing changed for a while."""

        def still() -> bool:
            return probe() and time.monotonic() - self.seen.changed_at[name] > SETTLED_SECONDS

        try:
            await self.until(f"{name} to settle", still)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {json.dumps(self.seen.state(name), indent=1)}") from None
        return self.seen.state(name)

    def generation(self, name: str) -> int:
        """How often the spec of an LLMDeployment was changed."""
        return int(self.seen.objects[LLM_DEPLOYMENT][name]["metadata"]["generation"])

    def observed_generation(self, name: str) -> int:
        """Up to which change of its spec the status of an LLMDeployment speaks."""
        body = self.seen.objects[LLM_DEPLOYMENT][name]
        return int(body.get("status", {}).get("observedGeneration", 0))

    def writes(self, name: str) -> list[Write]:
        """What the operator's account wrote for one case, Events aside, from the API server's audit log."""
        return self.writes_by_case().get(name, [])

    def writes_by_case(self) -> dict[str, list[Write]]:
        """What the operator's account wrote by LLMDeployment, Events aside: names begin with its."""
        written = self.cluster.audit.writes(after=self.audit_start, user=ACCOUNT, namespace=self.namespace)
        found: dict[str, list[Write]] = {}
        for write in written:
            if write.resource != EVENT.plural:
                name = next((case for case in self.cases if write.name.startswith(case)), write.name)
                found.setdefault(name, []).append(write)
        return found

    def refused_writes(self) -> list[Write]:
        """Writes of the operator's account that the API server refused.

        A write whose sender was killed or cut off meanwhile is logged there as a failure of the server (5xx).
        """
        written = self.cluster.audit.writes(after=self.audit_start, user=ACCOUNT, namespace=self.namespace)
        return [write for write in written if 400 <= write.code < 500]

    # what is not there in a simulated cluster

    def _inspected(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        if name not in self._answered and pod.get("status", {}).get("phase") == "Running":
            self._answered.add(name)
            self._tasks.append(asyncio.create_task(self._answer(name)))

    async def _answer(self, pod: str) -> None:
        body = {"metadata": {"namespace": self.namespace, "name": pod, **answered_inspection(PROFILE)}}
        try:
            await self.admin.overwrite(POD, body)
        except ApiError as error:
            if not error.not_found:
                raise

    # operators

    def ports(self) -> Between:
        """The real API server with the operator's rights, and workers that hold what was planned."""
        return Between(self.account, Workers())

    def operator(self, ports: Between, *, lease: str, identity: str = "one", **options: Any) -> Operator:
        """An operator in this event loop, not started."""
        config = Config(
            settings=Settings(
                operator_image="tonnage/operator:test",
                worker_image="tonnage/worker:test",
                engine_version=ENGINE_VERSION,
            ),
            namespace=NAMESPACE,
            lease=lease,
            identity=identity,
            health_port=0,
            log_level="INFO",
            watched=(self.namespace,),
        )
        return Operator(config, ports=ports, **options)


class Narrow(Between):
    """Sees what concerns one case only: operators of many cases then do not see each other's objects."""

    def __init__(self, ground: Ground, case: str) -> None:
        super().__init__(ground.account, Workers())
        self._case = case

    def narrow(self, kind: Kind, selector: str) -> str:
        """The labels of the case."""
        if kind == LLM_DEPLOYMENT:
            return f"{CASE}={self._case}"
        if kind not in (*CHILDREN, POD):
            return selector
        return ",".join(filter(None, (selector, f"{DEPLOYMENT}={self._case}")))


class Operator:
    """A whole operator in the test's event loop; one that ended by itself is followed by another."""

    def __init__(self, config: Config, *, ports: Between, **options: Any) -> None:
        self.process: Process | None = None
        self.restarts = 0
        self._config, self._ports, self._options = config, ports, options
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, and go on until `stop`."""
        self._task = asyncio.create_task(self._run())
        while self.process is None:
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """End as on SIGTERM; whatever was written by a dead operator never arrives."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def leads(self) -> None:
        """Wait until everything is listed and the lease is held."""
        while self.process is None or self.process.ready() or not self.process.leader.holds():
            await asyncio.sleep(0.02)

    async def _run(self) -> None:
        while True:
            ended = asyncio.Event()
            ports = Ports(self._ports, self._ports)
            self.process = Process(self._config, ports=ports, failed=ended.set, **self._options)
            try:
                await self.process.start()
                await ended.wait()
            finally:
                await self.process.stop()
            self.restarts += 1
            await asyncio.sleep(0.5)


@asynccontextmanager
async def open_ground(cluster: Cluster, name: str) -> AsyncIterator[Ground]:
    """A new namespace with a claim and room on a node, and connections for very many watches."""
    namespace = f"{name}-{random.SystemRandom().randrange(16**4):04x}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    meta = {"name": namespace, "labels": labels}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    make_claim(cluster, Path("/models"), namespace=namespace)
    add_node(cluster, namespace, cpu="512", memory="4Ti", extended={"pods": "2000"})
    cluster.apply(*_leases(), namespace=NAMESPACE)
    account = cluster.account_kubeconfig(RELEASE, namespace=NAMESPACE)
    try:
        async with AsyncExitStack() as stack:
            clients = [await client_of(path) for path in (cluster.kubeconfig, account)]
            for client in clients:
                stack.push_async_callback(client.close)
            ground = Ground(cluster, namespace=namespace, admin=clients[0], account=clients[1])
            stack.push_async_callback(ground.close)
            await ground.watch()
            yield ground
    finally:
        # other tests ask what the operator's account may do
        cluster.remove(*_leases())
        remove_node(cluster, namespace)
        cluster.delete("namespace", namespace, wait=False)
        cluster.delete("pv", f"{namespace}-models", wait=False)


async def client_of(kubeconfig: Path) -> ApiClient:
    """A client of a kubeconfig with room for very many watches; the caller closes it."""
    configuration = Configuration()
    await kubernetes_config.load_kube_config(
        config_file=str(kubeconfig), client_configuration=configuration, persist_config=False
    )
    configuration.connection_pool_maxsize = 4000
    return ApiClient(configuration)


def _leases() -> list[Object]:
    """Each operator of a test has a lease of its own; the chart grants the one of the release."""
    verbs = ["get", "create", "update"]
    rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs}
    meta = {"name": "leases-of-tests", "namespace": NAMESPACE}
    api = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": meta["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": RELEASE, "namespace": NAMESPACE}],
        },
    ]
