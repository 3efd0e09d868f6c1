"""`make bench-heal`: how long a child that was deleted by hand is away, on a real API server.

Beside each figure the control: deleting and making the same object by hand through kubectl, so that what the
API server and the client cost is known. The target is 5 s.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

from cluster.conftest import PROFILE
from cluster.objects import deployed, llm, plan_map, uid
from cluster.operator_process import install_rights, operator_process
from harness import lifecycle
from harness.cluster import Cluster
from harness.models_volume import make_claim
from harness.simulation import add_node, inspections_end
from harness.waiting import wait_until

NAMESPACE = "bench-heal"
ROUNDS = 10
KINDS = ("deployment", "service", "poddisruptionbudget", "configmap")


def main() -> None:
    """Print one line per kind: median and worst seconds away, the control, and their ratio."""
    cluster = lifecycle.start_simulated()
    try:
        install_rights(cluster)
        add_node(cluster, "cpu-1", cpu="64", memory="256Gi")
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        with (
            operator_process(cluster, port=18600, identity="bench"),
            inspections_end(cluster, PROFILE, namespace=NAMESPACE),
        ):
            make_claim(cluster, Path("/models"), namespace=NAMESPACE)
            cluster.apply(llm(replicas=2), namespace=NAMESPACE)
            deployed(cluster, NAMESPACE)
            _measure(cluster)
    finally:
        lifecycle.stop(cluster)


def _measure(cluster: Cluster) -> None:
    for kind in KINDS:
        name = plan_map(cluster, namespace=NAMESPACE)["metadata"]["name"] if kind == "configmap" else "chat"
        away = [_away(cluster, kind, name) for _ in range(ROUNDS)]
        control = [_control(cluster) for _ in range(ROUNDS)]
        median, floor = statistics.median(away), statistics.median(control)
        print(
            f"{kind:20} away: median {median:.2f} s, worst {max(away):.2f} s of {ROUNDS}; "
            f"by hand {floor:.2f} s; ratio {median / floor:.1f}; target 5 s",
            flush=True,
        )


def _away(cluster: Cluster, kind: str, name: str) -> float:
    old = uid(cluster, kind, name, namespace=NAMESPACE)
    cluster.delete(kind, name, namespace=NAMESPACE, wait=False)
    begun = time.monotonic()
    wait_until(
        kind,
        lambda: uid(cluster, kind, name, namespace=NAMESPACE) not in ("", old),
        seconds=60,
        every_seconds=0.01,
    )
    return time.monotonic() - begun


def _control(cluster: Cluster) -> float:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "by-hand"}}
    cluster.kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(body))
    cluster.delete("configmap", "by-hand", namespace=NAMESPACE, wait=False)
    begun = time.monotonic()
    cluster.kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(body))
    wait_until(
        "by hand", lambda: uid(cluster, "configmap", "by-hand", namespace=NAMESPACE), every_seconds=0.01
    )
    took = time.monotonic() - begun
    cluster.delete("configmap", "by-hand", namespace=NAMESPACE)
    return took


if __name__ == "__main__":
    main()
