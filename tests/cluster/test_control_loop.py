"""The control loop against a real API server: what is made, healed, refused, and left alone."""

from __future__ import annotations

import time

import pytest

from cluster.objects import NOT_BUILT, condition, deployed, generation, llm, plan_map, uid, wait_for
from cluster.operator_process import ACCOUNT, OperatorProcess
from harness.cluster import Cluster
from harness.simulation import add_node, remove_node
from harness.waiting import wait_until

pytestmark = pytest.mark.cluster
CHILDREN = ("deployment", "service", "poddisruptionbudget", "configmap", "job")
OURS = "app.kubernetes.io/managed-by=tonnage"


def children(cluster: Cluster, namespace: str) -> list[tuple[str, str]]:
    return [
        (kind, body["metadata"]["name"])
        for kind in CHILDREN
        for body in cluster.find(kind, namespace=namespace, labels=OURS)
    ]


def test_an_object_becomes_plan_service_budget_and_deployment(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    start = cluster.audit.position()
    cluster.apply(llm(), namespace=namespace)
    deployed(cluster, namespace)
    wait_for(cluster, "Available", "True", namespace=namespace)
    body = cluster.get("llmdep", "chat", namespace=namespace)
    assert body is not None
    plan = body["status"]["plan"]
    deployment = cluster.get("deployment", "chat", namespace=namespace)
    assert deployment is not None
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    given = arguments[arguments.index("--kv-cache-memory-bytes") + 1]
    assert int(given) == plan["kv"]["blocks"] * plan["kv"]["bytesPerBlock"]
    assert plan_map(cluster, namespace=namespace)["immutable"] is True
    refused = [w for w in cluster.audit.writes(after=start, user=ACCOUNT) if w.code >= 400]
    assert refused == []


@pytest.mark.parametrize("kind", ["deployment", "service", "poddisruptionbudget", "configmap"])
def test_a_deleted_child_comes_back(
    cluster: Cluster, operator: OperatorProcess, namespace: str, kind: str
) -> None:
    cluster.apply(llm(replicas=2), namespace=namespace)
    deployed(cluster, namespace)
    name = plan_map(cluster, namespace=namespace)["metadata"]["name"] if kind == "configmap" else "chat"
    before = wait_until(kind, lambda: uid(cluster, kind, name, namespace=namespace))
    cluster.delete(kind, name, namespace=namespace)
    wait_until(
        f"a new {kind}", lambda: uid(cluster, kind, name, namespace=namespace) not in ("", before), seconds=50
    )


def test_a_budget_is_there_for_more_than_one_replica(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    def budget() -> str:
        return uid(cluster, "poddisruptionbudget", "chat", namespace=namespace)

    cluster.apply(llm(), namespace=namespace)
    deployed(cluster, namespace)
    assert not budget()
    cluster.kubectl("scale", "llmdep/chat", "--replicas=2", "-n", namespace)
    wait_until("a budget", budget)
    cluster.kubectl("scale", "llmdep/chat", "--replicas=1", "-n", namespace)
    wait_until("the budget to go", lambda: not budget())


def test_our_fields_are_reverted_and_others_left_alone(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    cluster.apply(llm(), namespace=namespace)
    deployed(cluster, namespace)
    edit = {
        "metadata": {"annotations": {"team": "a"}, "labels": {"tonnage.dev/component": "stolen"}},
        "spec": {
            "replicas": 7,
            "minReadySeconds": 3,
            "template": {"metadata": {"labels": {"tonnage.dev/plan": "x"}}},
        },
    }
    cluster.patch("deployment", "chat", edit, namespace=namespace)
    cluster.patch("service", "chat", {"spec": {"ports": [{"name": "http", "port": 81}]}}, namespace=namespace)

    def reverted() -> bool:
        body = cluster.get("deployment", "chat", namespace=namespace) or {}
        service = cluster.get("service", "chat", namespace=namespace) or {}
        return (
            body["spec"]["replicas"] == 1
            and body["metadata"]["labels"]["tonnage.dev/component"] == "worker"
            and body["spec"]["template"]["metadata"]["labels"]["tonnage.dev/plan"] != "x"
            and 80 in [port["port"] for port in service["spec"]["ports"]]
        )

    wait_until("our fields", reverted, seconds=50)
    body = cluster.get("deployment", "chat", namespace=namespace) or {}
    assert body["metadata"]["annotations"]["team"] == "a"
    assert body["spec"]["minReadySeconds"] == 3


def test_what_the_spec_no_longer_says_goes(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    cluster.apply(llm(engine={"env": [{"name": "LOUD", "value": "1"}]}), namespace=namespace)
    deployed(cluster, namespace)

    def names() -> set[str]:
        body = cluster.get("deployment", "chat", namespace=namespace) or {}
        return {variable["name"] for variable in body["spec"]["template"]["spec"]["containers"][0]["env"]}

    assert "LOUD" in names()
    cluster.apply(llm(), namespace=namespace)
    wait_until("the variable to go", lambda: "LOUD" not in names(), seconds=50)


def test_labels_of_a_plan_are_mended_and_its_workers_left_alone(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    cluster.apply(llm(), namespace=namespace)
    wait_for(cluster, "Available", "True", namespace=namespace)
    before = generation(cluster, namespace)
    plan = plan_map(cluster, namespace=namespace)["metadata"]
    cluster.patch("configmap", plan["name"], {"metadata": {"ownerReferences": None}}, namespace=namespace)
    cluster.patch("service", "chat", {"metadata": {"ownerReferences": None}}, namespace=namespace)
    for kind, name in (("configmap", plan["name"]), ("service", "chat")):
        wait_until(
            f"the owner of {kind}",
            lambda kind=kind, name=name: (  # type: ignore[misc]
                (cluster.get(kind, name, namespace=namespace) or {})["metadata"].get("ownerReferences")
            ),
            seconds=50,
        )
    for label, value in (
        ("tonnage.dev/plan", "oops"),
        ("tonnage.dev/plan", None),
        ("tonnage.dev/deployment", None),
        ("app.kubernetes.io/managed-by", "me"),
    ):
        cluster.patch(
            "configmap", plan["name"], {"metadata": {"labels": {label: value}}}, namespace=namespace
        )

        def mended() -> bool:
            body = cluster.get("configmap", plan["name"], namespace=namespace)
            return body is not None and body["metadata"]["labels"] == plan["labels"]

        wait_until(f"the label {label}", mended, seconds=50)
    time.sleep(1)
    assert generation(cluster, namespace) == before
    assert len(cluster.find("configmaps", namespace=namespace, labels=OURS)) == 1


def test_a_deleted_plan_comes_back_as_it_was_though_its_node_is_gone(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    node = f"gone-{namespace}"[:60]
    add_node(cluster, node, memory="64Gi", labels={"room": namespace})
    cluster.apply(llm(template={"nodeSelector": {"room": namespace}}), namespace=namespace)
    deployed(cluster, namespace)
    plan = plan_map(cluster, namespace=namespace)
    remove_node(cluster, node)
    name = plan["metadata"]["name"]
    cluster.delete("configmap", name, namespace=namespace)
    back = wait_until("the plan", lambda: cluster.get("configmap", name, namespace=namespace), seconds=50)
    assert back["data"] == plan["data"]


def test_a_demand_that_leads_to_the_same_plan_rolls_nothing(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    cluster.apply(llm(), namespace=namespace)
    wait_for(cluster, "Available", "True", namespace=namespace)
    before = generation(cluster, namespace)
    cluster.apply(llm(cache={"prefixCaching": "Enabled"}), namespace=namespace)
    wait_for(cluster, "Planned", "True", namespace=namespace)
    cluster.apply(llm(template={"resources": {"cpu": "1"}}), namespace=namespace)
    wait_for(cluster, "Ready", "True", namespace=namespace)
    assert generation(cluster, namespace) == before
    assert len(cluster.find("configmaps", namespace=namespace, labels=OURS)) == 1


def test_what_was_deployed_is_healed_while_a_change_is_refused(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    cluster.apply(llm(), namespace=namespace)
    wait_for(cluster, "Available", "True", namespace=namespace)
    plan = plan_map(cluster, namespace=namespace)["metadata"]["name"]
    cluster.apply(llm(cache=NOT_BUILT), namespace=namespace)
    wait_for(cluster, "Accepted", "False", namespace=namespace, reason="NotSupportedYet")
    for kind, name in (("configmap", plan), ("service", "chat"), ("deployment", "chat")):
        cluster.delete(kind, name, namespace=namespace)
        wait_until(
            f"{kind} {name}",
            lambda kind=kind, name=name: cluster.get(kind, name, namespace=namespace),  # type: ignore[misc]
            seconds=50,
        )
    assert condition(cluster, "Ready", namespace=namespace)["reason"] == "NotSupportedYet"


def test_an_object_made_anew_with_a_refused_spec_makes_nothing_of_the_old_one(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    cluster.apply(llm(), namespace=namespace)
    wait_for(cluster, "Available", "True", namespace=namespace)
    cluster.delete("llmdep", "chat", namespace=namespace)
    cluster.apply(llm(cache=NOT_BUILT), namespace=namespace)
    wait_for(cluster, "Accepted", "False", namespace=namespace, reason="NotSupportedYet")
    wait_until("nothing to be left", lambda: not children(cluster, namespace), seconds=60)
    time.sleep(3)
    assert children(cluster, namespace) == []


def test_the_plan_of_old_pods_stays_while_a_roll_out_waits(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    node = f"tight-{namespace}"[:60]
    add_node(cluster, node, memory="16Gi", labels={"room": namespace})
    # somebody else's pod leaves room for the first plan, never for the second
    filler = {"name": "x", "image": "x", "resources": {"requests": {"memory": "12Gi"}}}
    body = {"metadata": {"name": node}, "spec": {"nodeName": node, "containers": [filler]}}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", **body})
    selector = {"nodeSelector": {"room": namespace}}
    cluster.apply(llm(template=selector), namespace=namespace)
    wait_for(cluster, "Available", "True", namespace=namespace)
    old = plan_map(cluster, namespace=namespace)["metadata"]["name"]
    large = {"contextLength": 8192, "concurrency": 64, "typicalTokens": 4096}
    cluster.apply(llm(template=selector, workload=large), namespace=namespace)
    wait_for(cluster, "Planned", "True", namespace=namespace)
    found = wait_for(cluster, "Progressing", "True", namespace=namespace, reason="RollingOut")
    assert "has no node" in wait_until(
        "the cause",
        lambda: (
            (text := condition(cluster, "Progressing", namespace=namespace)["message"])
            and "has no node" in text
            and text
        ),
    ), found
    cluster.kubectl("delete", "pod", "-l", "tonnage.dev/component=worker", "-n", namespace, "--force")
    time.sleep(2)
    assert cluster.get("configmap", old, namespace=namespace) is not None
    cluster.kubectl("delete", "pod", node, "--force")
    remove_node(cluster, node)


def test_a_quota_that_refuses_the_inspection_is_said_and_lifting_it_mends(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
    cluster.apply({**quota, "spec": {"hard": {"count/jobs.batch": "0"}}}, namespace=namespace)
    cluster.apply(llm(), namespace=namespace)
    found = wait_for(cluster, "Degraded", "True", namespace=namespace, reason="ApplyRefused")
    assert "quota" in found["message"]
    assert condition(cluster, "Ready", namespace=namespace)["message"] == found["message"]
    cluster.delete("resourcequota", "none", namespace=namespace)
    wait_for(cluster, "Planned", "True", namespace=namespace, seconds=120)


def test_a_quota_that_refuses_the_pods_is_said(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}}
    cluster.apply({**quota, "spec": {"hard": {"requests.memory": "1Gi"}}}, namespace=namespace)
    cluster.apply(llm(), namespace=namespace)
    found = wait_for(cluster, "Degraded", "True", namespace=namespace, reason="FailedCreate")
    assert "quota" in found["message"]


def test_a_refused_change_leaves_what_serves_and_mending_it_goes_on(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    cluster.apply(llm(), namespace=namespace)
    wait_for(cluster, "Available", "True", namespace=namespace)
    before = generation(cluster, namespace)
    for bad, kind, reason in (
        ({"workload": {"contextLength": 1_000_000}}, "Planned", "ContextTooLong"),
        ({"cache": NOT_BUILT}, "Accepted", "NotSupportedYet"),
        ({"cache": {"dtype": "int8_per_token_head"}}, "Planned", "UnsupportedKvDtype"),
        ({"engine": {"extraArgs": ["--max-model-len=9"]}}, "Accepted", "PinnedByPlan"),
        ({"engine": {"version": "0.1.0"}}, "Planned", "UnknownEngineVersion"),
        ({"template": {"resources": {"memory": "1Gi"}}}, "Planned", "MemoryRequestTooSmall"),
    ):
        cluster.apply(llm(**bad), namespace=namespace)
        wait_for(cluster, kind, "False", namespace=namespace, reason=reason)
        wait_for(cluster, "Ready", "False", namespace=namespace, reason=reason)
        assert condition(cluster, "Available", namespace=namespace)["status"] == "True"
        assert generation(cluster, namespace) == before
    cluster.apply(llm(workload={"contextLength": 4096, "concurrency": 4}), namespace=namespace)
    wait_for(cluster, "Planned", "True", namespace=namespace)
    wait_until("the new plan in the Deployment", lambda: generation(cluster, namespace) > before)


def test_the_plan_of_an_old_spec_goes_when_nothing_runs_by_it(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    cluster.apply(llm(), namespace=namespace)
    wait_for(cluster, "Available", "True", namespace=namespace)
    old = plan_map(cluster, namespace=namespace)["metadata"]["name"]
    cluster.apply(llm(workload={"contextLength": 4096}), namespace=namespace)
    wait_until("the old plan to go", lambda: cluster.get("configmap", old, namespace=namespace) is None)
    assert plan_map(cluster, namespace=namespace)["metadata"]["name"] != old


def test_what_waits_for_room_is_planned_when_a_node_comes(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    selected = llm(template={"nodeSelector": {"room": namespace}})
    cluster.apply(selected, namespace=namespace)
    wait_for(cluster, "Planned", "False", namespace=namespace, reason="NoUsableNode")
    add_node(cluster, f"small-{namespace}"[:60], memory="1Gi", labels={"room": namespace})
    found = wait_for(cluster, "Planned", "False", namespace=namespace, reason="NotEnoughMemory")
    assert "GiB" in found["message"]
    add_node(cluster, f"large-{namespace}"[:60], memory="64Gi", labels={"room": namespace})
    deployed(cluster, namespace)
    plan = plan_map(cluster, namespace=namespace)["metadata"]["name"]
    remove_node(cluster, f"small-{namespace}"[:60])
    remove_node(cluster, f"large-{namespace}"[:60])
    time.sleep(2)
    assert plan_map(cluster, namespace=namespace)["metadata"]["name"] == plan


def test_a_name_that_belongs_to_somebody_else_is_not_touched(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    cluster.kubectl("create", "service", "clusterip", "chat", "--tcp=1:1", "-n", namespace)
    theirs = cluster.get("service", "chat", namespace=namespace)
    cluster.apply(llm(), namespace=namespace)
    found = wait_for(cluster, "Degraded", "True", namespace=namespace, reason="NameTaken")
    assert "Service chat" in found["message"]
    assert cluster.get("service", "chat", namespace=namespace) == theirs
    assert cluster.get("deployment", "chat", namespace=namespace) is None


@pytest.mark.parametrize("pause", [0.0, 0.15, 0.5, 1.5])
def test_deleting_removes_everything_also_halfway(
    cluster: Cluster, operator: OperatorProcess, namespace: str, pause: float
) -> None:
    for number in range(3):
        cluster.apply(llm(f"chat{number}"), namespace=namespace)
    time.sleep(pause)
    for number in range(3):
        cluster.delete("llmdep", f"chat{number}", namespace=namespace)
    wait_until("nothing to be left", lambda: not children(cluster, namespace), seconds=60)
    # a late pass must not make them again
    time.sleep(3)
    assert children(cluster, namespace) == []
    assert operator.process.poll() is None


def test_refusals_do_not_loop_and_rest_is_quiet(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    cluster.apply(
        llm("good"),
        llm("long", workload={"contextLength": 1_000_000}),
        llm("nowhere", template={"nodeSelector": {"no": "such"}}),
        llm("garbage", cache={"dtype": "nvfp4"}),
        namespace=namespace,
    )
    wait_for(cluster, "Available", "True", namespace=namespace, name="good")
    for name in ("long", "nowhere", "garbage"):
        wait_for(cluster, "Planned", "False", namespace=namespace, name=name)
    time.sleep(3)
    position, passes = cluster.audit.position(), operator.metric("tonnage_reconciles_total")
    time.sleep(15)
    # namespaces of earlier tests may still be ending
    mine = [w for w in cluster.audit.writes(after=position, user=ACCOUNT) if w.namespace == namespace]
    assert mine == []
    # a worker that does not answer is asked less and less often; the refused ones wait for an event
    assert operator.metric("tonnage_reconciles_total") - passes <= 12
