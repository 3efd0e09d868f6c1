"""Each check passes on a sound state, and fails on one that was doctored: none of them is idle."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from harness.audit import Write
from sequences import checks
from sequences.client import Family
from sequences.fields import cases
from sequences.ground import BASE, PLANNED, REFUSED, Verdict
from sequences.state import NOTE, State, effects_of, state_of, unsettled
from unit.sequences.samples import KEY, family

NAME = KEY[1]
FRESH = (KEY[0], "f00001")


def doctored(change: Callable[[Family], Any]) -> Family:
    found = copy.deepcopy(family())
    change(found)
    return found


def deployment(found: Family) -> dict[str, Any]:
    return found.children["Deployment", NAME]


def status(found: Family) -> dict[str, Any]:
    assert found.object
    return dict(found.object)["status"]  # type: ignore[no-any-return]


def condition(found: Family, kind: str) -> dict[str, Any]:
    return next(one for one in status(found)["conditions"] if one["type"] == kind)


def test_a_family_is_at_rest_and_its_state_is_that_of_another_name() -> None:
    other = family(key=FRESH, uid="uid-2")
    assert unsettled(family(), NAME) == ""
    assert checks.equals_fresh(state_of(family(), KEY), state_of(other, FRESH)) == ""


UNSETTLED: dict[str, Callable[[Family], Any]] = {
    "generation": lambda f: f.object["metadata"].update(generation=2),  # type: ignore[index]
    "being read": lambda f: condition(f, "ModelResolved").update(status="Unknown", reason="Inspecting"),
    "inspection": lambda f: f.children.update({("Job", "j"): {"metadata": {}, "status": {}}}),
    "no Deployment": lambda f: f.children.pop(("Deployment", NAME)),
    "controller": lambda f: deployment(f)["metadata"].update(generation=2),
    "plan in force": lambda f: status(f)["plan"].update(hash="x"),
    "behind": lambda f: status(f).update(replicas=7),
    "under way": lambda f: deployment(f)["status"].update(updatedReplicas=0),
    "worker pods": lambda f: f.children.pop(next(key for key in f.children if key[0] == "Pod")),
    "Progressing": lambda f: condition(f, "Progressing").update(reason="RollingOut"),
    "readySummary": lambda f: status(f).update(readySummary="0/1"),
    "observed.pods": lambda f: status(f)["observed"].update(pods="0/1"),
    "verified": lambda f: condition(f, "CapacityVerified").update(reason="Verifying"),
    "still there": lambda f: f.children.update(
        {("ConfigMap", f"{NAME}-plan-old"): {"metadata": {"name": f"{NAME}-plan-old"}}}
    ),
}


@pytest.mark.parametrize("said", UNSETTLED)
def test_what_is_under_way_is_not_rest(said: str) -> None:
    assert said in unsettled(doctored(UNSETTLED[said]), NAME)


DIFFERENT: dict[str, Callable[[Family], Any]] = {
    "spec.quality": lambda f: f.object["spec"].update(quality="Lossless"),  # type: ignore[index]
    "Deployment.spec.template.spec.containers[0].image": lambda f: deployment(f)["spec"]["template"]["spec"][
        "containers"
    ][0].update(image="another"),
    "Deployment.labels.stray": lambda f: deployment(f)["metadata"]["labels"].update(stray="x"),
    "Service.spec.type": lambda f: f.children["Service", NAME]["spec"].update(type="NodePort"),
    "PodDisruptionBudget.spec.maxUnavailable": lambda f: f.children["PodDisruptionBudget", NAME][
        "spec"
    ].update(maxUnavailable=2),
    "status.plan.kv.blocks": lambda f: status(f)["plan"]["kv"].update(blocks=1),
    "status.conditions.Ready.message": lambda f: condition(f, "Ready").update(message="otherwise"),
    "pods": lambda f: f.children.pop(next(key for key in f.children if key[0] == "Pod")),
    "plan": lambda f: f.children.pop(next(key for key in f.children if key[0] == "ConfigMap")),
}


@pytest.mark.parametrize("where", DIFFERENT)
def test_a_state_that_depends_on_the_past_is_seen_where_it_differs(where: str) -> None:
    found = checks.equals_fresh(state_of(doctored(DIFFERENT[where]), KEY), state_of(family(key=FRESH), FRESH))
    assert found.startswith(where)


def refused(found: Family, reason: str = "NotSupportedYet") -> None:
    for kind in ("Accepted", "Ready"):
        condition(found, kind).update(
            status="False", reason=reason, message=f"spec.cache.sharing.mode: {reason}"
        )


def test_a_refusal_says_why() -> None:
    said = Verdict(REFUSED, "Accepted", "NotSupportedYet")
    assert checks.says_what_became_of_it(doctored(refused), NAME, said) == ""
    assert "expected" in checks.says_what_became_of_it(family(), NAME, said)
    mute = doctored(lambda f: (refused(f), condition(f, "Ready").update(message="")))
    assert "Ready is False" in checks.says_what_became_of_it(mute, NAME, said)


def test_a_plan_says_so() -> None:
    assert checks.says_what_became_of_it(family(), NAME, Verdict(PLANNED)) == ""
    assert "Accepted is False" in checks.says_what_became_of_it(doctored(refused), NAME, Verdict(PLANNED))
    failed = doctored(
        lambda f: condition(f, "Degraded").update(status="True", reason="ApplyRefused", message="no")
    )
    assert "ApplyRefused" in checks.says_what_became_of_it(failed, NAME, Verdict(PLANNED))


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("generation was 1, is 2", lambda f: deployment(f)["metadata"].update(generation=2)),
        ("uid", lambda f: deployment(f)["metadata"].update(uid="another")),
        ("gone", lambda f: f.children.pop(("Deployment", NAME))),
        ("Available was True, is False", lambda f: condition(f, "Available").update(status="False")),
    ],
)
def test_a_refusal_that_touches_what_serves_is_seen(said: str, change: Callable[[Family], Any]) -> None:
    assert checks.keeps_what_was_deployed(family(), family(), NAME) == ""
    assert said in checks.keeps_what_was_deployed(family(), doctored(change), NAME)


def test_a_deployment_for_a_refused_object_is_seen() -> None:
    assert "was made" in checks.keeps_what_was_deployed(Family(), family(), NAME)


@pytest.mark.parametrize("part", ["labels", "annotations"])
def test_a_lost_note_is_seen(part: str) -> None:
    assert checks.leaves_notes_alone(family(), NAME) == ""
    lost = doctored(lambda f: deployment(f)["metadata"][part].pop(NOTE))
    assert "Deployment" in checks.leaves_notes_alone(lost, NAME)


def test_a_large_or_malformed_status_is_seen() -> None:
    assert checks.status_is_valid(family()) == ""
    large = doctored(lambda f: status(f).update(selector="x" * 17_000))
    assert "bytes" in checks.status_is_valid(large)
    assert "noSuchField" in checks.status_is_valid(doctored(lambda f: status(f).update(noSuchField=1)))


def test_a_write_at_rest_is_seen_for_its_object_alone() -> None:
    written = {"time": "", "user": "", "subresource": "", "namespace": KEY[0], "code": 200, "user_agent": ""}
    status_of = Write(**{**_blank(), **written, "resource": "llmdeployments", "name": NAME})
    child = Write(**{**_blank(), **written, "resource": "configmaps", "name": f"{NAME}-plan-1"})
    assert checks.wrote_nothing([status_of, child], FRESH) == ""
    assert checks.wrote_nothing([status_of, child], KEY).count("\n") == 1


def _blank() -> dict[str, Any]:
    """Every field of a write as empty text, so that a new one needs no change here."""
    return {field.name: "" for field in fields(Write)}


def test_a_field_without_effect_is_seen() -> None:
    case = next(case for case in cases() if case.field.name == "workload.concurrency")
    state: State = effects_of(state_of(family(), KEY))
    changed = effects_of(state_of(family({**BASE, "workload": {"concurrency": 3}}), KEY))
    assert checks.has_effect(case, changed, state) == ""
    assert "changes nothing" in checks.has_effect(case, state, state)


def test_a_refused_field_must_be_named() -> None:
    case = next(case for case in cases() if case.field.name == "cache.sharing.mode" and case.value == "Pool")
    named = effects_of(state_of(doctored(refused), KEY))
    assert checks.has_effect(case, named, named) == ""
    silent = copy.deepcopy(named)
    silent["status"]["conditions"]["Ready"]["message"] = "no"
    assert "changes nothing" in checks.has_effect(case, silent, silent)
