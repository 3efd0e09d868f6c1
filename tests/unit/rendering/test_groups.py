"""Replicas that span nodes: groups of pods by LeaderWorkerSet, and how workloads take over from others."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.rendering.arguments import Role, group_arguments
from tonnage.rendering.children import build_children
from tonnage.rendering.findings import Snapshot, degraded, is_rolled_out, progressing
from tonnage.rendering.names import COMPONENT, FOLLOWER, GROUP_OF_PODS, PLAN, WORKER
from tonnage.rendering.observations import Termination
from tonnage.rendering.workloads import Stands, as_deployment, leftovers, next_replicas, placed_replicas
from unit.rendering.golden import rendered
from unit.rendering.samples import CLAIMED, HASH, KEPT, ON_FOUR, OWNER, SETTINGS, on_gpus, pod, spec
from unit.rendering.test_gpu import OPTIONS

TWO_NODES = dataclasses.replace(ON_FOUR, devices_per_pod=8, nodes_per_replica=2, pipeline_parallel=2)


def group_set(**fields: Any) -> dict[str, Any]:
    return rendered(on_gpus(TWO_NODES), **fields)[-1]


def templates(found: dict[str, Any]) -> list[dict[str, Any]]:
    group = found["spec"]["leaderWorkerTemplate"]
    return [group["leaderTemplate"], group["workerTemplate"]]


def access(**fields: Any) -> dict[str, dict[str, Any]]:
    kept = on_gpus(TWO_NODES)
    found = build_children(kept, plan_hash=HASH, spec=spec(**fields), owner=OWNER, settings=SETTINGS)
    return {body["kind"]: body for body in found}


def test_one_object_never_has_both_workloads() -> None:
    for kept in (KEPT, on_gpus(), on_gpus(CLAIMED), on_gpus(TWO_NODES)):
        kinds = [body["kind"] for body in rendered(kept)]
        assert ("Deployment" in kinds) != ("LeaderWorkerSet" in kinds)


def test_a_group_has_as_many_pods_as_a_replica_has_nodes_and_each_the_devices_of_one() -> None:
    found = group_set(replicas=3)
    assert found["spec"]["replicas"] == 3
    assert found["spec"]["leaderWorkerTemplate"]["size"] == 2
    for template in templates(found):
        [container] = template["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"


def test_both_pods_are_alike_but_for_who_serves() -> None:
    leader, follower = templates(group_set())
    assert leader["metadata"]["labels"][COMPONENT] == WORKER
    assert follower["metadata"]["labels"][COMPONENT] == FOLLOWER
    for one in (leader, follower):
        [container] = one["spec"]["containers"]
        del container["args"], container["ports"], one["metadata"]["labels"][COMPONENT]
    assert leader == follower


@pytest.mark.parametrize("role", [Role.LEADER, Role.FOLLOWER])
def test_the_engine_knows_each_argument_of_a_group(role: Role) -> None:
    words = group_arguments(on_gpus(TWO_NODES).plan, role=role)
    assert {word for word in words if word.startswith("--")} <= OPTIONS
    assert ("--headless" in words) == (role is Role.FOLLOWER)


def test_a_group_of_one_device_each_runs_its_workers_in_processes() -> None:
    one_each = dataclasses.replace(TWO_NODES, devices_per_pod=1)
    for template in templates(rendered(on_gpus(one_each))[-1]):
        words = template["spec"]["containers"][0]["args"]
        assert words[words.index("--distributed-executor-backend") + 1] == "mp"


def test_the_kubelet_puts_in_what_the_set_tells_and_nothing_of_the_user() -> None:
    asked = {"extraArgs": ["--chat-template", "$(LWS_LEADER_ADDRESS)"]}
    for template in templates(group_set(engine=asked)):
        words = template["spec"]["containers"][0]["args"]
        assert words[words.index("--chat-template") + 1] == "$$(LWS_LEADER_ADDRESS)"
        assert words[words.index("--master-addr") + 1] == "$(LWS_LEADER_ADDRESS)"


def test_the_address_of_a_pod_is_its_own_unless_the_user_states_one() -> None:
    own = {"name": "VLLM_HOST_IP", "value": "10.0.0.1"}
    for template in templates(group_set(engine={"env": [own]})):
        stated = [v for v in template["spec"]["containers"][0]["env"] if v["name"] == "VLLM_HOST_IP"]
        assert stated == [own]


def test_other_pods_are_another_set_and_more_of_the_same_are_not() -> None:
    name = group_set()["metadata"]["name"]
    assert group_set(replicas=5)["metadata"]["name"] == name
    assert group_set(engine={"env": [{"name": "A", "value": "b"}]})["metadata"]["name"] != name
    # NAME-HASH-9-REVISION is a label of the pods
    assert len(name) - len(OWNER.name) + 44 + len("-9-0123456789") <= 63


@given(st.integers(0, 4), st.sampled_from([None, "0.32.1"]), st.booleans())
def test_the_same_spec_renders_the_same_bytes(replicas: int, version: str | None, paused: bool) -> None:
    fields: dict[str, Any] = {"replicas": replicas, "rollout": {"paused": paused}}
    if version:
        fields["engine"] = {"version": version}
    assert group_set(**fields) == group_set(**fields)


def test_clients_reach_leaders_and_evictions_count_all_members() -> None:
    found = access(replicas=2)
    assert found["Service"]["spec"]["selector"][COMPONENT] == WORKER
    selector = found["PodDisruptionBudget"]["spec"]["selector"]
    [members] = selector["matchExpressions"]
    assert members["values"] == [FOLLOWER, WORKER]
    assert selector["matchLabels"] == {"tonnage.dev/deployment": OWNER.name}
    assert "PodDisruptionBudget" not in access(replicas=1)


# in the words of a Deployment


def live(*, replicas: int, ready: int, **fields: Any) -> dict[str, Any]:
    body = group_set(replicas=replicas, **fields)
    body["metadata"]["generation"] = 1
    body["status"] = {"replicas": replicas, "readyReplicas": ready, "updatedReplicas": replicas}
    return body


def test_a_set_whose_groups_are_ready_is_rolled_out() -> None:
    plan_hash = group_set()["metadata"]["labels"][PLAN]
    for ready in (0, 1, 2):
        told = as_deployment(live(replicas=2, ready=ready))
        assert is_rolled_out(told, wanted=2, plan_hash=plan_hash) == (ready == 2)
    assert not is_rolled_out(as_deployment(live(replicas=2, ready=2)), wanted=2, plan_hash="other")
    made = group_set()
    assert not is_rolled_out(as_deployment(made), wanted=1, plan_hash=plan_hash)


def snapshot(**fields: Any) -> Snapshot:
    known: dict[str, Any] = {
        "generation": 1,
        "findings": (),
        "plan": on_gpus(TWO_NODES).plan,
        "plan_hash": HASH,
        "wanted": 1,
        "deployment": as_deployment(live(replicas=1, ready=0)),
        "workers": (),
        "selector": "",
    }
    return Snapshot(**{**known, **fields})


def test_a_follower_that_finds_no_node_is_what_holds_up() -> None:
    waiting = pod(name="chat-1a2b-0-1", ready=False, unschedulable="0/3 nodes are available")
    assert "chat-1a2b-0-1 has no node" in progressing(snapshot(followers=[waiting])).message
    other = dataclasses.replace(waiting, labels={PLAN: "other"})
    assert "has no node" not in progressing(snapshot(followers=[other])).message


def test_a_follower_that_cannot_start_is_told() -> None:
    stuck = pod(name="f", ready=False, waiting_reason="ImagePullBackOff", waiting_message="no such image")
    found = degraded(snapshot(followers=[stuck]))
    assert (found.status, found.reason) == (True, "ImagePullBackOff")


def test_what_a_pod_said_whose_group_is_made_anew_is_told_of_its_plan_alone() -> None:
    words = '{"reason": "OutOfMemory", "message": "device 0 is full"}'
    ended = pod(name="f", last_exit=Termination(exit_code=1, reason="Error", message=words))
    ended = dataclasses.replace(ended, labels={PLAN: HASH, GROUP_OF_PODS: "chat-1a2b"})
    found = degraded(snapshot(ended=ended))
    assert (found.status, found.reason) == (True, "OutOfMemory")
    assert "its group is made anew: device 0 is full" in found.message
    assert degraded(snapshot(ended=ended, plan_hash="other")).status is False


# taking over

STANDS = st.builds(
    lambda replicas, ready: Stands(replicas=replicas, ready=min(replicas, ready)),
    st.integers(0, 5),
    st.integers(0, 5),
)


@given(st.integers(0, 5), st.integers(0, 5), st.lists(STANDS, max_size=3), st.integers(0, 5))
def test_no_fewer_serve_than_wanted_or_than_did_before(
    wanted: int, ready: int, others: list[Stands], spare: int
) -> None:
    kept = leftovers(wanted, ready=ready, others=others, spare=spare)
    assert all(left <= other.replicas for left, other in zip(kept, others, strict=True))
    serve = sum(min(left, other.ready) for left, other in zip(kept, others, strict=True))
    before = sum(other.ready for other in others)
    if all(other.ready in (0, other.replicas) for other in others):
        assert ready + serve >= min(wanted - spare, ready + before)
    if ready >= wanted:
        assert not any(kept)


@given(st.integers(1, 5), st.lists(STANDS, max_size=2), st.integers(0, 1))
def test_one_takes_over_from_others_step_by_step(wanted: int, others: list[Stands], spare: int) -> None:
    """Each step all that is asked for becomes ready: at the end the others are gone, and never were there
    more replicas that count than one beyond those wanted or there before."""
    ready = 0
    most = max(wanted, sum(other.replicas for other in others if other.ready)) + 1
    for _ in range(3 * wanted + 6):
        replicas = next_replicas(wanted, others=others, spare=spare)
        assert replicas + sum(other.replicas for other in others if other.ready) <= most
        kept = leftovers(wanted, ready=ready, others=others, spare=spare)
        others = [
            Stands(replicas=left, ready=min(left, other.ready))
            for left, other in zip(kept, others, strict=True)
            if left
        ]
        ready = replicas
    assert (ready, others) == (wanted, [])


def test_where_all_may_be_down_room_is_made_at_once() -> None:
    others = [Stands(replicas=2, ready=2)]
    assert leftovers(2, ready=0, others=others, spare=2) == [0]
    assert next_replicas(2, others=others, spare=2) == 2


def test_what_serves_nobody_goes_first() -> None:
    others = [Stands(replicas=1, ready=0), Stands(replicas=2, ready=2)]
    assert leftovers(2, ready=0, others=others, spare=0) == [0, 2]
    assert next_replicas(2, others=others, spare=0) == 1


def test_a_deployment_that_was_just_changed_counts_none_as_ready() -> None:
    body = {"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 2}}
    status = {"observedGeneration": 1, "readyReplicas": 2, "updatedReplicas": 2}
    assert Stands.of({**body, "status": status}).ready == 0
    assert Stands.of({**body, "status": {**status, "observedGeneration": 2}}).ready == 2


@given(st.integers(0, 5), st.integers(0, 5))
def test_groups_come_one_after_the_other_and_one_that_is_made_anew_takes_none_away(
    wanted: int, lost: int
) -> None:
    before = 0
    for placed in range(wanted + 1):
        before = placed_replicas(wanted, before=before, placed=placed)
        assert before == min(wanted, placed + 1)
    assert placed_replicas(wanted, before=before, placed=max(0, wanted - lost)) == wanted


@pytest.mark.parametrize("missing", ["leaderTemplate", "metadata", "labels"])
def test_a_set_that_somebody_took_optional_fields_out_of_is_read_as_of_no_plan(missing: str) -> None:
    found = group_set(replicas=2)
    group = found["spec"]["leaderWorkerTemplate"]
    template = group["leaderTemplate"]
    of = {"leaderTemplate": group, "metadata": template, "labels": template["metadata"]}[missing]
    del of[missing]
    assert as_deployment(found)["spec"]["template"]["metadata"]["labels"] == {}
    assert Stands.of(found) == Stands(replicas=2, ready=0)
    assert not is_rolled_out(as_deployment(found), wanted=2, plan_hash=HASH)
