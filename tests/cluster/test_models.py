"""How a model is found: read once per namespace, kept, read anew when asked, and what is said meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.conftest import HEALTH_PORT
from cluster.objects import condition, deployed, generation, inspected, llm, plan_map, wait_for
from cluster.operator_process import ACCOUNT, OperatorProcess, operator_process
from harness.cluster import Cluster
from harness.simulation import INSPECTION_LABEL, end_inspection
from harness.waiting import wait_until

pytestmark = pytest.mark.cluster
FIRST, SECOND = ("1" * 40, "2" * 40)
REFRESH = "tonnage.dev/refresh-model"
HUB = {"uri": "hf://acme/small", "tokenSecret": {"name": "hub", "key": "token"}}


@pytest.fixture
def space(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace in which an inspection ends when the test says so."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    cluster.delete("namespace", name, wait=False)


def pods(cluster: Cluster, space: str, name: str = "") -> list[dict[str, Any]]:
    """Inspection pods that run, of one object or of all."""
    owner = f",tonnage.dev/deployment={name}" if name else ""
    found = cluster.find("pods", namespace=space, labels=f"{INSPECTION_LABEL}{owner}")
    return [pod for pod in found if pod["status"].get("phase") == "Running"]


def answer(cluster: Cluster, space: str, text: str, name: str = "") -> dict[str, Any]:
    """End the one inspection that runs; returns its pod."""
    pod: dict[str, Any] = wait_until("an inspection", lambda: pods(cluster, space, name))[0]
    end_inspection(cluster, pod["metadata"]["name"], text, namespace=space)
    return pod


def made_jobs(cluster: Cluster, space: str, *, after: int) -> int:
    """Jobs that the operator made since a position of the audit log."""
    written = cluster.audit.writes(after=after, user=ACCOUNT)
    return sum(w.resource == "jobs" and w.namespace == space and w.code == 201 for w in written)


def ask_again(cluster: Cluster, space: str, value: str, name: str = "chat") -> None:
    cluster.patch("llmdep", name, {"metadata": {"annotations": {REFRESH: value}}}, namespace=space)


def arguments(cluster: Cluster, space: str, name: str = "chat") -> list[str]:
    body = cluster.get("deployment", name, namespace=space) or {}
    return list(body["spec"]["template"]["spec"]["containers"][0]["args"])


def test_objects_of_a_namespace_share_one_reading_also_after_a_restart(cluster: Cluster, space: str) -> None:
    start = cluster.audit.position()
    with operator_process(cluster, port=HEALTH_PORT):
        cluster.apply(*(llm(name, model=HUB) for name in ("a", "b", "c")), namespace=space)
        for name in ("a", "b", "c"):
            found = wait_for(cluster, "ModelResolved", "Unknown", namespace=space, name=name)
            assert found["reason"] == "Inspecting"
        answer(cluster, space, inspected(FIRST))
        for name in ("a", "b", "c"):
            resolved = wait_for(cluster, "ModelResolved", "True", namespace=space, name=name)
            assert FIRST in resolved["message"]
            deployed(cluster, space, name)
        assert made_jobs(cluster, space, after=start) == 1
    cluster.delete("job", "--all", namespace=space)
    with operator_process(cluster, port=HEALTH_PORT, identity="after"):
        # of the process that read the model nothing is left: the plans of others answer
        cluster.apply(llm("d", model=HUB), namespace=space)
        deployed(cluster, space, "d")
        # with other credentials, or another revision, it is another wish
        cluster.apply(llm("e", model={"uri": HUB["uri"]}), namespace=space)
        answer(cluster, space, inspected(FIRST), "e")
        deployed(cluster, space, "e")
        assert made_jobs(cluster, space, after=start) == 2


def test_who_waits_for_anothers_reading_goes_on_when_that_one_is_deleted(
    cluster: Cluster, operator: OperatorProcess, space: str
) -> None:
    cluster.apply(llm("a", model=HUB), namespace=space)
    wait_until("a's inspection", lambda: pods(cluster, space, "a"))
    cluster.apply(llm("b", model=HUB), namespace=space)
    wait_for(cluster, "ModelResolved", "Unknown", namespace=space, name="b", reason="Inspecting")
    assert not pods(cluster, space, "b")
    cluster.delete("llmdep", "a", namespace=space)
    answer(cluster, space, inspected(FIRST), "b")
    deployed(cluster, space, "b")


def test_a_reading_that_nothing_admits_keeps_nobody_else_waiting(
    cluster: Cluster, operator: OperatorProcess, space: str
) -> None:
    cluster.apply(llm("a", model=HUB, template={"priorityClassName": "no-such"}), namespace=space)
    wait_for(cluster, "ModelResolved", "Unknown", namespace=space, name="a")
    cluster.apply(llm("b", model=HUB), namespace=space)
    answer(cluster, space, inspected(FIRST), "b")
    deployed(cluster, space, "b")
    # what was read for the one is known to the other too
    wait_for(cluster, "ModelResolved", "True", namespace=space, name="a")


def test_a_new_commit_is_noticed_when_asked_and_only_a_change_rolls(
    cluster: Cluster, operator: OperatorProcess, space: str
) -> None:
    cluster.apply(llm(model=HUB), namespace=space)
    answer(cluster, space, inspected(FIRST))
    wait_for(cluster, "Available", "True", namespace=space)
    before, words = generation(cluster, space), arguments(cluster, space)
    assert words[words.index("--revision") + 1] == FIRST
    ask_again(cluster, space, "once")
    answer(cluster, space, inspected(FIRST))
    noted = "tonnage.dev/refreshed"
    wait_until("the note", lambda: noted in plan_map(cluster, namespace=space)["metadata"]["annotations"])
    wait_until(
        "no more reading",
        lambda: condition(cluster, "ModelResolved", namespace=space)["reason"] == "Resolved",
    )
    assert generation(cluster, space) == before
    ask_again(cluster, space, "twice")
    found = wait_for(cluster, "ModelResolved", "True", namespace=space, reason="Refreshing")
    assert FIRST in found["message"]
    answer(cluster, space, inspected(SECOND))
    wait_until("the new commit", lambda: SECOND in arguments(cluster, space))
    wait_for(cluster, "ModelResolved", "True", namespace=space, reason="Resolved")
    # neither removing the note nor anything else makes it look again
    start = cluster.audit.position()
    cluster.kubectl("annotate", "llmdep", "chat", f"{REFRESH}-", "-n", space)
    cluster.apply(llm(model=HUB, replicas=2), namespace=space)
    wait_until(
        "two replicas",
        lambda: (cluster.get("deployment", "chat", namespace=space) or {})["spec"]["replicas"] == 2,
    )
    assert made_jobs(cluster, space, after=start) == 0
    assert SECOND in arguments(cluster, space)


def test_a_refresh_that_fails_keeps_what_serves_and_the_spec_can_still_change(
    cluster: Cluster, operator: OperatorProcess, space: str
) -> None:
    cluster.apply(llm(model=HUB), namespace=space)
    answer(cluster, space, inspected(FIRST))
    wait_for(cluster, "Available", "True", namespace=space)
    before = generation(cluster, space)
    ask_again(cluster, space, "now")
    answer(cluster, space, '{"error": {"reason": "HubUnreachable", "message": "no way there"}}')
    found = wait_for(cluster, "ModelResolved", "True", namespace=space, reason="RefreshFailed")
    assert FIRST in found["message"]
    assert "HubUnreachable: no way there" in found["message"]
    assert condition(cluster, "Planned", namespace=space)["status"] == "True"
    assert generation(cluster, space) == before
    cluster.apply(llm(model=HUB, workload={"contextLength": 1024}), namespace=space)
    wait_until("the new length", lambda: "1024" in arguments(cluster, space))
    assert FIRST in arguments(cluster, space)


def test_a_failed_reading_is_said_to_all_who_wait_and_another_model_is_read_at_once(
    cluster: Cluster, operator: OperatorProcess, space: str
) -> None:
    cluster.apply(llm("a", model=HUB), llm("b", model=HUB), namespace=space)
    answer(cluster, space, '{"error": {"reason": "RevisionUnknown", "message": "set model.revision"}}')
    for name in ("a", "b"):
        found = wait_for(
            cluster, "ModelResolved", "False", namespace=space, name=name, reason="RevisionUnknown"
        )
        assert found["message"] == "set model.revision"
        ready = wait_for(cluster, "Ready", "False", namespace=space, name=name, reason="RevisionUnknown")
        assert ready["message"] == "set model.revision"
    cluster.apply(llm("a", model={**HUB, "revision": "v1"}), namespace=space)
    answer(cluster, space, inspected(SECOND), "a")
    deployed(cluster, space, "a")


def test_a_failed_reading_whose_job_lost_its_labels_is_repeated_all_the_same(
    cluster: Cluster, operator: OperatorProcess, space: str
) -> None:
    """The Job is found again when the pause is over; no event tells then that it has ended long since."""
    cluster.apply(llm(model=HUB), namespace=space)
    answer(cluster, space, '{"error": {"reason": "RevisionUnknown", "message": "set model.revision"}}')
    wait_for(cluster, "ModelResolved", "False", namespace=space, reason="RevisionUnknown")
    (job,) = wait_until("the Job to end", lambda: ended_jobs(cluster, space))
    foreign = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}}
    cluster.patch("job", job["metadata"]["name"], foreign, namespace=space)
    answer(cluster, space, inspected(FIRST))
    deployed(cluster, space)


def ended_jobs(cluster: Cluster, space: str) -> list[dict[str, Any]]:
    return [job for job in cluster.find("jobs", namespace=space) if job["status"].get("completionTime")]


def test_a_missing_secret_is_said_with_the_command_that_makes_it(
    cluster: Cluster, operator: OperatorProcess, space: str
) -> None:
    cluster.apply(llm(model=HUB), namespace=space)
    pod = wait_until("an inspection", lambda: pods(cluster, space))[0]
    # the kubelet's words, which nobody says on a simulated node
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}
    status = [{**pod["status"]["containerStatuses"][0], "ready": False, "state": {"waiting": waiting}}]
    cluster.patch(
        "pod",
        pod["metadata"]["name"],
        {"status": {"phase": "Pending", "containerStatuses": status}},
        namespace=space,
        subresource="status",
    )
    found = wait_for(cluster, "ModelResolved", "False", namespace=space, reason="TokenSecretMissing")
    assert 'secret "hub" not found' in found["message"]
    assert f"kubectl create secret generic hub -n {space} --from-literal=token=" in found["message"]
