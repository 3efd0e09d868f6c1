"""A private model of a hub on this machine: read by the inspection, downloaded and served by the real engine.

The public hub is not asked for anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.objects import condition, generation, llm, plan_map, wait_for
from e2e.engines import chat, check_plan_equals_engine, pods, serve_page, service_url
from harness import chart
from harness.cluster import Cluster
from harness.engine.models import SMOLLM2, models_directory
from harness.hub_server import HubServer, hub_server
from harness.images import catalogue
from harness.waiting import wait_until

pytestmark = pytest.mark.e2e
POD_GATEWAY = "10.244.0.1"
NAME = "acme/smollm2"
TOKEN = "hf_canaryThatNobodyMayEverSee42"
START_SECONDS = 900
EVERYTHING = "llmdep,deployments,replicasets,pods,jobs,services,configmaps,events,leases"


@pytest.fixture(scope="module")
def hub(cluster: Cluster) -> Iterator[HubServer]:
    """The hub, known to the operator by the chart's value, with one private model."""
    with hub_server("0.0.0.0", seen_as=POD_GATEWAY) as running:
        running.add(NAME, models_directory() / SMOLLM2, token=TOKEN)
        operator, worker = (cluster.load(image) for image in (catalogue.operator(), catalogue.worker_cpu()))
        chart.install(cluster, operator=operator, worker=worker, hub={"endpoint": running.url})
        yield running


def test_a_private_model_is_read_downloaded_served_and_its_token_seen_nowhere(
    cluster: Cluster, namespace: str, hub: HubServer
) -> None:
    commit = hub.repositories[NAME].refs["main"]
    model = {"uri": f"hf://{NAME}", "tokenSecret": {"name": "hub", "key": "token"}}
    resources = {"resources": {"cpu": "250m"}}
    cluster.apply(llm("hub", model=model, template=resources), namespace=namespace)
    missing = wait_for(
        cluster, "ModelResolved", "False", namespace=namespace, name="hub", reason="TokenSecretMissing"
    )
    assert 'secret "hub" not found' in missing["message"]

    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "hub"},
        "stringData": {"token": TOKEN},
    }
    cluster.apply(secret, namespace=namespace)
    resolved = wait_for(cluster, "ModelResolved", "True", namespace=namespace, name="hub", seconds=120)
    assert commit in resolved["message"]
    read = [one for one in hub.seen if one.server == "store"]
    assert {one.range for one in read} == {"bytes=0-65535"}  # headers, no weight

    wait_for(cluster, "Ready", "True", namespace=namespace, name="hub", seconds=START_SECONDS)
    check_plan_equals_engine(cluster, "hub", namespace=namespace)
    answer = chat(service_url(cluster, "hub", namespace=namespace), model="smollm2")
    assert "Paris" in answer["choices"][0]["message"]["content"]

    _a_refresh_that_finds_the_same_rolls_nothing(cluster, namespace)
    assert hub.tokens("hub") == {TOKEN}
    assert hub.tokens("store") == set()
    for place, text in _written(cluster, namespace):
        assert TOKEN not in text, place


def _a_refresh_that_finds_the_same_rolls_nothing(cluster: Cluster, namespace: str) -> None:
    before = generation(cluster, namespace, "hub")
    cluster.kubectl("annotate", "llmdep", "hub", "tonnage.dev/refresh-model=now", "-n", namespace)
    wait_until(
        "the refresh to be noted",
        lambda: (
            "tonnage.dev/refreshed"
            in plan_map(cluster, namespace=namespace, name="hub")["metadata"]["annotations"]
        ),
        seconds=120,
    )
    assert condition(cluster, "Ready", namespace=namespace, name="hub")["status"] == "True"
    assert generation(cluster, namespace, "hub") == before


def _written(cluster: Cluster, namespace: str) -> Iterator[tuple[str, str]]:
    """Everything that Tonnage writes or shows, and the arguments of every process of this machine."""
    for space in (namespace, chart.NAMESPACE):
        yield f"objects of {space}", cluster.kubectl("get", EVERYTHING, "-n", space, "-o", "json")
        for pod in cluster.find("pods", namespace=space):
            name = pod["metadata"]["name"]
            yield f"log of {name}", cluster.kubectl("logs", name, "-n", space, "--all-containers")
    (worker,) = pods(cluster, "hub", namespace=namespace)
    for page in ("/capacity", "/metrics", "/ready"):
        yield page, serve_page(worker, page)
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield str(arguments), arguments.read_bytes().decode(errors="replace")
        except OSError:
            continue
