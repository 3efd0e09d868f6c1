"""`tonnage explain`: objects as they may stand, told in words and as a document."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from harness.paths import REPOSITORY
from tonnage.api.conditions import Finding
from tonnage.api.status import ConditionType
from tonnage.cli.advice import next_step
from tonnage.cli.errors import Missing
from tonnage.cli.explain_document import document
from tonnage.cli.explain_text import lines_of, write_list
from tonnage.cli.state import State, Taught
from tonnage.cli.style import Style
from tonnage.rendering.findings import Snapshot
from tonnage.rendering.names import COMPONENT, INSPECT, PLAN
from tonnage.rendering.status import compute_status
from unit.cli.samples import Run
from unit.rendering.samples import HASH, PLAN_182, Capacity, pod, report, worker

DOCUMENTED = (REPOSITORY / "docs" / "machine-output.md").read_text()
NOW = "2026-01-01T00:00:00Z"
ACCEPTED = Finding(ConditionType.ACCEPTED, True, "Accepted")
RESOLVED = Finding(ConditionType.MODEL_RESOLVED, True, "Resolved", "LlamaForCausalLM")
PLANNED = Finding(ConditionType.PLANNED, True, "Planned", "fits")
NO_ROOM = Finding(ConditionType.PLANNED, False, "NotEnoughMemory", "one replica needs 900.00 GiB")
SPEC = {
    "model": {"uri": "pvc://models/smollm2"},
    "workload": {"contextLength": 2048, "concurrency": 8},
    "quality": "NearLossless",
}


def deployment(*, ready: int = 1, plan_hash: str = HASH) -> dict[str, Any]:
    return {
        "metadata": {"generation": 1},
        "spec": {"replicas": 1, "template": {"metadata": {"labels": {PLAN: plan_hash}}}},
        "status": {
            "observedGeneration": 1,
            "replicas": 1,
            "updatedReplicas": 1,
            "readyReplicas": ready,
            "availableReplicas": ready,
        },
    }


def status(*findings: Finding, workers: Any = (), deployed: Any = None, plan: bool = True) -> dict[str, Any]:
    """The status as the operator computes it."""
    snapshot = Snapshot(
        generation=1,
        findings=findings,
        plan=PLAN_182 if plan else None,
        plan_hash=HASH if plan else "",
        wanted=1,
        deployment=deployed,
        workers=list(workers),
        selector="",
    )
    return compute_status(snapshot, before={}, now=NOW)


def state(found: dict[str, Any] | None, *, generation: int = 1, **known: Any) -> State:
    body: dict[str, Any] = {
        "metadata": {"name": "chat", "namespace": "default", "uid": "u1", "generation": generation},
        "spec": SPEC,
    }
    if found is not None:
        body["status"] = found
    return State(**{"body": body, "deployment": None, "pods": (), **known})


def ready() -> State:
    found = status(ACCEPTED, RESOLVED, PLANNED, workers=[worker(report())], deployed=deployment())
    return state(found, deployment=deployment(), pods=[pod()])


def text(told: State) -> str:
    return "\n".join(lines_of(told, Style()))


def words(told: State) -> str:
    return " ".join(text(told).split())


READY = """\
default/chat: Ready
  Serving: 1 of 1 replicas serve as planned

  asked      1 x pvc://models/smollm2; requests of at most 2,048 tokens; 8 at a time, typically of
             512; quality NearLossless
  planned    plan 0123456789 for vLLM 0.32.0. fits
  runs on    one CPU node

  memory of one replica
    weights     0.25 GiB  ##
    engine      2.00 GiB  ....................
    KV cache  127.97 MiB  =
    together    2.38 GiB

  KV cache   182 blocks of 32 tokens and 737,280 bytes: 5,824 tokens, dtype auto
             2.84 requests of 2,048 tokens, or 11.38 of 512

  measured
                            planned  engine
    KV blocks                   182     182
    KV tokens                  5824    5824
    concurrency at context     2.84    2.84
    equal; verified 1/1 pods; vLLM 0.32.0; started in 31.2 s

  rollout    1 wanted, 1 of them updated, 1 ready
  pods       chat-1, ready
"""


def test_text_of_one_that_is_ready() -> None:
    assert text(ready()) == READY
    assert ready().code == 0


def test_what_was_refused_is_told_with_what_to_do_and_what_still_serves() -> None:
    found = status(ACCEPTED, RESOLVED, NO_ROOM, workers=[worker(report())], deployed=deployment())
    told = state(found, deployment=deployment(), pods=[pod()])
    assert told.code == 3
    assert "default/chat: refused" in words(told)
    assert "made for the spec as it was before: it goes on serving" in words(told)
    assert f"Planned is False: NotEnoughMemory, since {NOW} one replica needs 900.00 GiB" in words(told)
    assert "next: try changes with `tonnage plan -f FILE`" in words(told)
    # Ready repeats the cause: it is said at the top, and not again among the conditions
    assert words(told).count("900.00 GiB") == 2


def test_a_refresh_that_failed_matters_though_the_model_is_resolved() -> None:
    stale = Finding(ConditionType.MODEL_RESOLVED, True, "RefreshFailed", "HubTimeout: no answer")
    found = status(ACCEPTED, stale, PLANNED, workers=[worker(report())], deployed=deployment())
    told = state(found, deployment=deployment(), pods=[pod()])
    assert told.code == 0
    assert "ModelResolved is True: RefreshFailed" in words(told)
    assert "next: it is tried again by itself" in words(told)


def test_one_that_starts_says_what_is_missing() -> None:
    starting = worker(None, ready=False)
    found = status(ACCEPTED, RESOLVED, PLANNED, workers=[starting], deployed=deployment(ready=0))
    told = state(found, deployment=deployment(ready=0), pods=[pod(ready=False)])
    assert told.code == 1
    assert "default/chat: not Ready (Starting)" in words(told)
    assert "measured no engine of this plan has reported yet" in words(told)
    assert "CapacityVerified is Unknown: Verifying" in words(told)
    assert "kubectl -n default logs -l tonnage.dev/deployment=chat" in words(told)


def test_an_engine_that_holds_less_is_put_beside_the_plan() -> None:
    less = report(
        "Mismatch", observed=Capacity(blocks=90, tokens=2880, concurrency="1.40625"), message="90 of 182"
    )
    found = status(
        ACCEPTED, RESOLVED, PLANNED, workers=[worker(less, ready=False)], deployed=deployment(ready=0)
    )
    told = state(found, deployment=deployment(ready=0), pods=[pod(ready=False)])
    rows = {row.what: (row.planned, row.engine, row.equal) for row in told.comparison}
    assert rows["KV blocks"] == ("182", "90", False)
    assert rows["concurrency at context"] == ("2.84", "1.41", False)
    assert "not equal" in text(told)
    assert told.code == 1


def test_one_that_nobody_looked_at() -> None:
    told = state(None)
    assert told.code == 1
    assert "the operator has not looked at it yet. If that stays, it may not be running" in words(told)
    assert "planned nothing yet" in words(told)
    assert "there is no Deployment yet" in words(told)


def test_a_spec_newer_than_its_status_is_not_ready_whatever_the_status_says() -> None:
    found = status(ACCEPTED, RESOLVED, PLANNED, workers=[worker(report())], deployed=deployment())
    told = state(found, generation=2, deployment=deployment(), pods=[pod()])
    assert (told.code, told.ready, told.planned) == (1, False, False)
    assert "its status is of generation 1, its spec 2: the operator has not looked at it yet" in words(told)


def test_a_refusal_of_an_older_spec_is_no_refusal_of_this_one() -> None:
    assert state(status(ACCEPTED, RESOLVED, NO_ROOM), generation=2).code == 1


def test_one_that_is_being_deleted_is_not_ready() -> None:
    told = ready()
    told.body["metadata"]["deletionTimestamp"] = NOW
    assert told.code == 1
    assert "it is being deleted" in words(told)


def test_pods_that_do_not_run_say_why() -> None:
    pods = [
        pod("a", ready=False, waiting_reason="ImagePullBackOff", waiting_message="no such image", restarts=2),
        pod("b", ready=False, unschedulable="0/3 nodes are available", phase="Pending"),
        pod("c", plan_hash="older", deleting=True),
        pod("d", labels={COMPONENT: INSPECT}, ready=False),
    ]
    told = state(status(ACCEPTED, RESOLVED, PLANNED), deployment=deployment(), pods=pods)
    assert "a, Running, restarted 2 times, waits: ImagePullBackOff no such image" in words(told)
    assert "b, Pending, has no node: 0/3 nodes are available" in words(told)
    assert "c, of plan older, is leaving" in words(told)
    assert "d, reads the model, Running" in words(told)


def test_a_long_list_of_pods_is_cut() -> None:
    told = state(status(), pods=[pod(f"p{number:02}") for number in range(40)])
    assert "p11, ready and 28 more" in words(told)
    assert "p12" not in text(told)


def test_rights_that_are_missing_are_told_and_the_rest_is_shown() -> None:
    why = Missing("you may not list pods in default: forbidden")
    told = state(ready().body["status"], deployment=why, pods=why)
    assert words(told).count("you may not list pods") == 2
    assert told.code == 0
    assert (document(told)["pods"], document(told)["rollout"]) == (None, None)


TAUGHT = Taught(
    key="0.32.0_H100", starts=3, estimate_mib=96, bound_mib=-310, residuals_mib=(-502, 96, 140), used=True
)


def test_what_starts_have_taught_is_told_and_whether_the_plan_has_it() -> None:
    found = ready().body["status"]
    told = state(found, learned=TAUGHT)
    assert "3 starts like this one: +96 MiB beside the KV cache" in words(told)
    assert "-310 MiB at most for new plans; the plan was made by it" in words(told)
    assert document(told)["learned"] == asdict(TAUGHT)
    older = state(found, learned=replace(TAUGHT, starts=1, used=False))
    assert "1 start like this one" in words(older)
    assert "tonnage.dev/replan asks for a new one" in words(older)
    unreadable = state(found, learned=Missing("you may not list all configmaps: forbidden"))
    assert "you may not list all configmaps" in words(unreadable)
    assert document(unreadable)["learned"] is None


def test_fields_and_conditions_of_a_later_version_do_no_harm() -> None:
    found = ready().body["status"]
    found["conditions"].append({"type": "Blessed", "status": "Maybe", "reason": "New", "message": "?"})
    found["plan"]["memoryBytes"]["scratch"] = 2**30
    found["plan"]["kv"]["layout"] = {"new": 1}
    found["later"] = [1, 2]
    told = state(found, deployment=deployment(), pods=[pod()])
    assert told.code == 0
    assert "scratch" in text(told)
    assert document(told)["conditions"][-1]["type"] == "Blessed"


GARBAGE: tuple[dict[str, Any], ...] = (
    {},
    {"conditions": 3, "plan": [], "observed": "x", "observedGeneration": "1"},
    {"conditions": [None, {}, {"type": None}], "plan": {"kv": 1, "inputs": None, "memoryBytes": {"kv": "a"}}},
    {
        "plan": {"hash": 7, "kv": {"blocks": "many"}, "alternatives": [1, {"what": 2}]},
        "observed": {"blocks": []},
    },
    {"observedGeneration": 1, "phase": {"a": 1}, "plan": {"memoryBytes": {"total": 1, "kv": 5}}},
    {"observed": {"concurrency": "x", "pods": 3}, "plan": {"kv": {"dtype": 1}}},
)


@pytest.mark.parametrize("found", GARBAGE)
@pytest.mark.parametrize(
    "spec", [None, {}, {"model": 1, "workload": []}, {"workload": {"contextLength": "x"}}]
)
def test_whatever_stands_there_is_told_without_failing(found: dict[str, Any], spec: Any) -> None:
    told = state(found)
    told.body["spec"] = spec
    assert text(told)
    assert document(told)["ready"] is False
    assert told.code == 1


def test_keys_are_those_documented() -> None:
    shown = document(ready())
    assert set(shown) == {
        *(
            "name",
            "namespace",
            "generation",
            "observed_generation",
            "current",
            "deleting",
            "ready",
            "refused",
        ),
        *("phase", "asked", "planned", "plan", "observed", "comparison", "rollout", "pods", "conditions"),
        "learned",
    }
    parts = (
        shown["asked"],
        shown["rollout"],
        shown["pods"][0],
        shown["conditions"][0],
        shown["comparison"][0],
        asdict(TAUGHT),
    )
    for key in [*shown, *(key for part in parts for key in part)]:
        assert f"`{key}`" in DOCUMENTED, key


def test_document_of_one_that_is_ready() -> None:
    shown = document(ready())
    assert shown["asked"] == {
        "model": "pvc://models/smollm2",
        "context_length": 2048,
        "concurrency": 8,
        "typical_tokens": 512,
        "quality": "NearLossless",
        "replicas": 1,
    }
    assert shown["plan"]["hash"] == HASH
    assert all(row["equal"] for row in shown["comparison"])
    assert not any(each["matters"] for each in shown["conditions"])
    assert shown["rollout"]["ready"] == 1


def test_list_is_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    write_list([ready(), state(None)], namespace="default")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "READY", "GPU", "KV-DTYPE", "CONTEXT", "CONCURRENCY", "PHASE", "WHY"]
    assert lines[1].split() == ["chat", "1/1", "CPU", "auto", "2048", "11.38", "Ready"]
    assert lines[2].split() == ["chat", "NotLookedAt"]
    write_list([ready()], namespace="")
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["default", "chat"]
    write_list([], namespace="default")
    assert capsys.readouterr().err == "there are no LLMDeployments in namespace default\n"


@pytest.mark.parametrize("kind", [kind.value for kind in ConditionType if kind is not ConditionType.READY])
def test_every_condition_has_a_next_step_without_blanks(kind: str) -> None:
    if kind == "ScalingActive":
        return  # nothing sets it yet
    step = next_step(kind, "SomethingNew", namespace="team-a", name="chat")
    assert step
    assert "{" not in step


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("NotEnoughGpus", "wait: it is planned as soon as there is room"),
        ("NoRoomForSurge", "wait: it is planned as soon as there is room"),
        ("Waiting", "wait"),
        ("NoAccelerators", "kubectl get nodes --show-labels"),
        ("ProductNotAllowed", "kubectl get nodes --show-labels"),
        ("NodesUnknown", "inventory.pools"),
    ],
)
def test_what_the_spec_is_not_to_blame_for_is_not_to_be_corrected_there(reason: str, said: str) -> None:
    step = next_step("Planned", reason, namespace="team-a", name="chat")
    assert said in step
    assert "correct the spec" not in step


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("chat",), "there is no kubeconfig"),
        (("pod/chat",), "is no LLMDeployment: write NAME or llmdep/NAME"),
        (("llmdep/",), "the name is empty"),
        (("chat", "-A"), "leave out NAME"),
        (("chat", "more"), "unrecognized arguments: more"),
    ],
)
def test_wrong_usage_ends_in_two(tonnage: Run, arguments: tuple[str, ...], said: str) -> None:
    code, output, complaint = tonnage("explain", *arguments)
    assert (code, output) == (2, "")
    assert said in complaint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not one"),
        ("a: [", "is not one"),
        ("{}", "cannot be used"),
        (
            "users: [{name: u, user: {token: hunter2}}]\ncurrent-context: x\ncontexts: []\nclusters: []",
            "cannot",
        ),
        (
            "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\nclusters: []\nusers: "
            "[{name: u, user: {token: hunter2}}]",
            "cannot be used",
        ),
    ],
)
def test_a_kubeconfig_that_is_none_is_told_without_its_secrets(
    tonnage: Run, tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(content)
    code, output, complaint = tonnage("explain", "chat", "--kubeconfig", str(file))
    assert (code, output) == (2, "")
    assert said in complaint
    assert "hunter2" not in complaint
    assert len(complaint.splitlines()) == 1
