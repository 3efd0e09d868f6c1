"""The command line beside the operator: the two decide alike, and what became of an object is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.command_line import tonnage
from cluster.objects import NOT_BUILT, deployed, llm, wait_for
from cluster.operator_process import OperatorProcess
from harness.cluster import Cluster
from harness.waiting import wait_until
from unit.models.samples import smollm2_config

pytestmark = pytest.mark.cluster
SMALL = {"contextLength": 1024, "concurrency": 2}


def planned(cluster: Cluster, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
    """What `tonnage plan` says of an object in this cluster."""
    done = tonnage(cluster, "plan", "-f", "-", "-n", namespace, "-o", "json", stdin=body)
    shown: dict[str, Any] = done.document["objects"][0]
    assert done.code == {"planned": 0, "does_not_fit": 1, "refused": 3}[shown["outcome"]], done
    return shown


def in_force(cluster: Cluster, namespace: str) -> dict[str, Any]:
    body = cluster.get("llmdep", "chat", namespace=namespace)
    assert body is not None
    plan: dict[str, Any] = body["status"]["plan"]
    return plan


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"workload": {"concurrency": 40}},
        {"workload": {**SMALL, "typicalTokens": 1000}},
        {"quality": "Lossless", "workload": SMALL},
        {"cache": {"dtype": "bfloat16"}, "workload": SMALL},
        {"cache": {"dtype": "fp8", "prefixCaching": "Disabled"}, "workload": SMALL},
        {"engine": {"verification": "Report", "version": "0.33.0"}, "workload": SMALL},
        {"template": {"resources": {"memory": "64Gi", "cpu": "4"}}, "workload": SMALL},
    ],
    ids=range(8),
)
def test_same_plan_before_and_after(
    cluster: Cluster, operator: OperatorProcess, namespace: str, spec: dict[str, Any]
) -> None:
    body = llm(**spec)
    before = planned(cluster, namespace, body)
    assert (before["kept"], before["standing"]["effect"]) == (False, "create")
    cluster.apply(body, namespace=namespace)
    wait_for(cluster, "Planned", "True", namespace=namespace)
    # what was planned from the catalogue has no hash: it stands for the files too
    assert {**in_force(cluster, namespace), "hash": None} == before["plan"]
    after = planned(cluster, namespace, body)
    assert after["plan"] == in_force(cluster, namespace)
    assert (after["kept"], after["model"]["origin"]) == (True, "plan")
    assert (after["standing"]["effect"], after["standing"]["changes"]) == ("keep", [])


def test_a_change_is_foretold(cluster: Cluster, operator: OperatorProcess, namespace: str) -> None:
    cluster.apply(llm(), namespace=namespace)
    deployed(cluster, namespace)
    old = in_force(cluster, namespace)["hash"]
    changed = llm(workload={"contextLength": 4096, "concurrency": 4})
    foretold = planned(cluster, namespace, changed)
    assert (foretold["standing"]["effect"], foretold["standing"]["plan_hash"]) == ("replace", old)
    assert {each["field"] for each in foretold["standing"]["changes"]} == {
        "workload.contextLength",
        "workload.concurrency",
        "workload.typicalTokens",
    }
    cluster.apply(changed, namespace=namespace)
    wait_for(cluster, "Planned", "True", namespace=namespace)
    assert in_force(cluster, namespace) == foretold["plan"]
    scaled = planned(cluster, namespace, {**changed, "spec": {**changed["spec"], "replicas": 2}})
    assert scaled["standing"]["effect"] == "keep"


@pytest.mark.parametrize(
    ("spec", "kind", "code"),
    [
        ({"workload": {"contextLength": 1_000_000}}, "Planned", 3),
        ({"workload": {"contextLength": 8192, "concurrency": 60000}}, "Planned", 1),
        ({"template": {"nodeSelector": {"no": "such"}}}, "Planned", 1),
        ({"template": {"resources": {"memory": "1Gi"}}}, "Planned", 3),
        ({"engine": {"version": "0.1.0"}}, "Planned", 3),
        ({"cache": {"dtype": "int8_per_token_head"}}, "Planned", 3),
        ({"cache": NOT_BUILT}, "Accepted", 3),
        ({"engine": {"extraArgs": ["--max-model-len=9"]}}, "Accepted", 3),
    ],
    ids=range(8),
)
def test_same_refusal(
    cluster: Cluster, operator: OperatorProcess, namespace: str, spec: dict[str, Any], kind: str, code: int
) -> None:
    body = llm(**spec)
    foretold = planned(cluster, namespace, body)
    cluster.apply(body, namespace=namespace)
    found = wait_for(cluster, kind, "False", namespace=namespace)
    assert (foretold["reason"], foretold["message"]) == (found["reason"], found["message"])
    told = tonnage(cluster, "explain", "chat", "-n", namespace)
    assert told.code == 3
    assert f"{namespace}/chat: refused" in told.output
    assert " ".join(found["message"].split()) in told.words
    assert "next: " in told.output
    shown = tonnage(cluster, "explain", "chat", "-n", namespace, "-o", "json").document
    assert (shown["refused"], shown["ready"], shown["planned"], shown["plan"]) == (True, False, False, None)


def test_explain_a_plan_whose_engines_start(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    cluster.apply(llm(), namespace=namespace)
    wait_for(cluster, "Available", "True", namespace=namespace)
    shown = tonnage(cluster, "explain", "llmdep/chat", "-n", namespace, "-o", "json").document
    assert shown["planned"]
    assert shown["plan"] == in_force(cluster, namespace)
    assert shown["rollout"]["plan_hash"] == shown["plan"]["hash"]
    assert [pod["component"] for pod in shown["pods"]].count("worker") == 1
    told = tonnage(cluster, "explain", "chat", "-n", namespace)
    assert told.code == {True: 0, False: 1}[shown["ready"]]
    assert f"plan {shown['plan']['hash']} for vLLM" in told.words
    assert "no engine of this plan has reported yet" in told.words
    assert "CapacityVerified is Unknown" in told.words


def test_explain_a_refused_change_says_that_the_old_plan_serves(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    cluster.apply(llm(), namespace=namespace)
    deployed(cluster, namespace)
    plan = in_force(cluster, namespace)["hash"]
    cluster.apply(llm(cache=NOT_BUILT), namespace=namespace)
    wait_for(cluster, "Accepted", "False", namespace=namespace)
    told = tonnage(cluster, "explain", "chat", "-n", namespace)
    assert told.code == 3
    assert (
        f"plan {plan} for vLLM 0.32.0, made for the spec as it was before: it goes on serving" in told.words
    )
    foretold = tonnage(cluster, "plan", "-f", "-", "-n", namespace, stdin=llm(cache=NOT_BUILT))
    assert f"plan {plan} is in force: what it serves goes on" in foretold.words


def test_a_config_of_the_model_gives_the_operators_plan(
    cluster: Cluster, operator: OperatorProcess, namespace: str, tmp_path: Path
) -> None:
    from json import dumps

    config = tmp_path / "config.json"
    config.write_text(dumps(smollm2_config()))
    body = llm(workload=SMALL)
    done = tonnage(
        cluster, "plan", "-f", "-", "-n", namespace, "--model", str(config), "-o", "json", stdin=body
    )
    cluster.apply(body, namespace=namespace)
    wait_for(cluster, "Planned", "True", namespace=namespace)
    assert {**in_force(cluster, namespace), "hash": None} == done.document["objects"][0]["plan"]


def test_manifests_are_those_that_the_operator_applied(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    import yaml

    cluster.apply(llm(), namespace=namespace)
    deployed(cluster, namespace)
    done = tonnage(
        cluster,
        *("plan", "-f", "-", "-n", namespace, "--manifests", "--worker-image", "tonnage/worker:test"),
        stdin=llm(),
    )
    assert done.code == 0, done
    for manifest in yaml.safe_load_all(done.output):
        name, kind = manifest["metadata"]["name"], manifest["kind"]
        live = wait_until(f"{kind} {name}", lambda k=kind, n=name: cluster.get(k, n, namespace=namespace))
        assert manifest["metadata"]["ownerReferences"] == live["metadata"]["ownerReferences"]
        assert manifest.get("data") == live.get("data")
        if kind == "Deployment":
            ours, theirs = (m["spec"]["template"]["spec"]["containers"][0] for m in (manifest, live))
            assert (ours["image"], ours["args"], ours["resources"]) == (
                theirs["image"],
                theirs["args"],
                theirs["resources"],
            )
