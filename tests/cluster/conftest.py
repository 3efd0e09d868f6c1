"""The simulated cluster with the operator beside it, and a namespace per test."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.objects import inspected
from cluster.operator_process import OperatorProcess, install_rights, operator_process
from cluster.reliability import Report
from harness.cluster import Cluster
from harness.models_volume import make_claim
from harness.simulation import add_node, inspections_end

# several runs on one machine do not meet; a module takes up to four ports
HEALTH_PORT = 18500 + 4 * (os.getpid() % 2000)
# what the inspection writes for the small model; tests/e2e runs the real one
PROFILE = inspected("files-000000000001")


@pytest.fixture(scope="session")
def cluster(simulated_cluster: Cluster) -> Cluster:
    """The cluster with the operator's rights and one CPU node."""
    install_rights(simulated_cluster)
    add_node(simulated_cluster, "cpu-1", cpu="64", memory="256Gi")
    return simulated_cluster


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    """What this run finds; `make reliability` keeps it for docs/reliability.md."""
    found = Report()
    yield found
    if kept := os.environ.get("TONNAGE_RELIABILITY"):
        found.keep(Path(kept))


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> Iterator[OperatorProcess]:
    """An operator of this module."""
    with operator_process(cluster, port=HEALTH_PORT) as running:
        yield running


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of this test, in which inspections find the small model."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    with inspections_end(cluster, PROFILE, namespace=name):
        make_claim(cluster, Path("/models"), namespace=name)
        yield name
    # names are unique to tests: nothing waits for the end of a namespace
    cluster.delete("namespace", name, wait=False)
    cluster.delete("pv", f"{name}-models", wait=False)
