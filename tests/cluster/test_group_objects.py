"""Objects whose replicas span nodes: sets by LeaderWorkerSet's real definition, pods by its real controller,
nodes by the real scheduler."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.objects import condition, wait_for
from cluster.test_gpu_objects import Room, room, workers
from harness.cluster import Cluster
from harness.group_sets import group_controller, install_definition, remove_definition
from harness.waiting import wait_until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="simulated workers need root"),
]
__all__ = ["room", "workers"]
SETS = "leaderworkersets"
SPREAD = {"accelerator": "GPU", "parallelism": {"tensor": 1, "pipeline": 2}}
SINGLE = {"accelerator": "GPU", "parallelism": {"tensor": 1, "pipeline": 1}}
FOLLOWERS = "tonnage.dev/component=follower"
LEADERS = "tonnage.dev/component=worker"


@pytest.fixture
def bare(cluster: Cluster) -> Iterator[None]:
    """The API server without the kind, at the end too."""
    remove_definition(cluster)
    yield
    remove_definition(cluster)


def sets(room: Room) -> list[dict[str, Any]]:
    """LeaderWorkerSets of the room that are not leaving."""
    found = room.cluster.find(SETS, namespace=room.namespace)
    return [body for body in found if "deletionTimestamp" not in body["metadata"]]


def one_set(room: Room) -> dict[str, Any]:
    """The only set, once it is there."""
    [found] = wait_until("a set", lambda: sets(room))
    return found


def nodes_of(room: Room, labels: str) -> list[str]:
    """Nodes of pods that have one."""
    found = room.cluster.find("pods", namespace=room.namespace, labels=labels)
    return sorted(pod["spec"]["nodeName"] for pod in found if "nodeName" in pod["spec"])


def test_without_the_kind_it_is_refused_and_once_that_is_installed_planned(room: Room, bare: None) -> None:
    for name in ("h100-0", "h100-0"):
        room.add(name, gpus=1)
    room.put("chat", hardware=SPREAD)
    message = room.waits("chat", reason="MultiNodeNotSupported")
    assert "leaderworkersets.leaderworkerset.x-k8s.io" in message
    install_definition(room.cluster)
    wait_for(room.cluster, "Planned", "True", namespace=room.namespace, seconds=90)
    found = one_set(room)
    assert found["spec"]["leaderWorkerTemplate"]["size"] == 2
    assert room.cluster.get("deployment", "chat", namespace=room.namespace) is None
    # no controller runs: nothing is ready, and that is what is said
    wait_for(room.cluster, "Progressing", "True", namespace=room.namespace)
    _is_mended(room, found)
    remove_definition(room.cluster)
    # a set cannot be made while the kind is on its way out, which is tried again after a minute
    wait_for(
        room.cluster,
        "Planned",
        "False",
        namespace=room.namespace,
        reason="MultiNodeNotSupported",
        seconds=180,
    )


def _is_mended(room: Room, found: dict[str, Any]) -> None:
    """What others change of ours is put right, once; a set that is deleted comes back."""
    name = found["metadata"]["name"]
    room.cluster.patch(SETS, name, {"spec": {"replicas": 7}}, namespace=room.namespace)

    def replicas() -> int:
        body = room.cluster.get(SETS, name, namespace=room.namespace) or {}
        return int(body.get("spec", {}).get("replicas", 0))

    wait_until("replicas as rendered", lambda: replicas() == 1)
    room.cluster.delete(SETS, name, namespace=room.namespace)
    before = found["metadata"]["uid"]
    wait_until("the set again", lambda: [b for b in sets(room) if b["metadata"]["uid"] != before])


def test_groups_are_placed_served_replaced_and_pruned(room: Room, bare: None) -> None:
    for name in ("h100-0", "h100-0", "h100-0", "h100-0"):
        room.add(name, gpus=1)
    with group_controller(room.cluster):
        room.put("chat", hardware=SPREAD)
        room.is_ready("chat")
        first = one_set(room)
        assert len(nodes_of(room, LEADERS)) == 1
        assert len({*nodes_of(room, LEADERS), *nodes_of(room, FOLLOWERS)}) == 2
        body = room.cluster.get("llmdep", "chat", namespace=room.namespace) or {}
        status = body["status"]
        assert (status["replicas"], status["readySummary"], status["observed"]["pods"]) == (1, "1/1", "1/1")
        _clients_reach_leaders_alone(room)
        _next_set_serves_before_the_first_goes(room, first)
        _a_deployment_takes_over_and_hands_back(room)
        room.cluster.delete("llmdep", "chat", namespace=room.namespace)
        wait_until("its sets to be gone", lambda: not sets(room))
        wait_until("its pods to be gone", lambda: not room.cluster.find("pods", namespace=room.namespace))


def _clients_reach_leaders_alone(room: Room) -> None:
    leaders = room.cluster.find("pods", namespace=room.namespace, labels=LEADERS)
    for pod in [*leaders, *room.cluster.find("pods", namespace=room.namespace, labels=FOLLOWERS)]:
        env = {v["name"]: v.get("value") for v in pod["spec"]["containers"][0]["env"]}
        assert env["LWS_LEADER_ADDRESS"].startswith(leaders[0]["metadata"]["name"])
        assert pod["metadata"]["labels"]["tonnage.dev/plan"]
    slices = room.cluster.find(
        "endpointslices", namespace=room.namespace, labels="kubernetes.io/service-name=chat"
    )
    reached = [e["targetRef"]["name"] for one in slices for e in one.get("endpoints") or ()]
    assert reached == [pod["metadata"]["name"] for pod in leaders]


def _serves_all_the_time(room: Room, done: Any) -> None:
    """Until `done`, a leader or a worker alone is always ready."""

    def probe() -> bool:
        pods = room.cluster.find("pods", namespace=room.namespace, labels=LEADERS)
        ready = [
            pod
            for pod in pods
            if any(
                c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ())
            )
        ]
        assert ready, "nothing serves"
        return bool(done())

    wait_until("one workload to have taken over", probe, seconds=90, every_seconds=0.1)


def _next_set_serves_before_the_first_goes(room: Room, first: dict[str, Any]) -> None:
    room.put("chat", hardware=SPREAD, engine={"env": [{"name": "A", "value": "b"}]})

    def replaced() -> bool:
        found = sets(room)
        return len(found) == 1 and found[0]["metadata"]["uid"] != first["metadata"]["uid"]

    _serves_all_the_time(room, replaced)
    room.is_ready("chat")


def _a_deployment_takes_over_and_hands_back(room: Room) -> None:
    room.put("chat", hardware=SINGLE)
    _serves_all_the_time(room, lambda: not sets(room))
    room.is_ready("chat")
    room.put("chat", hardware=SPREAD)

    def handed_back() -> bool:
        return room.cluster.get("deployment", "chat", namespace=room.namespace) is None

    _serves_all_the_time(room, handed_back)
    room.is_ready("chat")
    assert condition(room.cluster, "Available", namespace=room.namespace)["status"] == "True"


def test_two_groups_wait_for_nodes_of_their_pool_as_whole_replicas(room: Room, bare: None) -> None:
    """Were both begun at once, each leader would have one of the two nodes, and nothing would serve."""
    for name in ("h100-0", "h100-0"):
        room.add(name, gpus=1)
    room.add("l4-0", gpus=1)
    room.add("l4-0", gpus=1)
    with group_controller(room.cluster):
        room.put("chat", hardware={**SPREAD, "products": ["NVIDIA-H100-80GB-HBM3"]}, replicas=2)
        wait_for(room.cluster, "Available", "True", namespace=room.namespace)

        def waits() -> bool:
            found = condition(room.cluster, "Progressing", namespace=room.namespace)
            return "has no node" in found.get("message", "")

        wait_until("the second to be told of", waits)
        for name in ("h100-0", "h100-0"):
            room.add(name, gpus=1)
        room.is_ready("chat")
        used = {*nodes_of(room, LEADERS), *nodes_of(room, FOLLOWERS)}
        assert len(used) == 4
        assert not used & set(room.nodes[2:4])
