"""What the operator writes while nothing happens, and while the use of KV caches changes all the time."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import pytest

from cluster.objects import llm, wait_for
from cluster.operator_process import ACCOUNT, OperatorProcess, settled, written_in
from harness.audit import Write
from harness.cluster import Cluster
from harness.simulated_workers import ALL, SimulatedWorkers, simulated_workers
from harness.simulation import add_node, remove_node
from harness.waiting import wait_until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="simulated workers need root"),
]
REST_SECONDS = 60.0
# every worker is asked at least once: a settled one every 60 s, give or take a quarter
TRAFFIC_SECONDS = 100.0
MANY = 50
NODE = "quiet"
WIDE = 20


@pytest.fixture(scope="module")
def workers(cluster: Cluster) -> Iterator[SimulatedWorkers]:
    """Workers that answer, on a node with room for many."""
    add_node(cluster, NODE, cpu="1000", memory="4Ti", pods=300)
    with simulated_workers(cluster) as running:
        yield running
    remove_node(cluster, NODE)


def test_at_rest_nothing_is_written_but_the_lease(
    cluster: Cluster, operator: OperatorProcess, workers: SimulatedWorkers, namespace: str
) -> None:
    cluster.apply(llm(), namespace=namespace)
    wait_for(cluster, "CapacityVerified", "True", namespace=namespace)
    assert _written_at_rest(cluster, namespace) == []

    names = [f"chat{number:02}" for number in range(1, MANY)]
    cluster.apply(*map(llm, names), namespace=namespace)
    wait_until("all to be verified", lambda: _verified(cluster, namespace) == MANY, seconds=180)
    assert _written_at_rest(cluster, namespace) == []

    cluster.apply(llm("wide", replicas=WIDE), namespace=namespace)
    wait_for(cluster, "Ready", "True", namespace=namespace, name="wide", seconds=120)
    settled(cluster, namespace)
    position = cluster.audit.position()
    # of the wide one every answer moves the mean; the others cross steps from one answer to the next
    workers.use_kv({ALL: [1.0, 0.4, 0.7, 0.2]})
    time.sleep(TRAFFIC_SECONDS)
    written = written_in(cluster, namespace, after=position)
    assert {w.what for w in written} == {"patch llmdeployments/status"}
    times: defaultdict[str, list[float]] = defaultdict(list)
    for write in written:
        times[write.name].append(write.answered_at)
    assert set(times) >= {"chat", "wide", *names}
    apart = [later - earlier for told in times.values() for earlier, later in pairwise(told)]
    assert all(seconds >= 59 for seconds in apart)


def _verified(cluster: Cluster, namespace: str) -> int:
    wanted = {("CapacityVerified", "True"), ("Ready", "True")}
    found = cluster.find("llmdep", namespace=namespace)
    return sum(
        wanted <= {(c["type"], c["status"]) for c in body.get("status", {}).get("conditions", [])}
        for body in found
    )


def _written_at_rest(cluster: Cluster, namespace: str) -> list[Write]:
    position = settled(cluster, namespace)
    time.sleep(REST_SECONDS)
    seen = written_in(cluster, namespace, after=position)
    assert [w.what for w in cluster.audit.writes(after=position, user=ACCOUNT, resource="leases")]
    return seen
