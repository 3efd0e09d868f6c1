"""The command line without an operator: what the API server holds is enough; rights, kubectl and names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.command_line import run, tonnage
from cluster.objects import llm
from harness.cluster import Cluster
from tonnage.cli.kube_yaml import read_documents
from tonnage.rendering.names import PLAN
from unit.cli.test_explain import ACCEPTED, PLANNED, RESOLVED, deployment, status
from unit.cli.test_kube_yaml import SCALARS
from unit.rendering.samples import HASH, report, worker

pytestmark = pytest.mark.cluster
VIEWER = "viewer"


@pytest.fixture
def viewer(cluster: Cluster, namespace: str) -> Path:
    """A kubeconfig that may read this namespace's LLMDeployments and what hangs on them, but no node."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": VIEWER}}
    read = ["get", "list"]
    rules = [
        {"apiGroups": ["tonnage.dev"], "resources": ["llmdeployments"], "verbs": read},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": read},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": read},
    ]
    group = {"apiGroup": "rbac.authorization.k8s.io"}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": VIEWER}}
    binding: dict[str, Any] = {
        **role,
        "kind": "RoleBinding",
        "roleRef": {**group, "kind": "Role", "name": VIEWER},
        "subjects": [{"kind": "ServiceAccount", "name": VIEWER, "namespace": namespace}],
    }
    cluster.apply(account, {**role, "rules": rules}, binding, namespace=namespace)
    return cluster.account_kubeconfig(VIEWER, namespace=namespace)


def verified(cluster: Cluster, namespace: str) -> None:
    """An object as the operator leaves it when its engines were verified."""
    cluster.apply(llm(), namespace=namespace)
    found = status(ACCEPTED, RESOLVED, PLANNED, workers=[worker(report())], deployed=deployment())
    cluster.patch("llmdep", "chat", {"status": found}, namespace=namespace, subresource="status")


def test_one_that_nobody_looked_at(cluster: Cluster, namespace: str) -> None:
    cluster.apply(llm(), namespace=namespace)
    told = tonnage(cluster, "explain", "chat", "-n", namespace)
    assert (told.code, told.complaint) == (1, "")
    assert "the operator has not looked at it yet" in told.words
    assert "1 x pvc://models/smollm2-135m-instruct; requests of at most 2,048 tokens" in told.words


def test_one_that_is_verified_and_then_changed(cluster: Cluster, namespace: str) -> None:
    verified(cluster, namespace)
    told = tonnage(cluster, "explain", "chat", "-n", namespace)
    assert told.code == 0, told
    assert "KV blocks 182 182" in told.words
    assert "equal; verified 1/1 pods" in told.words
    shown = tonnage(cluster, "explain", "chat", "-n", namespace, "-o", "json").document
    assert [row["equal"] for row in shown["comparison"]] == [True, True, True]
    cluster.apply(llm(workload={"contextLength": 1024}), namespace=namespace)
    told = tonnage(cluster, "explain", "chat", "-n", namespace)
    assert told.code == 1
    assert "its status is of generation 1, its spec 2" in told.words


def test_a_deployment_of_somebody_else_is_not_taken_for_ours(cluster: Cluster, namespace: str) -> None:
    verified(cluster, namespace)
    labels = {"app": "other"}
    container = {
        "name": "c",
        "image": "i",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    spec = {
        "replicas": 0,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": {**labels, PLAN: HASH}}, "spec": {"containers": [container]}},
    }
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "chat"}, "spec": spec}
    cluster.apply(body, namespace=namespace)
    assert "there is no Deployment yet" in tonnage(cluster, "explain", "chat", "-n", namespace).words


def test_a_list_of_one_namespace_and_of_all(cluster: Cluster, namespace: str) -> None:
    verified(cluster, namespace)
    cluster.apply(llm("other"), namespace=namespace)
    lines = tonnage(cluster, "explain", "-n", namespace).output.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "chat", "other"]
    assert lines[2].split()[-1] == "NotLookedAt"
    everywhere = tonnage(cluster, "explain", "-A")
    assert everywhere.code == 0
    assert f"{namespace} " in everywhere.output
    listed = tonnage(cluster, "explain", "-n", namespace, "-o", "json").document["objects"]
    assert [(each["name"], each["ready"]) for each in listed] == [("chat", True), ("other", False)]


def test_a_name_that_does_not_exist_ends_in_two_with_the_one_that_was_meant(
    cluster: Cluster, namespace: str
) -> None:
    cluster.apply(llm(), namespace=namespace)
    told = tonnage(cluster, "explain", "chta", "-n", namespace)
    assert (told.code, told.output) == (2, "")
    assert f"there is no LLMDeployment chta in namespace {namespace}" in told.complaint
    assert "did you mean chat?" in told.complaint


def test_without_the_right_to_list_nodes_plan_says_so(cluster: Cluster, namespace: str, viewer: Path) -> None:
    told = tonnage(cluster, "plan", "-f", "-", "-n", namespace, kubeconfig=viewer, stdin=llm())
    assert (told.code, told.output) == (2, "")
    assert "you may not list all nodes" in told.complaint
    assert "name a file with --node" in told.complaint


def test_explain_shows_what_it_may_and_says_what_it_may_not(
    cluster: Cluster, namespace: str, viewer: Path
) -> None:
    verified(cluster, namespace)
    told = tonnage(cluster, "explain", "chat", "-n", namespace, kubeconfig=viewer)
    assert told.code == 0, told
    assert f"you may not list pods in {namespace}" in told.words
    refused = tonnage(cluster, "explain", "chat", "-n", "default", kubeconfig=viewer)
    assert (refused.code, refused.output) == (2, "")
    assert "you may not get llmdeployments in default" in refused.complaint
    assert tonnage(cluster, "explain", "-A", kubeconfig=viewer).code == 2


def test_a_credential_that_is_not_known_is_told(cluster: Cluster, tmp_path: Path, viewer: Path) -> None:
    stale = tmp_path / "stale.kubeconfig"
    text = viewer.read_text()
    start = text.index('"token": "') + len('"token": "')
    stale.write_text(text[:start] + "stale" + text[text.index('"', start) :])
    told = tonnage(cluster, "explain", "chat", kubeconfig=stale)
    assert told.code == 2
    assert "renew the credentials" in told.complaint


def test_nothing_is_written(cluster: Cluster, namespace: str, viewer: Path) -> None:
    verified(cluster, namespace)
    start = cluster.audit.position()
    for words in (("explain", "chat"), ("explain",), ("plan", "-f", "-"), ("__complete", "explain", "")):
        tonnage(cluster, *words, kubeconfig=viewer, stdin=llm())
    account = f"system:serviceaccount:{namespace}:{VIEWER}"
    assert cluster.audit.writes(after=start, user=account) == []


def test_names_of_the_cluster_are_completed(cluster: Cluster, namespace: str) -> None:
    verified(cluster, namespace)
    cluster.apply(llm("other"), namespace=namespace)
    told = tonnage(cluster, "__complete", "explain", "-n", namespace, "ch")
    assert told.output == "chat\tReady\n:4\n"
    told = tonnage(cluster, "__complete", "explain", f"--namespace={namespace}", "")
    assert told.output == "chat\tReady\nother\n:4\n"
    told = tonnage(cluster, "__complete", "plan", "-n", namespace[:-1])
    assert told.output == f"{namespace}\tActive\n:4\n"


def test_kubectl_runs_and_completes_it_as_its_plugin(cluster: Cluster, namespace: str) -> None:
    verified(cluster, namespace)
    kubectl = cluster.program("kubectl")
    told = run(cluster, kubectl, "tonnage", "explain", "chat", "-n", namespace)
    assert (told.code, told.complaint) == (0, "")
    assert f"{namespace}/chat: Ready" in told.output
    help_text = run(cluster, kubectl, "tonnage", "plan", "--help").output
    assert help_text.startswith("usage: kubectl tonnage plan ")
    told = run(cluster, kubectl, "tonnage", "explain", "nope", "-n", namespace)
    assert (told.code, told.output) == (2, "")
    assert told.complaint.startswith("kubectl tonnage explain: there is no LLMDeployment nope")
    told = run(cluster, kubectl, "__complete", "tonnage", "pl")
    assert told.output.splitlines()[0] == "plan\ttell what the operator would make of an object"
    told = run(cluster, kubectl, "__complete", "tonnage", "explain", "-n", namespace, "")
    assert told.output.splitlines()[0] == "chat\tReady"


def test_scalars_are_read_as_kubectl_reads_them(cluster: Cluster, tmp_path: Path) -> None:
    lines = [f"  v{number}: {text}" for number, text in enumerate(SCALARS)]
    file = tmp_path / "scalars.yaml"
    head = ["apiVersion: v1", "kind: ConfigMap", "metadata: {name: a}", "values:"]
    file.write_text("\n".join([*head, *lines, ""]))
    words = ("create", "--dry-run=client", "--validate=false", "-o", "json", "-f", str(file))
    theirs = json.loads(cluster.kubectl(*words))["values"]
    assert theirs == read_documents(file.read_text())[0]["values"]
