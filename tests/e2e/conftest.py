"""The real node with Tonnage installed by its chart, and a namespace with the models per module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import chart
from harness.cluster import Cluster
from harness.engine.models import models_directory
from harness.images import catalogue
from harness.models_volume import make_claim
from harness.restricted import SeenPods, watched_pods


@pytest.fixture(scope="session")
def started_at(real_cluster: Cluster) -> int:
    """Where the audit log ended before the operator was installed."""
    return real_cluster.audit.position()


@pytest.fixture(scope="session")
def seen_pods(real_cluster: Cluster) -> Iterator[SeenPods]:
    """All pods that there were since the session began."""
    with watched_pods(real_cluster) as seen:
        yield seen


@pytest.fixture(scope="session")
def cluster(real_cluster: Cluster, started_at: int, seen_pods: SeenPods) -> Cluster:
    """The real node with the operator running in it."""
    operator = real_cluster.load(catalogue.operator())
    worker = real_cluster.load(catalogue.worker_cpu())
    chart.install(real_cluster, operator=operator, worker=worker)
    return real_cluster


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A restricted namespace of this module, with a claim that holds the models."""
    name = request.module.__name__.rsplit(".", 1)[-1].replace("_", "-")
    with cluster.namespace(name):
        make_claim(cluster, models_directory(), namespace=name)
        yield name
