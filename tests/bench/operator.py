"""`make bench-operator`: what the operator costs on a real API server, beside a floor.

The floor (`bench.floor_operator`) runs on kopf and the same client and only applies one Deployment per
object; another one applies as many children as Tonnage has. The arms run one after the other, each on a
control plane of its own, with simulated nodes; simulated workers answer with the figures of their plan, so
that every object becomes verified and Ready. Times and counts are those of the API server's audit log.

`--objects N` and `--spaced N` make a smaller run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.process_costs import calm_after, cpu_seconds, memory_mib
from cluster.conftest import PROFILE
from cluster.objects import llm
from cluster.operator_process import ACCOUNT, install_rights, operator_process
from harness import lifecycle
from harness.audit import Write
from harness.chart import NAMESPACE as SYSTEM
from harness.cluster import Cluster
from harness.models_volume import make_claim
from harness.paths import REPOSITORY
from harness.simulated_workers import simulated_workers
from harness.simulation import add_node, inspections_end
from harness.steps import step
from harness.waiting import wait_until
from tonnage.cluster.kubeconfig import open_session
from tonnage.cluster.kubernetes import KubernetesCluster
from tonnage.cluster.port import DEPLOYMENT, LLM_DEPLOYMENT, Kind, Object

SPACED, BURST = "bench-spaced", "bench-burst"
SPACE_SECONDS = 0.5
REST_SECONDS = 60.0
CREATORS = 16
NODES = 5
# a look lists everything, which costs the control plane as much as dozens of objects
LOOK_SECONDS = 15.0
CALM_SECONDS = 5.0
CHILDREN = {"configmaps", "services", "poddisruptionbudgets", "deployments"}
Start = Callable[[Cluster], AbstractContextManager[int]]


@dataclass(frozen=True)
class Arm:
    """An operator under measurement: how to start it (yields its pid), and who it is to the API server."""

    name: str
    start: Start
    user: str
    tells_status: bool


def main() -> None:
    """Print the tables of both arms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--spaced", type=int, default=100)
    parser.add_argument("--arm", choices=["tonnage", "floor", "floor-of-three"], action="append")
    options = parser.parse_args()
    # thousands of simulated pods: a node whose lease is renewed late must not lose them (tests/harness/k8s)
    os.environ.update(K8S_NODE_GRACE="600s", K8S_KWOK_LEASE="400")
    print(f"# make bench-operator, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {_load()}")
    arms = (
        Arm("tonnage", _tonnage, ACCOUNT, True),
        Arm("floor", _floor, FLOOR_USER, False),
        Arm("floor-of-three", functools.partial(_floor, arguments=["--children"]), FLOOR_USER, False),
    )
    for arm in arms:
        if not options.arm or arm.name in options.arm:
            print(f"\n## {arm.name}", flush=True)
            _run(arm, objects=options.objects, spaced=options.spaced)


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f} before it began"


# the arms


@contextmanager
def _tonnage(cluster: Cluster) -> Iterator[int]:
    with operator_process(cluster, port=18600, identity="bench") as operator:
        wait_until("the lease", operator.leads, every_seconds=0.1)
        yield operator.process.pid


FLOOR = "floor"
FLOOR_USER = f"system:serviceaccount:{SYSTEM}:{FLOOR}"


@contextmanager
def _floor(cluster: Cluster, *, arguments: Sequence[str] = ()) -> Iterator[int]:
    config = cluster.account_kubeconfig(FLOOR, namespace=SYSTEM)
    environment = {
        **os.environ,
        "KUBECONFIG": str(config),
        "NO_PROXY": cluster.environment["NO_PROXY"],
        "PYTHONPATH": str(REPOSITORY / "tests"),
    }
    with (cluster.state / "logs/floor.log").open("ab") as log:
        argv = [sys.executable, "-P", "-m", "bench.floor_operator", *arguments]
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        process.kill()
        process.wait()


def _allow_floor(cluster: Cluster) -> None:
    account = {"kind": "ServiceAccount", "name": FLOOR, "namespace": SYSTEM}
    group = "rbac.authorization.k8s.io"
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": FLOOR, "namespace": SYSTEM}},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": FLOOR},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [account],
        },
        namespace=SYSTEM,
    )


# one arm


def _run(arm: Arm, *, objects: int, spaced: int) -> None:
    with _prepared(spaces=(SPACED, BURST)) as cluster:
        with arm.start(cluster) as pid:
            for space in (SPACED, BURST):
                _warm(cluster, arm, space)
            _measure_spaced(cluster, arm, count=spaced)
            _measure_burst(cluster, arm, count=objects)
            print(f"peak RSS until here: {memory_mib(pid, 'VmHWM'):.0f} MiB")
            _measure_rest(cluster, arm, pid)
        _measure_restart(cluster, arm)


@contextmanager
def _prepared(*, spaces: Sequence[str]) -> Iterator[Cluster]:
    cluster = lifecycle.start_simulated()
    os.environ["NO_PROXY"] = cluster.environment["NO_PROXY"]
    try:
        install_rights(cluster)
        _allow_floor(cluster)
        for number in range(NODES):
            add_node(cluster, f"cpu-{number}", cpu="4000", memory="16Ti", pods=1200)
        for space in spaces:
            cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
            make_claim(cluster, Path("/models"), namespace=space)
        with simulated_workers(cluster):
            yield cluster
    finally:
        lifecycle.stop(cluster)


def _warm(cluster: Cluster, arm: Arm, space: str) -> None:
    """One object that is deployed: the operator works, and knows the namespace's model if it asks for it."""
    asks = inspections_end(cluster, PROFILE, namespace=space) if arm.tells_status else nullcontext()
    with asks:
        cluster.apply(llm("warm"), namespace=space)
        wait_until("the first Deployment", lambda: cluster.get("deployment", "warm", namespace=space))


def _measure_spaced(cluster: Cluster, arm: Arm, *, count: int) -> None:
    position = cluster.audit.position()
    with step(f"{arm.name}: {count} objects, one per {SPACE_SECONDS} s"):
        asyncio.run(_create(cluster, SPACED, count, every_seconds=SPACE_SECONDS, at_once=1))
        asyncio.run(_until_deployed(cluster, SPACED, count, ready=arm.tells_status))
    time.sleep(CALM_SECONDS)
    writes = cluster.audit.writes(after=position, namespace=SPACED)
    took = sorted(last - accepted for accepted, last in _spans(writes, arm).values())
    p50, p99, worst = statistics.median(took), _percentile(took, 99), took[-1]
    print(
        f"accepted write -> last apply, {len(took)} objects, one per {SPACE_SECONDS:g} s: "
        f"p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, worst {worst * 1e3:.0f} ms"
    )
    _print_writes(writes, arm, count=count, how=f"one per {SPACE_SECONDS:g} s")
    cluster.kubectl("delete", "llmdep", "--all", "-n", SPACED, "--wait=false")
    wait_until(
        "the end of the spaced objects",
        lambda: not cluster.find("deployments", namespace=SPACED),
        seconds=300,
        every_seconds=2,
    )


def _measure_burst(cluster: Cluster, arm: Arm, *, count: int) -> None:
    position = cluster.audit.position()
    with step(f"{arm.name}: {count} objects at once"):
        asyncio.run(_create(cluster, BURST, count, every_seconds=0.0, at_once=CREATORS))
        asyncio.run(_until_deployed(cluster, BURST, count, ready=arm.tells_status))
    time.sleep(CALM_SECONDS)
    writes = cluster.audit.writes(after=position, namespace=BURST)
    spans = _spans(writes, arm)
    begun = min(accepted for accepted, _ in spans.values())
    created = max(accepted for accepted, _ in spans.values()) - begun
    applied = max(last for _, last in spans.values()) - begun
    print(
        f"{count} objects in a burst (created within {created:.1f} s): all children applied after "
        f"{applied:.1f} s, the operator's last write after {_last(writes, arm) - begun:.1f} s"
    )
    _print_writes(writes, arm, count=count, how="in a burst")


def _spans(writes: Sequence[Write], arm: Arm) -> dict[str, tuple[float, float]]:
    """By object: when the API server had accepted it, and when the operator's last child was applied."""
    accepted = {
        w.name: w.answered_at
        for w in writes
        if w.resource == "llmdeployments" and not w.subresource and w.verb == "patch" and w.code == 201
    }
    last: dict[str, float] = {}
    for write in writes:
        if write.user.endswith(arm.user) and write.resource in CHILDREN and not write.subresource:
            name = write.name.partition("-plan-")[0]
            last[name] = max(last.get(name, 0.0), write.answered_at)
    return {name: (at, last[name]) for name, at in accepted.items()}


def _last(writes: Sequence[Write], arm: Arm) -> float:
    return max(w.answered_at for w in writes if w.user.endswith(arm.user))


def _print_writes(writes: Sequence[Write], arm: Arm, *, count: int, how: str) -> None:
    mine = Counter(w.what for w in writes if w.user.endswith(arm.user))
    named = ", ".join(f"{what} {number / count:.2f}" for what, number in sorted(mine.items()))
    until = "creation to Ready" if arm.tells_status else "creation"
    print(f"writes per object, {until}, {how}: {sum(mine.values()) / count:.2f} ({named})", flush=True)


def _measure_rest(cluster: Cluster, arm: Arm, pid: int) -> None:
    with step(f"{arm.name}: at rest"):
        calm_after(pid, since=time.monotonic())
        position, cpu, begun = cluster.audit.position(), cpu_seconds(pid), time.monotonic()
        time.sleep(REST_SECONDS)
        share = (cpu_seconds(pid) - cpu) / (time.monotonic() - begun)
    mine = Counter(w.what for w in cluster.audit.writes(after=position, user=arm.user))
    print(
        f"at rest, {REST_SECONDS:g} s: {100 * share:.2f} % of a core, "
        f"RSS {memory_mib(pid, 'VmRSS'):.0f} MiB, writes {dict(mine) or 0}",
        flush=True,
    )


def _measure_restart(cluster: Cluster, arm: Arm) -> None:
    position, begun = cluster.audit.position(), time.monotonic()
    with step(f"{arm.name}: restart"), arm.start(cluster) as pid:
        quiet = calm_after(pid, since=begun)
        cpu, peak = cpu_seconds(pid), memory_mib(pid, "VmHWM")
    mine = Counter(w.what for w in cluster.audit.writes(after=position, user=arm.user))
    print(
        f"restart: quiet after {quiet:.1f} s, {cpu:.1f} CPU s, peak RSS {peak:.0f} MiB, "
        f"writes {dict(mine) or 0}",
        flush=True,
    )


def _percentile(ordered: Sequence[float], share: int) -> float:
    return ordered[min(math.ceil(len(ordered) * share / 100), len(ordered)) - 1]


# what a user and a controller would do


@asynccontextmanager
async def _api(cluster: Cluster) -> AsyncIterator[KubernetesCluster]:
    session = await open_session(kubeconfig=str(cluster.kubeconfig))
    try:
        yield KubernetesCluster(session.client)
    finally:
        await session.client.close()


async def _create(cluster: Cluster, space: str, count: int, *, every_seconds: float, at_once: int) -> None:
    turns = asyncio.Semaphore(at_once)

    async def one(api: KubernetesCluster, number: int) -> None:
        body = llm(f"chat-{number:04}")
        body["metadata"]["namespace"] = space
        async with turns:
            await api.apply(LLM_DEPLOYMENT, body)

    tasks = []
    async with _api(cluster) as api:
        for number in range(count):
            tasks.append(asyncio.create_task(one(api, number)))
            await asyncio.sleep(every_seconds)
        await asyncio.gather(*tasks)


async def _until_deployed(cluster: Cluster, space: str, count: int, *, ready: bool) -> None:
    """Until every object's pod is ready, and the object where its operator says so."""
    async with _api(cluster) as api:

        async def all_are(kind: Kind, good: Callable[[Object], bool]) -> bool:
            items = (await api.list(kind, namespace=space)).items
            return sum(map(good, items)) >= count

        while not await all_are(DEPLOYMENT, lambda body: bool(body.get("status", {}).get("readyReplicas"))):
            await asyncio.sleep(LOOK_SECONDS)
        while ready and not await all_are(LLM_DEPLOYMENT, _is_ready):
            await asyncio.sleep(LOOK_SECONDS)


def _is_ready(body: Object) -> bool:
    found: list[dict[str, Any]] = body.get("status", {}).get("conditions", [])
    wanted = {("Ready", "True"), ("CapacityVerified", "True")}
    return wanted <= {(c["type"], c["status"]) for c in found}


if __name__ == "__main__":
    main()
