"""One small process that answers for all worker pods of a simulated cluster, at their own addresses.

KWOK gives pods addresses and says that they run; nothing answers there. Here each running worker pod gets two
listening sockets: the worker's port, answered by the real worker's endpoints, and the engine's port, answered
with a page that a real engine wrote, into which the figures of the pod's plan are put. So the operator reads
from simulated pods what it would read from real ones. The pods' network is made local to this machine, for
which root is needed.

Use `simulated_workers`; the process itself is `python -m harness.simulated_workers`.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

from aiohttp import web

from harness.cluster import Cluster
from harness.paths import REPOSITORY
from harness.steps import StepError
from harness.waiting import wait_until
from tonnage.cluster.kubernetes import KubernetesCluster, connect
from tonnage.cluster.port import CONFIG_MAP, POD, Kind, Object
from tonnage.cluster.records import pod_record
from tonnage.cluster.reflector import Reflector
from tonnage.rendering.names import COMPONENT, MANAGED_BY, MANAGER, PLAN, PLAN_COMPONENT, WORKER
from tonnage.rendering.observations import Pod
from tonnage.rendering.settings import ENGINE_PORT, PLAN_KEY, WORKER_PORT
from tonnage_worker import metrics
from tonnage_worker.capacity import compare, number
from tonnage_worker.device_memory import DeviceMemory
from tonnage_worker.endpoints import build_app
from tonnage_worker.engine_client import EngineClient
from tonnage_worker.exposition import read_page
from tonnage_worker.plan import Capacity, WorkerPlan, parse_plan
from tonnage_worker.status import Status

# of vLLM 0.32.0 on CPU; its first lines say how it was captured
CAPTURED = (REPOSITORY / "tests/unit/worker/data/metrics_vllm_0.32.0.txt").read_text(encoding="utf-8")
ALL = "*"
Address = str
Name = str
START_SECONDS = 24.0


@dataclass(frozen=True)
class SimulatedWorkers:
    """The running process, as tests speak to it."""

    process: subprocess.Popen[str]

    def served(self) -> int:
        """How many pods are answered for now."""
        return int(self._ask({})["served"])

    def use_kv(self, shares: Mapping[str, Sequence[float]]) -> None:
        """Set the use of the KV cache: `namespace/pod`, or `*` for all others, -> shares told in turn."""
        self._ask({"kv": {name: list(values) for name, values in shares.items()}})

    def hold(self, beside_bytes: int, *, compiled: bool = True) -> None:
        """From now on workers on GPUs tell of devices on which so much stands beside the KV cache."""
        self._ask({"memory": {"beside": beside_bytes, "compiled": compiled}})

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise StepError("the simulated workers ended; their log is logs/simulated-workers.log")
        return cast(dict[str, Any], json.loads(answer))


@contextmanager
def simulated_workers(cluster: Cluster) -> Iterator[SimulatedWorkers]:
    """Answer for all worker pods of a simulated cluster while this is open (root)."""
    if os.geteuid() != 0:
        raise StepError("simulated workers need root: the pods' network becomes local to this machine")
    route = ["local", cluster.pod_network, "dev", "lo"]
    subprocess.run(["ip", "route", "replace", *route], check=True, capture_output=True)
    environment = {**cluster.full_environment, "PYTHONPATH": str(REPOSITORY / "tests")}
    with (cluster.state / "logs/simulated-workers.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.simulated_workers"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    workers = SimulatedWorkers(process)
    try:
        wait_until("the simulated workers", lambda: workers.served() >= 0)
        yield workers
    finally:
        process.kill()
        process.wait()
        subprocess.run(["ip", "route", "del", *route], check=False, capture_output=True)


# the process


@functools.lru_cache(maxsize=1024)
def _page(plan: WorkerPlan) -> str:
    """The captured page with the figures of a plan."""
    expected = plan.expected
    figures = {
        "num_gpu_blocks": expected.blocks,
        "kv_cache_size_tokens": expected.tokens,
        "kv_cache_max_concurrency": number(expected.concurrency),
        "block_size": expected.block_size,
        "cache_dtype": expected.kv_dtype,
    }
    text = CAPTURED
    for label, value in figures.items():
        text = re.sub(rf'([{{,]){label}="[^"]*"', rf'\g<1>{label}="{value}"', text)
    return text


@functools.lru_cache(maxsize=1024)
def _observed(plan: WorkerPlan) -> Mapping[str, Capacity]:
    return read_page(_page(plan)).capacities


@dataclass(slots=True)
class _Devices:
    """What stands beside the KV cache of each device, and whether engines compile; None: not told."""

    beside: int | None = None
    compiled: bool = True

    def of(self, plan: WorkerPlan) -> DeviceMemory | None:
        """What the worker of a plan tells of its device."""
        planned = plan.memory
        if self.beside is None or planned is None or planned.device is None:
            return None
        return DeviceMemory(
            total=planned.device,
            free_at_start=planned.device - 2**29,
            free_at_ready=planned.device - planned.kv - self.beside,
            compiled=self.compiled,
        )


@dataclass(frozen=True, slots=True)
class _Worker:
    """One pod, as its two ports answer."""

    name: Name
    plan: WorkerPlan
    started_at: float
    shares: Mapping[Name, Sequence[float]]
    devices: _Devices
    turns: Iterator[int] = field(default_factory=itertools.count)

    def engine_page(self) -> str:
        """The engine's page, with the next share of the KV cache in use."""
        shares = self.shares.get(self.name, self.shares[ALL])
        use = shares[next(self.turns) % len(shares)]
        return re.sub(
            r"^(vllm:kv_cache_usage_perc{.*}) .*$", rf"\g<1> {use}", _page(self.plan), flags=re.MULTILINE
        )

    def status(self) -> Status:
        """What the worker's supervisor knows of an engine that is healthy."""
        now = time.monotonic()
        observed = _observed(self.plan)
        return Status(
            plan=self.plan,
            started_at=self.started_at,
            beat_at=now,
            healthy_since=self.started_at + START_SECONDS,
            healthy_at=now,
            observed=observed,
            verdict=compare(self.plan.expected, observed=observed, verification=self.plan.verification),
            engine_version=self.plan.engine_version,
            memory=self.devices.of(self.plan),
            served=True,
        )


_asked: ContextVar[_Worker] = ContextVar("asked")


class _Engine(EngineClient):
    """The worker's client of its engine, without an engine: the pod that is asked says what it would."""

    def __init__(self) -> None:
        pass

    async def page(self) -> str | None:
        """The engine's page of the pod that is asked."""
        return _asked.get().engine_page()


class _Pods:
    """A reflector's sink that keeps the sockets of pods equal to the pods."""

    def __init__(self) -> None:
        self.shares: dict[Name, Sequence[float]] = {ALL: [0.0]}
        self.devices = _Devices()
        self.served: dict[Address, _Worker] = {}
        self._pods: dict[Name, Pod] = {}
        self._plans: dict[tuple[str, str], WorkerPlan] = {}
        self._servers: dict[Address, list[asyncio.Server]] = {}
        self._changed = asyncio.Event()

    def replace(self, kind: Kind, objects: list[Object], *, namespace: str, version: str) -> None:
        """A list: what is missing was deleted."""
        if kind == POD:
            self._pods.clear()
        for body in objects:
            self.put(kind, body)
        self._changed.set()

    def put(self, kind: Kind, body: Object) -> None:
        """A plan came, or a pod changed."""
        meta = body["metadata"]
        component = meta["labels"].get(COMPONENT)
        if kind == CONFIG_MAP and component == PLAN_COMPONENT:
            plan = parse_plan(body["data"][PLAN_KEY])
            self._plans[meta["namespace"], plan.hash] = plan
        elif kind == POD and component == WORKER:
            pod = pod_record(body)
            self._pods[f"{pod.namespace}/{pod.name}"] = pod
        self._changed.set()

    def remove(self, kind: Kind, body: Object) -> None:
        """A pod is gone; plans are kept, their pods may outlive them."""
        if kind == POD:
            self._pods.pop(f"{body['metadata']['namespace']}/{body['metadata']['name']}", None)
            self._changed.set()

    async def serve(self, apps: Mapping[int, web.AppRunner]) -> None:
        """For ever: open sockets for pods that run by a known plan, close those of others."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = dict(self._wanted())
            for address in self.served.keys() - wanted.keys():
                del self.served[address]
                for server in self._servers.pop(address):
                    server.close()
            for address, worker in wanted.items():
                known = self.served.get(address)
                if known is None:
                    self._servers[address] = await self._listen(address, apps)
                if known is None or (known.name, known.plan) != (worker.name, worker.plan):
                    self.served[address] = worker

    def _wanted(self) -> Iterator[tuple[Address, _Worker]]:
        for name, pod in self._pods.items():
            plan = self._plans.get((pod.namespace, pod.labels.get(PLAN, "")))
            if pod.running and pod.ip and plan is not None:
                started_at = time.monotonic() - START_SECONDS
                yield pod.ip, _Worker(name, plan, started_at, self.shares, self.devices)

    @staticmethod
    async def _listen(address: Address, apps: Mapping[int, web.AppRunner]) -> list[asyncio.Server]:
        loop = asyncio.get_running_loop()
        return [
            await loop.create_server(cast(Any, app.server), address, port, backlog=16)
            for port, app in apps.items()
        ]


def _told(pods: _Pods) -> Any:
    """Middleware: the address that a request came to says which pod is asked."""

    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        address = request.transport.get_extra_info("sockname")[0] if request.transport else ""
        worker = pods.served.get(address)
        if worker is None:
            return web.Response(status=404)
        _asked.set(worker)
        return cast(web.StreamResponse, await handler(request))

    return middleware


async def _engine_metrics(_request: web.Request) -> web.Response:
    body = _asked.get().engine_page().encode()
    return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})


async def _apps(pods: _Pods) -> dict[int, web.AppRunner]:
    worker = build_app(lambda: _asked.get().status(), engine=_Engine(), secrets=frozenset())
    worker.middlewares.append(_told(pods))
    engine = web.Application(middlewares=[_told(pods)])
    engine.router.add_get("/metrics", _engine_metrics)
    apps = {WORKER_PORT: web.AppRunner(worker), ENGINE_PORT: web.AppRunner(engine)}
    for app in apps.values():
        await app.setup()
    return apps


async def _answer_parent(pods: _Pods) -> None:
    """One line of JSON in, one out, until the parent's end of the pipe closes."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        question = json.loads(line)
        pods.shares.update(question.get("kv", {}))
        memory = question.get("memory", {})
        pods.devices.beside = memory.get("beside", pods.devices.beside)
        pods.devices.compiled = memory.get("compiled", pods.devices.compiled)
        print(json.dumps({"served": len(pods.served)}), flush=True)


async def _main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    pods = _Pods()
    client = await connect()
    cluster = KubernetesCluster(client)
    selector = f"{MANAGED_BY}={MANAGER}"
    work = [
        Reflector(cluster, kind, pods, selector=selector, clock=time.monotonic).run()
        for kind in (CONFIG_MAP, POD)
    ]
    tasks = [asyncio.create_task(one) for one in (*work, pods.serve(await _apps(pods)), _answer_parent(pods))]
    # the first to end decides: the parent is gone, or something failed
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await client.close()
    for task in done:
        task.result()


if __name__ == "__main__":
    asyncio.run(_main())
