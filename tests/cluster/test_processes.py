"""Operators that start, stop and take over from each other."""

from __future__ import annotations

import signal
import time

import pytest

from cluster.conftest import HEALTH_PORT
from cluster.objects import deployed, llm, wait_for
from cluster.operator_process import install_rights, operator_process, settled, written_in
from harness import lifecycle
from harness.cluster import Cluster
from harness.waiting import wait_until

pytestmark = pytest.mark.cluster


def test_a_restarted_operator_writes_nothing_but_its_lease(cluster: Cluster, namespace: str) -> None:
    with operator_process(cluster, port=HEALTH_PORT, identity="before"):
        cluster.apply(llm(), llm("other"), namespace=namespace)
        for name in ("chat", "other"):
            wait_for(cluster, "Available", "True", namespace=namespace, name=name)
        settled(cluster, namespace)
    position = cluster.audit.position()
    with operator_process(cluster, port=HEALTH_PORT, identity="after") as operator:
        wait_until("the lease", operator.leads)
        wait_until("a pass", lambda: operator.metric("tonnage_reconciles_total") >= 2)
        time.sleep(3)
        written = written_in(cluster, namespace, after=position)
    assert written == []


def test_without_the_definition_the_operator_is_not_ready_and_says_why() -> None:
    cluster = lifecycle.start_simulated()
    try:
        install_rights(cluster)
        crd = "llmdeployments.tonnage.dev"
        cluster.delete("crd", crd)
        with operator_process(cluster, port=HEALTH_PORT + 2, identity="deaf", ready=False) as operator:
            time.sleep(3)
            assert not operator.page("/readyz")
            assert "watch of llmdeployments: 404" in operator.log.read_text()
            assert operator.stop() == 0
        with operator_process(cluster, port=HEALTH_PORT + 2, identity="heard", ready=False) as operator:
            install_rights(cluster)
            wait_until("the operator to be ready", lambda: operator.page("/readyz"))
            cluster.apply(llm())
            wait_for(cluster, "Planned", "False", namespace="default", reason="NoUsableNode")
            # a process that can no longer watch ends, so that Kubernetes starts one that waits
            cluster.delete("crd", crd)
            assert operator.process.wait(timeout=120) != 0
    finally:
        lifecycle.stop(cluster)


def test_one_of_two_operators_leads_and_the_other_takes_over(cluster: Cluster, namespace: str) -> None:
    with (
        operator_process(cluster, port=HEALTH_PORT, identity="one") as one,
        operator_process(cluster, port=HEALTH_PORT + 1, identity="two") as two,
    ):
        wait_until("one leader", lambda: one.leads() != two.leads())
        first, second = (one, two) if one.leads() else (two, one)
        assert second.page("/readyz")
        first.stop(signal.SIGKILL)
        cluster.apply(llm(), namespace=namespace)
        wait_until("the other to lead", second.leads, seconds=150)
        deployed(cluster, namespace)
        assert second.stop() == 0
    held = cluster.get("lease", "tonnage-operator", namespace="tonnage-system") or {}
    assert not held["spec"].get("holderIdentity")
