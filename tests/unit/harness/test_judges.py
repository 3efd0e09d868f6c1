"""The judges of the least-privilege tests: each fault is found, and a sound thing has none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from harness.audit import READS, Request, Write
from harness.restricted import faults
from harness.rights import Grant, Right, granted, used
from tonnage.rendering.deployment import build_deployment
from tonnage.rendering.inspection import build_inspection, reading_of
from unit.rendering.samples import HASH, HUB, HUB_KEPT, KEPT, OWNER, SETTINGS, spec

TOKEN = {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"expirationSeconds": 3607}}]}}
Edit = Callable[[dict[str, Any]], Any]


def rendered() -> list[dict[str, Any]]:
    """Pods as the operator makes them: workers and inspections, of models on a volume and of a hub."""
    found = []
    for kept, fields in ((KEPT, {}), (HUB_KEPT, {"model": HUB})):
        asked = spec(**fields)
        deployment = build_deployment(
            kept, plan_hash=HASH, spec=asked, owner=OWNER, settings=SETTINGS, replicas=1
        )
        job = build_inspection(
            asked, reading=reading_of(asked, annotations={}), owner=OWNER, settings=SETTINGS
        )
        found += [body["spec"]["template"] for body in (deployment, job)]
    return found


def volumes(pod: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pod["spec"].setdefault("volumes", [])
    return found


def first(pod: dict[str, Any]) -> Any:
    return pod["spec"]["containers"][0]


@pytest.mark.parametrize("pod", rendered(), ids=["worker", "inspection", "hub worker", "hub inspection"])
def test_what_the_operator_makes_has_no_fault(pod: dict[str, Any]) -> None:
    assert faults(pod) == []


EDITS: dict[str, tuple[Edit, str]] = {
    "host network": (lambda pod: pod["spec"].update(hostNetwork=True), "hostNetwork"),
    "host processes": (lambda pod: pod["spec"].update(hostPID=True), "hostPID"),
    "host path": (
        lambda pod: volumes(pod).append({"name": "h", "hostPath": {"path": "/"}}),
        "volume h is a hostPath",
    ),
    "token by default": (
        lambda pod: pod["spec"].pop("automountServiceAccountToken"),
        "a token is mounted",
    ),
    "token by hand": (lambda pod: volumes(pod).append(TOKEN), "a token is mounted"),
    "root": (lambda pod: pod["spec"]["securityContext"].update(runAsUser=0), "may run as root"),
    "perhaps root": (lambda pod: pod["spec"]["securityContext"].pop("runAsNonRoot"), "may run as root"),
    "no seccomp": (lambda pod: pod["spec"]["securityContext"].pop("seccompProfile"), "no seccomp profile"),
    "own seccomp": (
        lambda pod: first(pod)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        "no seccomp profile",
    ),
    "privileged": (lambda pod: first(pod)["securityContext"].update(privileged=True), "privileged"),
    "escalation": (
        lambda pod: first(pod)["securityContext"].pop("allowPrivilegeEscalation"),
        "allowPrivilegeEscalation is not false",
    ),
    "capability": (
        lambda pod: first(pod)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
        "capabilities are kept",
    ),
    "writable": (
        lambda pod: first(pod)["securityContext"].pop("readOnlyRootFilesystem"),
        "the root file system is writable",
    ),
    "host port": (lambda pod: first(pod).update(ports=[{"hostPort": 80}]), "a host port"),
    "no limit": (lambda pod: first(pod)["resources"].pop("limits"), "no limit of memory"),
    "no request": (lambda pod: first(pod)["resources"].pop("requests"), "no request of cpu and memory"),
    "in an init container": (
        lambda pod: pod["spec"].update(
            initContainers=[{"name": "i", "securityContext": {"privileged": True}}]
        ),
        "i: privileged",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_each_fault_is_found(name: str) -> None:
    edit, fault = EDITS[name]
    for pod in rendered():
        changed = copy.deepcopy(pod)
        edit(changed)
        assert any(found.endswith(fault) for found in faults(changed)), faults(changed)


def test_one_bound_token_is_all_that_an_operator_may_have() -> None:
    pod = rendered()[0]
    assert faults(pod, token=True) == ["not exactly one bound token"]
    pod["spec"]["volumes"].append(TOKEN)
    assert faults(pod, token=True) == []
    long = {"name": "long", "projected": {"sources": [{"serviceAccountToken": {"expirationSeconds": 86400}}]}}
    pod["spec"]["volumes"][-1] = long
    assert faults(pod, token=True) == ["a token that lives long"]


def asked(verb: str, resource: str, *, code: int = 200, group: str = "", subresource: str = "") -> Request:
    kind = Request if verb in READS else Write
    return kind(
        time="",
        user="u",
        verb=verb,
        path="/",
        group=group,
        resource=resource,
        subresource=subresource,
        namespace="a",
        name="n",
        code=code,
        user_agent="",
        forbidden=False,
    )


def test_a_patch_that_made_its_object_used_create_too() -> None:
    assert used(asked("patch", "jobs", group="batch")) == [Right("batch", "jobs", "patch")]
    made = used(asked("patch", "jobs", group="batch", code=201))
    assert made == [Right("batch", "jobs", "patch"), Right("batch", "jobs", "create")]
    assert used(asked("patch", "llmdeployments", subresource="status"))[0].resource == "llmdeployments/status"
    assert used(asked("get", "")) == []


def role(rule: dict[str, list[str]], *, namespace: str = "") -> dict[str, Any]:
    return {"kind": "Role", "metadata": {"name": "r", "namespace": namespace}, "rules": [rule]}


@pytest.mark.parametrize(
    "rule",
    [
        {"apiGroups": ["*"], "resources": ["pods"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods/*"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]},
        {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
    ],
)
def test_a_wildcard_or_a_url_is_no_rule(rule: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match=r"wildcard|not a rule"):
        granted([role(rule)])


def test_a_grant_covers_its_namespace_and_names_alone() -> None:
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["n"]}
    (grant,) = granted([role(rule, namespace="a")])
    right = Right("", "pods", "get")
    assert grant == Grant(right, "a", ("n",))
    assert grant.covers(right, namespace="a", name="n")
    assert not grant.covers(right, namespace="b", name="n")
    assert not grant.covers(right, namespace="a", name="m")
    assert not grant.covers(Right("", "pods", "list"), namespace="a", name="n")
