"""What the template becomes: the pod fields that were asked for, and a restricted pod whatever was asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.api.acceptance import accept
from tonnage.api.demand import placement_of
from tonnage.api.v1alpha1 import Spec
from tonnage.gpus.placement import Requirement
from tonnage.rendering.deployment import build_deployment
from tonnage.rendering.drift import projection
from tonnage.rendering.inspection import build_inspection, reading_of
from tonnage.rendering.pods import literal
from unit.api.table import ROWS, Verdict
from unit.rendering.samples import HASH, KEPT, OWNER, SETTINGS, spec

ZONES: dict[str, Any] = {
    "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]},
            {"matchExpressions": [{"key": "gpus", "operator": "Gt", "values": ["3"]}]},
        ]
    },
    "preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 5, "preference": {"matchExpressions": [{"key": "fast", "operator": "Exists"}]}}
    ],
}
APART: dict[str, Any] = {
    "requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {}, "topologyKey": "kubernetes.io/hostname"}
    ]
}
WHOLE: dict[str, Any] = {
    "labels": {"team": "a"},
    "annotations": {"example.com/note": "x"},
    "resources": {"cpu": 2000, "memory": "3000Mi"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [
        {"key": "a", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 5},
    ],
    "affinity": {"nodeAffinity": ZONES, "podAntiAffinity": APART},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 2},
        {
            "maxSkew": 2,
            "topologyKey": "zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"team": "a"}},
        },
    ],
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
    "schedulerName": "other",
    "serviceAccountName": "worker",
    "imagePullSecrets": [{"name": "pull"}],
    "volumes": [
        {
            "name": "plan",
            "mountPath": "/mnt/a",
            "readOnly": True,
            "persistentVolumeClaim": {"claimName": "adapters"},
        },
        {"name": "scratch", "mountPath": "/data", "emptyDir": {"sizeLimit": "1024Gi"}},
        {"name": "tmp", "mountPath": "/srv/c", "configMap": {"name": "c"}, "subPath": "x"},
        {
            "name": "s",
            "mountPath": "/srv/s",
            "secret": {"secretName": "s", "items": [{"key": "k", "path": "f"}], "optional": True},
        },
    ],
}


def deployment(template: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return build_deployment(
        KEPT,
        plan_hash=HASH,
        spec=spec(template=template, **fields),
        owner=OWNER,
        settings=SETTINGS,
        replicas=1,
    )


def pod(template: dict[str, Any], **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = deployment(template, **fields)["spec"]["template"]["spec"]
    return found


def inspection_pod(template: dict[str, Any]) -> dict[str, Any]:
    asked = spec(template=template)
    reading = reading_of(asked, annotations={})
    job = build_inspection(asked, reading=reading, owner=OWNER, settings=SETTINGS)
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


def test_what_a_pod_spells_alike_arrives_as_it_was_written() -> None:
    found = pod(WHOLE)
    for name in (
        "nodeSelector", "tolerations", "affinity", "priorityClassName", "runtimeClassName", "schedulerName",
        "serviceAccountName", "imagePullSecrets",
    ):  # fmt: skip
        assert found[name] == WHOLE[name], name
    assert found["automountServiceAccountToken"] is False
    assert found["containers"][0]["resources"]["requests"] == {"cpu": "2k", "memory": "3000Mi"}


def test_the_account_is_stated_where_the_user_names_none() -> None:
    # what is left out of an apply comes back from the field's old name
    assert pod({})["serviceAccountName"] == "default"


def test_a_spread_without_a_selector_counts_the_workers_of_this_object() -> None:
    own, chosen = pod(WHOLE)["topologySpreadConstraints"]
    selected = deployment(WHOLE)["spec"]["selector"]["matchLabels"]
    assert own["labelSelector"] == {"matchLabels": selected}
    assert chosen["labelSelector"] == {"matchLabels": {"team": "a"}}


def test_volumes_of_the_user_never_take_the_name_of_ours() -> None:
    found = pod(WHOLE)
    volumes = {volume["name"]: volume for volume in found["volumes"]}
    assert len(volumes) == len(found["volumes"])
    assert volumes["plan"]["configMap"]["name"] == f"chat-plan-{HASH}"
    assert volumes["user-plan"]["persistentVolumeClaim"] == {"claimName": "adapters", "readOnly": True}
    assert volumes["user-scratch"]["emptyDir"] == {"sizeLimit": "1Ti"}
    assert volumes["user-tmp"]["configMap"] == {"name": "c"}
    assert volumes["user-s"]["secret"] == WHOLE["volumes"][3]["secret"]
    mounts = found["containers"][0]["volumeMounts"]
    assert {"name": "user-plan", "mountPath": "/mnt/a", "readOnly": True} in mounts
    assert {"name": "user-tmp", "mountPath": "/srv/c", "subPath": "x"} in mounts
    paths = [mount["mountPath"] for mount in mounts]
    assert len(set(paths)) == len(paths)


def test_the_inspection_runs_where_workers_may_run_and_takes_nothing_else() -> None:
    found = inspection_pod(WHOLE)
    assert found["affinity"] == {"nodeAffinity": ZONES}
    assert found["nodeSelector"] == WHOLE["nodeSelector"]
    assert found["tolerations"] == WHOLE["tolerations"]
    assert not {"serviceAccountName", "runtimeClassName", "topologySpreadConstraints"} & set(found)
    assert [volume["name"] for volume in found["volumes"]] == [
        volume["name"] for volume in inspection_pod({})["volumes"]
    ]


def test_planning_looks_at_the_nodes_that_the_scheduler_will_look_at() -> None:
    placement = placement_of(spec(template=WHOLE))
    assert placement.node_terms == (
        (Requirement(key="zone", operator="In", values=("a", "b")),),
        (Requirement(key="gpus", operator="Gt", values=("3",)),),
    )
    assert placement.node_selector == WHOLE["nodeSelector"]
    assert [t.effect for t in placement.tolerations] == ["NoSchedule", "NoExecute"]
    assert placement_of(spec(template={"affinity": {"podAntiAffinity": APART}})).node_terms == ()


def test_nothing_is_expanded_into_an_argument_that_the_plan_pins() -> None:
    words = ["$(A)", "$$(A)", "cost-$5"]
    found = pod({}, engine={"extraArgs": words, "env": [{"name": "A", "value": "--max-model-len=9 $(HOME)"}]})
    container = found["containers"][0]
    assert container["args"][-3:] == ["$$(A)", "$$$$(A)", "cost-$$5"]
    assert {"name": "A", "value": "--max-model-len=9 $$(HOME)"} in container["env"]


def expanded(text: str) -> str:
    """What the kubelet makes of an argument or a variable (Kubernetes 1.37
    third_party/forked/golang/expansion/expand.go); a variable becomes <NAME>."""
    out, at = "", 0
    while at < len(text):
        rest = text[at + 1 :]
        if text[at] != "$" or not rest:
            out, at = out + text[at], at + 1
        elif rest[0] == "$":
            out, at = out + "$", at + 2
        elif rest[0] == "(" and ")" in rest:
            out, at = out + f"<{rest[1 : rest.index(')')]}>", at + 2 + rest.index(")")
        else:
            out, at = out + "$" + rest[0], at + 2
    return out


def test_the_kubelet_would_expand_what_is_not_escaped() -> None:
    assert [expanded(text) for text in ("$(A)b", "$$(A)", "$(A", "a$", "$5")] == [
        "<A>b", "$(A)", "$(A", "a$", "$5",
    ]  # fmt: skip


@given(st.text(st.sampled_from("$()A- ")))
def test_the_kubelet_passes_every_text_as_it_was_written(text: str) -> None:
    assert expanded(literal(text)) == text


def test_what_the_api_server_adds_is_no_drift() -> None:
    desired = deployment(WHOLE)
    live = deployment(WHOLE)
    found = live["spec"]["template"]["spec"]
    for volume in found["volumes"]:
        for kind in ("configMap", "secret"):
            if kind in volume:
                volume[kind]["defaultMode"] = 420
    found["serviceAccount"] = "worker"
    found["topologySpreadConstraints"].reverse()
    found["containers"][0]["volumeMounts"].reverse()
    assert projection(live, desired=desired) == desired


@pytest.mark.parametrize("change", ["swap", "drop", "edit"])
def test_an_edit_of_tolerations_with_one_key_is_drift(change: str) -> None:
    desired, live = deployment(WHOLE), deployment(WHOLE)
    tolerations = live["spec"]["template"]["spec"]["tolerations"]
    if change == "swap":
        tolerations.reverse()
    elif change == "drop":
        tolerations.pop()
    else:
        tolerations[0]["effect"] = "NoExecute"
    assert projection(live, desired=desired) != desired


def specs() -> Iterator[Any]:
    for row in ROWS:
        if row.verdict is Verdict.GOOD:
            accepted = accept(row.body)
            assert isinstance(accepted, Spec)
            yield pytest.param(accepted, id=row.name)


@pytest.mark.parametrize("accepted", list(specs()))
def test_no_object_that_is_accepted_gives_a_pod_more_than_ours_have(accepted: Spec) -> None:
    body = build_deployment(KEPT, plan_hash=HASH, spec=accepted, owner=OWNER, settings=SETTINGS, replicas=1)
    assert body["metadata"]["namespace"] == OWNER.namespace
    found = body["spec"]["template"]["spec"]
    plain = pod({})
    allowed = {
        "affinity", "imagePullSecrets", "nodeSelector", "priorityClassName", "runtimeClassName",
        "schedulerName", "serviceAccountName", "tolerations", "topologySpreadConstraints",
    }  # fmt: skip
    assert set(found) - set(plain) <= allowed
    fixed = set(plain) - allowed - {"containers", "volumes"}
    assert {name: found[name] for name in fixed} == {name: plain[name] for name in fixed}
    assert [c["name"] for c in found["containers"]] == ["engine"]
    container = found["containers"][0]
    assert container["securityContext"] == plain["containers"][0]["securityContext"]
    assert all("hostPort" not in port for port in container["ports"])
    kinds = {kind for volume in found["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"persistentVolumeClaim", "emptyDir", "configMap", "secret"}
    ours = {mount["mountPath"] for mount in plain["containers"][0]["volumeMounts"]}
    theirs = {mount["mountPath"] for mount in container["volumeMounts"]} - ours
    assert all(path.split("/")[1] in ("mnt", "data", "srv") for path in theirs)
