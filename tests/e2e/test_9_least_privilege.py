"""Last of all: the operator's rights are those that it used, no more and no fewer; its pods are restricted.

What a whole run of these tests asked of the API server is compared with the chart. The scenario at the top
makes the file complete without the others: it asks for everything the operator ever asks for.
"""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import yaml

from cluster.objects import condition, llm, plan_map, uid, wait_for
from harness import chart
from harness.audit import Request
from harness.cluster import Cluster
from harness.group_sets import install_definition, remove_definition
from harness.restricted import SeenPods, faults
from harness.rights import Grant, granted, used
from harness.steps import say
from harness.waiting import wait_until
from unit.gpus import clusters

pytestmark = pytest.mark.e2e
START_SECONDS = 600
_PAPER = ("paper-0", "paper-1")
OPERATOR = f"system:serviceaccount:{chart.NAMESPACE}:{chart.RELEASE}"
LEASE = f"{chart.RELEASE}-operator"
# kopf looks for its kinds there; every authenticated user may (ClusterRole system:discovery)
DISCOVERY = {"api", "apis"}


@pytest.fixture(scope="module")
def asked(cluster: Cluster, namespace: str, started_at: int) -> list[Request]:
    """What the operator asked for since it was installed: everything it can be made to ask for."""
    _a_plan_replaces_another(cluster, namespace)
    _edits_by_hand_are_reverted(cluster, namespace)
    _a_failed_inspection_is_repeated(cluster, namespace)
    _templates_of_claims_come_and_go_with_their_plans(cluster, namespace)
    _workloads_take_over_from_each_other(cluster, namespace)
    _the_lease_is_lost_made_anew_and_given_up(cluster)
    return cluster.audit.requests(after=started_at, user=OPERATOR)


def _a_plan_replaces_another(cluster: Cluster, namespace: str) -> None:
    body = llm(template={"resources": {"cpu": "250m"}})
    cluster.apply(body, namespace=namespace)
    wait_for(cluster, "Ready", "True", namespace=namespace, seconds=START_SECONDS)
    old = plan_map(cluster, namespace=namespace)["metadata"]["name"]
    body["spec"]["workload"]["concurrency"] = 12
    cluster.apply(body, namespace=namespace)
    wait_until(
        "the old plan to be pruned",
        lambda: not uid(cluster, "configmap", old, namespace=namespace),
        seconds=START_SECONDS,
    )


def _edits_by_hand_are_reverted(cluster: Cluster, namespace: str) -> None:
    """Of all children, the disruption budget of two replicas too; it goes when there is one again."""
    cluster.kubectl("scale", "llmdep/chat", "--replicas=2", "-n", namespace)
    wait_until("a budget", lambda: uid(cluster, "poddisruptionbudget", "chat", namespace=namespace))
    plan = plan_map(cluster, namespace=namespace)["metadata"]["name"]
    for kind in ("deployment", "service", "poddisruptionbudget", "configmap"):
        _a_lost_label_is_mended(cluster, kind, plan if kind == "configmap" else "chat", namespace=namespace)
    cluster.kubectl("scale", "llmdep/chat", "--replicas=1", "-n", namespace)
    wait_until(
        "the budget to go", lambda: not uid(cluster, "poddisruptionbudget", "chat", namespace=namespace)
    )


def _a_lost_label_is_mended(cluster: Cluster, kind: str, name: str, *, namespace: str) -> None:
    """Without it the operator does not see the object any more, and asks whose it is."""
    label = "app.kubernetes.io/managed-by"
    cluster.patch(kind, name, {"metadata": {"labels": {label: "somebody"}}}, namespace=namespace)

    def mended() -> bool:
        body = cluster.get(kind, name, namespace=namespace) or {"metadata": {}}
        return bool(body["metadata"].get("labels", {}).get(label) == "tonnage")

    wait_until(f"the label of the {kind}", mended, seconds=120)


def _a_failed_inspection_is_repeated(cluster: Cluster, namespace: str) -> None:
    cluster.apply(llm("lost", model={"uri": "pvc://models/nope"}), namespace=namespace)
    why = "ModelPathMissing"
    wait_for(cluster, "ModelResolved", "False", namespace=namespace, name="lost", reason=why, seconds=120)
    labels = "tonnage.dev/component=inspect,tonnage.dev/deployment=lost"
    (job,) = cluster.find("jobs", namespace=namespace, labels=labels)
    first = job["metadata"]
    _a_lost_label_is_mended(cluster, "job", first["name"], namespace=namespace)

    def anew() -> bool:
        return uid(cluster, "job", first["name"], namespace=namespace) not in ("", first["uid"])

    wait_until("another inspection", anew, seconds=300)


def _templates_of_claims_come_and_go_with_their_plans(cluster: Cluster, namespace: str) -> None:
    """The node gets a GPU on paper. No worker is wanted, since none could start."""
    published = _a_gpu_to_claim(cluster)
    cluster.apply(*published)
    try:
        body = llm("claims", hardware={"accelerator": "GPU"}, replicas=0)
        cluster.apply(body, namespace=namespace)
        name = _template(cluster, namespace)
        _a_lost_label_is_mended(cluster, "resourceclaimtemplates", name, namespace=namespace)
        body["spec"]["workload"]["concurrency"] = 12
        cluster.apply(body, namespace=namespace)
        wait_until(
            "the template of the old plan to be pruned",
            lambda: not uid(cluster, "resourceclaimtemplates", name, namespace=namespace),
            seconds=120,
        )
        assert _template(cluster, namespace) != name
        cluster.delete("llmdep", "claims", namespace=namespace)
    finally:
        cluster.remove(*published)


def _workloads_take_over_from_each_other(cluster: Cluster, namespace: str) -> None:
    """Two nodes are there on paper. No worker is wanted, since none could start."""
    install_definition(cluster)
    body = llm("spread", hardware=_stages(2), replicas=0)
    try:
        cluster.apply(body, namespace=namespace)
        _planned_on_paper(cluster, namespace)
        (found,) = wait_until("a set", lambda: cluster.find("leaderworkersets", namespace=namespace))
        name = found["metadata"]["name"]
        _a_lost_label_is_mended(cluster, "leaderworkersets", name, namespace=namespace)
        body["spec"]["hardware"] = _stages(1)
        cluster.apply(body, namespace=namespace)
        _planned_on_paper(cluster, namespace)
        wait_until("a Deployment", lambda: uid(cluster, "deployment", "spread", namespace=namespace))
        wait_until("the set to go", lambda: not uid(cluster, "leaderworkersets", name, namespace=namespace))
        body["spec"]["hardware"] = _stages(2)
        cluster.apply(body, namespace=namespace)
        _planned_on_paper(cluster, namespace)
        wait_until(
            "the Deployment to go", lambda: not uid(cluster, "deployment", "spread", namespace=namespace)
        )
        cluster.delete("llmdep", "spread", namespace=namespace)
    finally:
        remove_definition(cluster)
        cluster.kubectl("delete", "nodes", *_PAPER, "--ignore-not-found")


def _stages(pipeline: int) -> dict[str, Any]:
    return {"accelerator": "GPU", "parallelism": {"tensor": 1, "pipeline": pipeline}}


def _planned_on_paper(cluster: Cluster, namespace: str) -> None:
    """Nodes that nobody reports on are Ready for a while; the plan is kept after that."""
    found = clusters.body("Node", "h100-0")
    for name in _PAPER:
        labels = {**found["metadata"]["labels"], "kubernetes.io/hostname": name}
        cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})

    def planned() -> bool:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = [{"type": "Ready", "status": "True", "lastHeartbeatTime": now}]
        amounts = {each: {**found["status"][each], clusters.GPU: "1"} for each in ("capacity", "allocatable")}
        for name in _PAPER:
            cluster.patch("node", name, {"status": {**amounts, "conditions": ready}}, subresource="status")
        told = condition(cluster, "Planned", namespace=namespace, name="spread")
        body = cluster.get("llmdep", "spread", namespace=namespace) or {"metadata": {}}
        return (told.get("status"), told.get("observedGeneration")) == (
            "True",
            body["metadata"]["generation"],
        )

    wait_until("a plan", planned, seconds=120, every_seconds=2)


def _template(cluster: Cluster, namespace: str) -> str:
    wait_for(cluster, "Planned", "True", namespace=namespace, name="claims", seconds=120)
    name: str = plan_map(cluster, namespace=namespace, name="claims")["metadata"]["name"]
    wait_until("a template", lambda: uid(cluster, "resourceclaimtemplates", name, namespace=namespace))
    return name


def _a_gpu_to_claim(cluster: Cluster) -> list[dict[str, Any]]:
    """What a driver for ResourceClaims would publish of one GPU of the node."""
    node = cluster.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    found = clusters.body("ResourceSlice", "dra-0-gpu.nvidia.com-x7k2p")
    pool = {**found["spec"]["pool"], "name": node}
    spec = {**found["spec"], "nodeName": node, "pool": pool, "devices": found["spec"]["devices"][:1]}
    published = {**found, "metadata": {"name": f"{node}-gpu"}, "spec": spec}
    return [clusters.body("DeviceClass", "gpu.nvidia.com"), published]


def _the_lease_is_lost_made_anew_and_given_up(cluster: Cluster) -> None:
    before = uid(cluster, "lease", LEASE, namespace=chart.NAMESPACE)
    cluster.delete("lease", LEASE, namespace=chart.NAMESPACE)
    wait_until(
        "a new lease",
        lambda: uid(cluster, "lease", LEASE, namespace=chart.NAMESPACE) not in ("", before),
        seconds=60,
    )
    chart.scale_operator(cluster, 0)
    held = cluster.get("lease", LEASE, namespace=chart.NAMESPACE) or {}
    assert not held["spec"].get("holderIdentity")
    chart.scale_operator(cluster, 1)


@pytest.fixture(scope="module")
def grants(cluster: Cluster) -> list[Grant]:
    """What the chart grants, as it was installed."""
    manifest = chart.installed(cluster)
    bound = {(b["roleRef"]["kind"], b["roleRef"]["name"]) for b in manifest if b["kind"].endswith("Binding")}
    roles = [b for b in manifest if (b["kind"], b["metadata"]["name"]) in bound]
    return granted(roles)


def test_the_rights_are_those_that_are_used(asked: list[Request], grants: list[Grant]) -> None:
    needed = {right for request in asked for right in used(request)}
    allowed = {grant.right for grant in grants}
    say(f"{len(asked)} requests of the operator used {len(needed)} rights")
    assert [str(right) for right in sorted(allowed - needed)] == [], "granted, but never used"
    assert [str(right) for right in sorted(needed - allowed)] == [], "used, but not granted"


def test_each_request_is_covered_where_it_was_made(asked: list[Request], grants: list[Grant]) -> None:
    uncovered = {
        (str(right), request.namespace, request.name)
        for request in asked
        for right in used(request)
        # a create has no name yet when its right is asked for
        if not any(g.covers(right, namespace=request.namespace, name=request.name) for g in grants)
    }
    assert uncovered == set()


def test_nothing_that_it_asked_for_was_forbidden(asked: list[Request]) -> None:
    refused = {(r.verb, r.path) for r in asked if r.forbidden or r.code == 401}
    assert refused == set()


def test_beside_resources_it_reads_discovery_at_most(asked: list[Request]) -> None:
    others = {(r.verb, r.path) for r in asked if not r.resource}
    assert {verb for verb, _ in others} <= {"get"}
    assert {path for _, path in others if path.split("/")[1] not in DISCOVERY} == set()


def _ours(pod: dict[str, Any]) -> str:
    """Which of our pods it is; empty if it is none."""
    meta = pod["metadata"]
    labels = meta.get("labels", {})
    if meta["namespace"] == chart.NAMESPACE:
        return "operator"
    made = labels.get("app.kubernetes.io/managed-by") == "tonnage"
    return str(labels.get("tonnage.dev/component", "?")) if made else ""


def test_all_pods_that_were_made_are_restricted(
    cluster: Cluster, asked: list[Request], seen_pods: SeenPods
) -> None:
    pods = [(kind, pod) for pod in seen_pods.all() if (kind := _ours(pod))]
    assert {kind for kind, _ in pods} == {"operator", "inspect", "worker"}
    say(f"{len(pods)} pods of the operator were looked at")
    found = {(kind, fault) for kind, pod in pods for fault in faults(pod, token=kind == "operator")}
    assert found == set()
    for kind, pod in pods:
        expected = chart.RELEASE if kind == "operator" else "default"
        assert pod["spec"]["serviceAccountName"] == expected


def test_no_token_is_kept_in_a_secret(cluster: Cluster, asked: list[Request]) -> None:
    kinds = cluster.kubectl("get", "secrets", "-A", "-o", "jsonpath={.items[*].type}").split()
    assert "kubernetes.io/service-account-token" not in kinds


def test_namespaces_with_our_pods_enforce_restricted(cluster: Cluster, namespace: str) -> None:
    for name in (chart.NAMESPACE, namespace):
        labels = yaml.safe_load(cluster.kubectl("get", "namespace", name, "-o", "yaml"))["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
