"""Releases that serve some namespaces each, with rights there alone: real operators on a real API server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cluster.conftest import HEALTH_PORT, PROFILE
from cluster.objects import condition, deployed, llm, plan_map, wait_for
from cluster.operator_process import (
    OperatorProcess,
    Release,
    apply_rights,
    install_rights,
    operator_process,
    rights,
)
from harness.chart import NAMESPACE
from harness.cluster import Cluster
from harness.models_volume import make_claim
from harness.simulation import add_nodes, inspections_end
from harness.waiting import wait_until
from unit.gpus import clusters

pytestmark = pytest.mark.cluster
PORT = HEALTH_PORT
ONE, TWO, NOBODYS, LATE = "served-one", "served-two", "served-by-nobody", "served-late"
LABELS = {"pod-security.kubernetes.io/enforce": "restricted"}


def serving(name: str, *namespaces: str, nodes: bool = True) -> Release:
    """A release that serves these namespaces."""
    names = ",".join(namespaces)
    return Release(name, (f"watchNamespaces={{{names}}}", f"rbac.nodes={str(nodes).lower()}"))


def make_namespace(cluster: Cluster, name: str) -> None:
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": LABELS}})


@pytest.fixture(scope="module")
def places(cluster: Cluster) -> Iterator[Cluster]:
    """Namespaces in which inspections find the small model."""
    with ExitStack() as stack:
        for name in (ONE, TWO, NOBODYS):
            make_namespace(cluster, name)
            stack.enter_context(inspections_end(cluster, PROFILE, namespace=name))
            make_claim(cluster, Path("/models"), namespace=name)
        yield cluster
    for name in (ONE, TWO, NOBODYS):
        cluster.delete("namespace", name, wait=False)
        cluster.delete("pv", f"{name}-models", wait=False)


def run(cluster: Cluster, stack: ExitStack, release: Release, *, port: int) -> OperatorProcess:
    """Its rights and its operator, until the stack ends."""
    install_rights(cluster, release)
    stack.callback(lambda: cluster.remove(*rights(release)))
    return stack.enter_context(operator_process(cluster, port=port, identity=release.name, release=release))


def refused(cluster: Cluster, release: Release, *, after: int) -> list[tuple[str, str]]:
    """What the account asked for and may not."""
    asked = cluster.audit.requests(after=after, user=release.account)
    assert asked, "the log holds no request of the operator"
    return sorted({(r.verb, r.path) for r in asked if r.forbidden})


def test_two_releases_serve_their_own_namespaces_and_leave_others_alone(places: Cluster) -> None:
    one, two = serving("first", ONE), serving("second", TWO)
    start = places.audit.position()
    with ExitStack() as stack:
        for number, release in enumerate((one, two)):
            run(places, stack, release, port=PORT + number)
        for namespace in (ONE, TWO, NOBODYS):
            places.apply(llm(), namespace=namespace)
        for namespace in (ONE, TWO):
            deployed(places, namespace)
            wait_for(places, "Available", "True", namespace=namespace)
        places.delete("service", "chat", namespace=ONE)
        wait_until("a new Service", lambda: places.get("service", "chat", namespace=ONE))
        time.sleep(2)
        for release, own in ((one, ONE), (two, TWO)):
            written = places.audit.writes(after=start, user=release.account)
            assert {w.namespace for w in written if w.resource != "leases"} == {own}
            assert {w.name for w in written if w.resource == "leases"} <= {"", f"{release.name}-operator"}
            assert refused(places, release, after=start) == []
        for name in ("first-operator", "second-operator"):
            assert places.get("lease", name, namespace=NAMESPACE) is not None
    body = places.get("llmdep", "chat", namespace=NOBODYS) or {}
    assert "status" not in body
    assert places.get("deployment", "chat", namespace=NOBODYS) is None


def test_a_restarted_operator_of_two_namespaces_writes_nothing(places: Cluster) -> None:
    release = serving("both", ONE, TWO)
    with ExitStack() as stack:
        run(places, stack, release, port=PORT)
        for namespace in (ONE, TWO):
            places.apply(llm(), namespace=namespace)
            wait_for(places, "Available", "True", namespace=namespace)
        time.sleep(2)
    position = places.audit.position()
    with ExitStack() as stack:
        operator = run(places, stack, release, port=PORT)
        wait_until("the lease", operator.leads)
        wait_until("a pass over each", lambda: operator.metric("tonnage_reconciles_total") >= 2)
        time.sleep(3)
        written = places.audit.writes(after=position, user=release.account)
        assert [w for w in written if w.resource != "leases"] == []


def test_without_nodes_nothing_new_is_planned_and_it_is_said_plainly(places: Cluster) -> None:
    release = serving("blind", ONE, nodes=False)
    start = places.audit.position()
    with ExitStack() as stack:
        operator = run(places, stack, release, port=PORT)
        places.apply(llm("unseen"), namespace=ONE)
        found = wait_for(places, "Planned", "False", namespace=ONE, name="unseen", reason="NoUsableNode")
        assert "nodes cannot be read" in found["message"]
        assert "rbac.nodes" in found["message"]
        assert condition(places, "Ready", namespace=ONE, name="unseen")["message"] == found["message"]
        assert operator.page("/healthz")
        assert refused(places, release, after=start) == []
    places.delete("llmdep", "unseen", namespace=ONE)


def test_without_nodes_plans_are_made_for_the_gpus_that_are_stated(places: Cluster) -> None:
    """One node of one GPU, tainted as such nodes are; the operator never sees it."""
    node = clusters.body("Node", "h100-0")
    node["metadata"]["labels"]["room"] = ONE
    product = node["metadata"]["labels"][f"{clusters.GPU}.product"]
    stated = {"nodes": "1", "devicesPerNode": "1", "nodeCPU": "100", "nodeMemory": "1000Gi"}
    stated |= {"product": product, r"nodeLabels.nvidia\.com/gpu\.product": product}
    values = tuple(f"inventory.pools[0].{name}={value}" for name, value in stated.items())
    unseeing = serving("stated", ONE, nodes=False)
    release = Release(unseeing.name, (*unseeing.values, *values))
    start = places.audit.position()
    gpu = {"hardware": {"accelerator": "GPU"}, "template": {"nodeSelector": {"room": ONE}}}
    with ExitStack() as stack:
        add_nodes(places, node)
        stack.callback(lambda: places.remove(node))
        run(places, stack, release, port=PORT)
        places.apply(llm("first", **gpu), namespace=ONE)
        wait_for(places, "Available", "True", namespace=ONE, name="first")
        places.apply(llm("second", **gpu), namespace=ONE)
        found = wait_for(places, "Planned", "False", namespace=ONE, name="second", reason="NotEnoughGpus")
        assert f"1 by {ONE}/first" in found["message"]
        places.delete("llmdep", "first", namespace=ONE)
        wait_for(places, "Available", "True", namespace=ONE, name="second")
        (pod,) = (
            pod
            for pod in places.find("pods", namespace=ONE, labels="tonnage.dev/deployment=second")
            if pod["metadata"]["labels"]["tonnage.dev/component"] == "worker"
        )
        assert pod["spec"]["nodeName"] == "h100-0"
        assert refused(places, release, after=start) == []
        places.delete("llmdep", "second", namespace=ONE)
        places.kubectl("delete", "pods", "--all", "-n", ONE, "--grace-period=0", "--force")


def test_nodes_that_are_forbidden_all_the_same_are_said_and_seen_once_granted(places: Cluster) -> None:
    granted = serving("seeing", ONE)
    with ExitStack() as stack:
        install_rights(places, serving("seeing", ONE, nodes=False))
        stack.callback(lambda: places.remove(*rights(granted)))
        operator = stack.enter_context(
            operator_process(places, port=PORT, identity="seeing", release=granted)
        )
        places.apply(llm("later"), namespace=ONE)
        found = wait_for(places, "Planned", "False", namespace=ONE, name="later", reason="NoUsableNode")
        assert "nodes cannot be read" in found["message"]
        assert operator.page("/healthz")
        install_rights(places, granted)
        wait_for(places, "Planned", "True", namespace=ONE, name="later", seconds=120)
        assert operator.process.poll() is None
    places.delete("llmdep", "later", namespace=ONE)


def test_a_namespace_that_comes_late_and_goes_again_ends_nothing(places: Cluster) -> None:
    release = serving("patient", ONE, LATE)
    start = places.audit.position()
    present = [body for body in rights(release) if body["metadata"].get("namespace") != LATE]
    with ExitStack() as stack:
        places.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        apply_rights(places, present)
        stack.callback(lambda: places.remove(*present))
        operator = stack.enter_context(
            operator_process(places, port=PORT, identity="patient", release=release)
        )
        places.apply(llm("early"), namespace=ONE)
        wait_for(places, "Planned", "True", namespace=ONE, name="early")
        missed = refused(places, release, after=start)
        assert missed
        assert all(f"/namespaces/{LATE}/" in path for _, path in missed)

        make_namespace(places, LATE)
        make_claim(places, Path("/models"), namespace=LATE)
        with inspections_end(places, PROFILE, namespace=LATE):
            install_rights(places, release)
            places.apply(llm(), namespace=LATE)
            wait_for(places, "Available", "True", namespace=LATE, seconds=150)
            assert plan_map(places, namespace=LATE)
        places.delete("namespace", LATE)
        places.delete("pv", f"{LATE}-models", wait=False)

        places.apply(llm("early", replicas=2), namespace=ONE)
        wait_for(places, "Available", "True", namespace=ONE, name="early", seconds=90)
        assert operator.process.poll() is None
        assert operator.page("/healthz")
        assert operator.page("/readyz")
    places.delete("llmdep", "early", namespace=ONE)
