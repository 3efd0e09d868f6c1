"""The API on a real API server: the same verdicts as the models give, and words that help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from cluster.objects import llm, wait_for
from cluster.operator_process import OperatorProcess
from harness.cluster import Cluster
from harness.paths import REPOSITORY
from harness.rest import Rest
from harness.steps import StepError
from harness.waiting import wait_until
from tonnage.api.acceptance import Refusal, accept
from tonnage.api.base import without_empty
from tonnage.api.crd import build_crd
from unit.api.generated import edited, specs
from unit.api.table import ROWS, Row, Verdict
from unit.rendering.test_status import HOSTILE, largest_status

pytestmark = pytest.mark.cluster
EXPLAINED = Path(__file__).parent / "explained"
ACCEPTED, STORED = 201, 200
REFUSED = {400, 422}


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Rest:
    """Requests through kept connections: hundreds of them take seconds."""
    assert cluster.rest is not None
    return cluster.rest


def try_create(api: Rest, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """What the API server would answer to a strict `kubectl create`: nothing is stored."""
    path = Rest.path("llmdeployments", namespace="default")
    return api.send("POST", f"{path}?dryRun=All&fieldValidation=Strict", body)


def defaulted(body: dict[str, Any]) -> Any:
    """The spec as the models fill it in; None where they refuse it."""
    outcome = accept(body)
    if isinstance(outcome, Refusal):
        return None
    return without_empty(outcome.model_dump(mode="json", by_alias=True, exclude_none=True))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_api_server_judges_as_the_table_says(api: Rest, row: Row) -> None:
    status, answer = try_create(api, row.body)
    if row.verdict in (Verdict.GOOD, Verdict.OPERATOR):
        assert status == ACCEPTED, answer
    else:
        assert status in REFUSED, answer
        assert row.where in answer["message"]
        assert row.says in answer["message"]
    if row.verdict is Verdict.GOOD:
        assert without_empty(answer["spec"]) == defaulted(row.body)


PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@PROPERTY
@given(spec=specs)
def test_both_judge_random_objects_alike(api: Rest, spec: dict[str, Any]) -> None:
    same_verdict(api, spec)


@PROPERTY
@given(spec=edited())
def test_both_judge_edited_objects_alike(api: Rest, spec: dict[str, Any]) -> None:
    same_verdict(api, spec)


def same_verdict(api: Rest, spec: dict[str, Any]) -> None:
    """Both accept and fill in alike, or both refuse."""
    body = {
        "apiVersion": "tonnage.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "random"},
        "spec": spec,
    }
    status, answer = try_create(api, body)
    outcome = accept(body)
    invalid = isinstance(outcome, Refusal) and outcome.reason == "InvalidSpec"
    assert status in {ACCEPTED, *REFUSED}, answer
    assert (status == ACCEPTED) is not invalid, (answer.get("message"), outcome)
    if not isinstance(outcome, Refusal):
        assert without_empty(answer["spec"]) == defaulted(body)


def test_an_unknown_field_is_pruned_where_the_client_does_not_ask_for_strictness(
    api: Rest, namespace: str
) -> None:
    body = llm(template={"hostNetwork": True, "volumes": [{**VOLUME, "hostPath": {"path": "/"}}]})
    path = Rest.path("llmdeployments", namespace=namespace)
    status, answer = api.send("POST", f"{path}?dryRun=All&fieldValidation=Ignore", body)
    assert status == ACCEPTED, answer
    assert answer["spec"]["template"] == {"volumes": [{**VOLUME, "readOnly": False}]}


VOLUME: dict[str, Any] = {"name": "a", "mountPath": "/mnt/a", "emptyDir": {}}


@pytest.mark.parametrize("filler", HOSTILE)
def test_the_largest_status_is_stored(api: Rest, namespace: str, filler: str) -> None:
    path = Rest.path("llmdeployments", namespace=namespace)
    body = llm("large", quality="Economy")
    assert api.send("POST", path, body)[0] == ACCEPTED
    wanted = largest_status(filler)
    patch = {"apiVersion": body["apiVersion"], "kind": body["kind"], "status": wanted}
    status, answer = api.send(
        "PATCH",
        f"{path}/large/status?fieldManager=test&force=true&fieldValidation=Strict",
        patch,
        content_type="application/apply-patch+yaml",
    )
    assert status == STORED, answer
    assert answer["status"] == wanted


def test_scaling_what_the_autoscaler_scales_is_refused_with_its_bounds(
    cluster: Cluster, namespace: str
) -> None:
    scaling = {"mode": "Internal", "internal": {"minReplicas": 2, "maxReplicas": 7}}
    cluster.apply(llm(scaling=scaling), namespace=namespace)
    for command in (
        ["scale", "llmdep/chat", "--replicas=3"],
        ["patch", "llmdep", "chat", "--type=merge", "-p", '{"spec":{"replicas":3}}'],
    ):
        with pytest.raises(StepError, match="from minReplicas 2 to maxReplicas 7 of"):
            cluster.kubectl(*command, "-n", namespace)
    body = cluster.get("llmdep", "chat", namespace=namespace) or {}
    assert "replicas" not in body["spec"]


@pytest.mark.parametrize("mode", ["None", "External"])
def test_kubectl_scale_is_followed(
    cluster: Cluster, operator: OperatorProcess, namespace: str, mode: str
) -> None:
    start = {"replicas": 1} if mode == "External" else {}
    cluster.apply(llm(scaling={"mode": mode}, **start), namespace=namespace)
    wait_for(cluster, "Available", "True", namespace=namespace)
    cluster.kubectl("scale", "llmdep/chat", "--replicas=3", "-n", namespace)

    def scaled() -> bool:
        deployment = cluster.get("deployment", "chat", namespace=namespace) or {}
        body = cluster.get("llmdep", "chat", namespace=namespace) or {}
        return deployment["spec"]["replicas"] == 3 and body["status"].get("replicas") == 3

    wait_until("three replicas", scaled, seconds=60)
    scale = scale_of(cluster, namespace)
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (3, 3)
    pods = cluster.find("pods", namespace=namespace, labels=scale["status"]["selector"])
    assert len(pods) == 3


def scale_of(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """What an autoscaler reads first."""
    path = f"/apis/tonnage.dev/v1alpha1/namespaces/{namespace}/llmdeployments/chat/scale"
    found: dict[str, Any] = json.loads(cluster.kubectl("get", "--raw", path))
    return found


def test_an_autoscaler_can_read_the_scale_before_anything_scaled(cluster: Cluster, namespace: str) -> None:
    cluster.apply(llm(scaling={"mode": "External"}, replicas=0), namespace=namespace)
    assert scale_of(cluster, namespace)["spec"].get("replicas", 0) == 0


def test_the_columns_are_those_of_the_design(cluster: Cluster, namespace: str) -> None:
    cluster.apply(llm(), namespace=namespace)
    header = cluster.kubectl("get", "llmdep", "-n", namespace).splitlines()[0].split()
    wanted = ["NAME", "READY", "GPU", "KV-DTYPE", "CONTEXT", "CONCURRENCY", "KV-USED", "PHASE", "AGE"]
    assert header == wanted
    wide = cluster.kubectl("get", "llmdep", "-n", namespace, "-o", "wide").splitlines()[0].split()
    assert wide == [*wanted, "MODEL", "REASON"]
    assert "chat" in cluster.kubectl("get", "all", "-n", namespace)


def test_two_who_apply_share_lists_and_maps_by_element(cluster: Cluster, api: Rest, namespace: str) -> None:
    path = f"/apis/tonnage.dev/v1alpha1/namespaces/{namespace}/llmdeployments/chat"

    def apply(manager: str, name: str, **fields: Any) -> dict[str, Any]:
        body = llm(**fields)
        body["spec"] |= {
            "engine": {"env": [{"name": name, "value": manager}]},
            "template": {
                "labels": {name.lower(): manager},
                "imagePullSecrets": [{"name": name.lower()}],
                "volumes": [{"name": name.lower(), "mountPath": f"/mnt/{name}", "emptyDir": {}}],
            },
        }
        query = f"fieldManager={manager}&fieldValidation=Strict"
        status, answer = api.send(
            "PATCH", f"{path}?{query}", body, content_type="application/apply-patch+yaml"
        )
        assert status in (ACCEPTED, STORED), answer
        return dict(answer["spec"])

    apply("one", "A")
    both = apply("two", "B")
    assert [variable["name"] for variable in both["engine"]["env"]] == ["A", "B"]
    assert both["template"]["labels"] == {"a": "one", "b": "two"}
    assert [one["name"] for one in both["template"]["imagePullSecrets"]] == ["a", "b"]
    assert [one["name"] for one in both["template"]["volumes"]] == ["a", "b"]


def test_an_autoscaler_of_kubernetes_can_scale_the_example(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", str(REPOSITORY / "examples" / "external-autoscaler.yaml"))

    def able() -> bool:
        body = cluster.get("hpa", "chat", namespace=namespace) or {}
        found = {c["type"]: (c["status"], c["reason"]) for c in body.get("status", {}).get("conditions", [])}
        return found.get("AbleToScale") == ("True", "SucceededGetScale")

    # kube-controller-manager learns of a new CustomResourceDefinition every 30 s, and looks every 15 s
    wait_until("the autoscaler to read the scale", able, seconds=90)


def test_what_is_applied_later_leaves_the_number_to_the_autoscaler(cluster: Cluster, namespace: str) -> None:
    cluster.apply(llm(scaling={"mode": "External"}, replicas=1), namespace=namespace)
    cluster.kubectl("scale", "llmdep/chat", "--replicas=3", "-n", namespace)
    cluster.apply(llm(scaling={"mode": "External"}, quality="Lossless"), namespace=namespace)
    assert scale_of(cluster, namespace)["spec"]["replicas"] == 3


def test_texts_beyond_the_basic_plane_reach_children_and_status(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    cluster.apply(llm(template={"annotations": {"example.com/note": "🚀 漢"}}), namespace=namespace)
    wait_for(cluster, "Available", "True", namespace=namespace)
    body = cluster.get("deployment", "chat", namespace=namespace) or {}
    assert body["spec"]["template"]["metadata"]["annotations"]["example.com/note"] == "🚀 漢"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_accepted(cluster: Cluster, path: Path) -> None:
    flags = ["--server-side", "--dry-run=server", "--validate=strict"]
    cluster.kubectl("apply", *flags, "-f", str(path))
    bodies = [body for body in yaml.safe_load_all(path.read_text()) if body["kind"] == "LLMDeployment"]
    assert bodies
    assert [accept(body) for body in bodies if isinstance(accept(body), Refusal)] == []


@pytest.mark.parametrize("path", sorted(EXPLAINED.glob("*.txt")), ids=lambda path: path.stem)
def test_kubectl_explain_reads_well(cluster: Cluster, path: Path) -> None:
    """The text is in the repository, to be read there; write it anew by `kubectl explain FIELD > FILE`."""
    cluster.kubectl("wait", "--for=condition=Established", "crd/llmdeployments.tonnage.dev")
    assert explained(cluster, path.stem) == lines(path.read_text())


def explained(cluster: Cluster, field: str) -> str:
    """What `kubectl explain` prints."""
    return lines(cluster.kubectl("explain", field))


def lines(text: str) -> list[str]:
    """Lines without spaces at their ends."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def test_an_object_that_a_newer_crd_would_refuse_can_still_be_changed_elsewhere(
    cluster: Cluster, api: Rest
) -> None:
    """What was stored stays usable after an upgrade of the CRD: only what changes must be valid."""
    crd = renamed(build_crd())
    path = "/apis/ratchet.tonnage.dev/v1alpha1/namespaces/default/ratchets"
    cluster.apply(renamed(build_crd(), loose=True))
    try:
        body = {**llm("old"), "apiVersion": "ratchet.tonnage.dev/v1alpha1", "kind": "Ratchet"}
        old = {
            **body["spec"],
            "model": {"uri": "s3://bucket/x"},
            "workload": {"typicalTokens": 4, "contextLength": 2},
        }
        status, answer = wait_until("the API", lambda: known(api, path, {**body, "spec": old}))
        assert status == ACCEPTED, answer
        cluster.apply(crd)
        merge = {"content_type": "application/merge-patch+json"}
        strict = wait_until(
            "the stricter CRD", lambda: refused(api, path, {**body, "metadata": {"name": "new"}, "spec": old})
        )
        assert "write pvc://CLAIM/DIRECTORY" in strict
        status, answer = api.send("PATCH", f"{path}/old", {"spec": {"replicas": 2}}, **merge)
        assert status == STORED, answer
        status, answer = api.send("PATCH", f"{path}/old", {"spec": {"model": {"uri": "s3://b/y"}}}, **merge)
        assert status in REFUSED, answer
    finally:
        cluster.delete("crd", crd["metadata"]["name"], wait=False)


def renamed(crd: dict[str, Any], *, loose: bool = False) -> dict[str, Any]:
    """The CRD under another group, so that nobody else sees it; `loose` without rules and patterns."""
    crd["metadata"]["name"] = "ratchets.ratchet.tonnage.dev"
    crd["spec"]["group"] = "ratchet.tonnage.dev"
    crd["spec"]["names"] = {"kind": "Ratchet", "plural": "ratchets", "singular": "ratchet"}
    return without_rules(crd) if loose else crd


def without_rules(schema: Any) -> Any:
    """A schema without rules and patterns, at any depth."""
    if isinstance(schema, list):
        return [without_rules(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    dropped = ("x-kubernetes-validations", "pattern")
    return {name: without_rules(child) for name, child in schema.items() if name not in dropped}


def known(api: Rest, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
    """The answer to a creation, as soon as the API server serves the kind."""
    answer = api.send("POST", path, body)
    return None if answer[0] == 404 else answer


def refused(api: Rest, path: str, body: dict[str, Any]) -> str:
    """The message of a refusal, as soon as there is one."""
    status, answer = api.send("POST", f"{path}?dryRun=All", body)
    return str(answer["message"]) if status in REFUSED else ""
