"""Arbitration: the first in rank gets what there is, nobody counts on what another holds, and losers learn
who does."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tonnage.gpus.nodes import Toleration
from tonnage.gpus.placement import Placement
from tonnage.gpus.pods import PodUse
from tonnage.gpus.records import Records
from tonnage.gpus.reservations import Need
from tonnage.gpus.slices import DeviceRef, ResourceClaim
from tonnage.planning.gpu.contend import Contender, Site, contend, need_of, plan_next, room_of
from tonnage.planning.gpu.question import Hardware
from tonnage.planning.plan import Demand, Plan, Rejection
from unit.gpus import clusters
from unit.gpus.clusters import GPU, holder, node
from unit.planning.gpu.samples import ENGINE, LLAMA_8B, LLAMA_70B

TOLERANT = Placement(tolerations=(Toleration(operator="Exists"),))


def contender(key: str, **changes: Any) -> Contender:
    tensor = changes.pop("tensor", 4)
    fields: dict[str, Any] = {
        "key": f"ns/{key}",
        "created": "2026-01-01T00:00:00Z",
        "priority": 0,
        "demand": Demand(context_length=4096),
        "model": LLAMA_8B,
        "engine": ENGINE,
        "hardware": Hardware(tensor_parallel=tensor),
        "placement": TOLERANT,
        "replicas": 1,
        **changes,
    }
    return Contender(**fields)


def site(*nodes: str, pods: tuple[PodUse, ...] = (), accepted: tuple[Need, ...] = ()) -> Site:
    found = Records(nodes=tuple(map(node, nodes)), pods=pods)
    return Site(hardware=found, accepted=accepted, prices={})


def refused(found: Plan | Rejection, reason: str = "NotEnoughGpus") -> str:
    assert isinstance(found, Rejection), found
    assert found.reason == reason
    return found.message


def test_the_higher_priority_is_first_then_the_older_then_the_name() -> None:
    asked = [
        contender("c", tensor=4),
        contender("b", tensor=4),
        contender("old", tensor=4, created="2025-01-01T00:00:00Z"),
        contender("urgent", tensor=4, priority=5, created="2027-01-01T00:00:00Z"),
    ]
    found = contend(asked, site=site("h100-0"))
    assert {key for key, outcome in found.items() if isinstance(outcome, Plan)} == {"ns/urgent", "ns/old"}
    assert "4 by ns/old, 4 by ns/urgent" in refused(found["ns/b"])
    three = contend([each for each in asked if each.key != "ns/urgent"], site=site("h100-0"))
    assert isinstance(three["ns/b"], Plan)
    assert isinstance(three["ns/c"], Rejection)


def test_pods_that_run_are_named_as_holders() -> None:
    pods = (
        holder("h100-0", 5, name="a", namespace="team", deployment="llama"),
        holder("h100-0", 1, name="b"),
    )
    found = contend([contender("a")], site=site("h100-0", pods=pods))
    assert "NVIDIA-H100-80GB-HBM3: 5 by team/llama, 1 by other pods" in refused(found["ns/a"])


def test_claims_are_named_as_holders() -> None:
    names = {"gpu-0": "llama", "gpu-1": "", "gone": "other"}
    claims = tuple(
        ResourceClaim(
            namespace="team",
            name=device,
            deployment=deployment,
            devices=(DeviceRef("gpu.nvidia.com", "dra-0", device),),
        )
        for device, deployment in names.items()
    )
    found = replace(clusters.real(), nodes=(node("dra-0"),), claims=claims)
    where = Site(hardware=found, prices={})
    message = refused(contend([contender("a", tensor=1)], site=where)["ns/a"])
    assert "in use: NVIDIA-H100-80GB-HBM3: 1 by other pods, 1 by team/llama" in message


def test_pods_of_an_accepted_plan_have_their_devices_before_they_have_a_node() -> None:
    first = contender("first", replicas=2)
    outcome, _ = plan_next(first, site=site("h100-0"), room=room_of(site("h100-0")))
    assert isinstance(outcome, Plan)
    assert outcome.gpu is not None
    inventory = site("h100-0").inventory(placement=first.placement)
    need = need_of(first, outcome, gpu=outcome.gpu, inventory=inventory)
    assert (need.pods, need.devices, need.usable) == (2, 4, frozenset({"h100-0"}))
    found = contend([contender("b", priority=9)], site=site("h100-0", accepted=(need,)))
    assert "8 by ns/first" in refused(found["ns/b"])


def test_whoever_has_no_use_for_what_is_left_does_not_keep_it_from_others() -> None:
    busy = (holder("h100-0", 6, name="x"),)
    asked = [contender("large", priority=9, tensor=8), contender("small", tensor=2)]
    found = contend(asked, site=site("h100-0", pods=busy))
    assert isinstance(found["ns/large"], Rejection)
    assert isinstance(found["ns/small"], Plan)


def test_an_object_that_is_planned_anew_counts_its_own_devices_as_free() -> None:
    own = (holder("h100-0", 8, name="x", deployment="a"),)
    found = contend([contender("a", tensor=8)], site=site("h100-0", pods=own))
    assert isinstance(found["ns/a"], Plan)


@pytest.mark.parametrize(("busy", "fits"), [(4, True), (5, False)])
def test_a_new_plan_beside_pods_that_serve_needs_room_for_one_replica(busy: int, fits: bool) -> None:
    own = (running("x", busy),)
    asked = contender("a", surges=True)
    (found,) = contend([asked], site=site("h100-0", pods=own)).values()
    if fits:
        assert isinstance(found, Plan)
    else:
        assert "rollout.allowDowntime" in refused(found, "NoRoomForSurge")
    (found,) = contend([replace(asked, surges=False)], site=site("h100-0", pods=own)).values()
    assert isinstance(found, Plan)


def running(name: str, gpus: int, **fields: Any) -> PodUse:
    """A worker of the object `ns/a`."""
    return holder("h100-0", gpus, name=name, **{"deployment": "a", "plan": "h1", "ready": True, **fields})


@pytest.mark.parametrize(
    ("last", "fits"),
    [
        ({}, False),
        ({"leaving": True}, True),
        ({"ready": False}, True),
        ({"ready": False, "deployment": "b"}, False),
        ({"leaving": True, "namespace": "other"}, False),
    ],
    ids=["serves", "leaves", "one too many that never served", "of another", "of its namesake"],
)
def test_what_a_roll_out_ends_by_itself_is_room_for_the_next(last: dict[str, Any], fits: bool) -> None:
    """Of eight devices two pods have all; a failed roll-out must not keep its own remedy out."""
    asked = contender("a", surges=True)
    pods = (running("first", 4), running("last", 4, **last))
    found = contend([asked], site=site("h100-0", pods=pods))["ns/a"]
    assert isinstance(found, Plan) if fits else refused(found, "NoRoomForSurge")
    # whoever it is, others do not count on it
    assert "8 by" in refused(contend([contender("c")], site=site("h100-0", pods=pods))["ns/c"]) or last


def test_pods_that_are_not_ready_count_as_long_as_there_are_no_more_than_are_wanted() -> None:
    pods = (running("first", 4, ready=False), running("last", 4, ready=False))
    for replicas, fits in ((1, True), (2, False)):
        asked = contender("a", surges=True, replicas=replicas)
        found = contend([asked], site=site("h100-0", pods=pods))["ns/a"]
        assert isinstance(found, Plan) == fits, replicas


def test_the_claims_of_pods_that_leave_go_with_them() -> None:
    claims = tuple(ResourceClaim(namespace=where, name="c", deployment="a") for where in ("ns", "other"))
    leaving = running("x", 1, leaving=True, claims=("c",))
    left = Records(pods=(leaving,), claims=claims).as_rolled_out("ns/a", pods=1)
    assert (left.pods, left.claims) == ((), claims[1:])
    staying = Records(pods=(replace(leaving, leaving=False),), claims=claims)
    assert staying.as_rolled_out("ns/a", pods=1) == staying


def test_the_plan_in_force_made_anew_needs_no_room_beside_itself() -> None:
    pods = (running("x", 8),)
    asked = contender("a", surges=True)
    (plan,) = contend([replace(asked, surges=False)], site=site("h100-0", pods=pods)).values()
    assert isinstance(plan, Plan)
    for in_force, fits in ((plan, True), (replace(plan, max_num_seqs=1), False), (None, False)):
        (found,) = contend([replace(asked, in_force=in_force)], site=site("h100-0", pods=pods)).values()
        assert (found == plan) == fits


@pytest.mark.parametrize(
    ("replicas", "tensor", "fits"),
    [(2, 4, True), (2, 8, False), (1, 8, True)],
    ids=["as large", "larger", "one"],
)
def test_what_replaces_a_plan_whose_workers_fail_has_room_once_one_of_them_is_gone(
    replicas: int, tensor: int, fits: bool
) -> None:
    before = contend([contender("a", tensor=4)], site=site("h100-0"))["ns/a"]
    assert isinstance(before, Plan)
    pods = tuple(running(f"x{number}", 4, ready=True) for number in range(2))
    asked = contender(
        "a", surges=True, replicas=replicas, tensor=tensor, in_force=before, withheld_bytes=2**30
    )
    found = contend([asked], site=site("h100-0", pods=pods))["ns/a"]
    assert isinstance(found, Plan) if fits else refused(found, "NoRoomForSurge")


def test_room_for_a_surge_is_where_a_pod_would_be_given_main_memory_too() -> None:
    """Devices are free on a node whose main memory others have."""
    crowd = holder("h200-0", 1, name="crowd", memory_bytes=node("h200-0").memory_allocatable_bytes)
    pods = (running("x", 8), crowd)
    asked = contender("a", surges=True, placement=replace(TOLERANT, memory_bytes=2**30))
    found = contend([asked], site=site("h100-0", "h200-0", pods=pods))["ns/a"]
    refused(found, "NoRoomForSurge")
    (found,) = contend([asked], site=site("h100-0", "h200-0", pods=pods[:1])).values()
    assert isinstance(found, Plan)


def with_memory(gib: float) -> Records:
    """A node with eight H100 and so much main memory."""
    return Records(nodes=(replace(node("h100-0"), memory_allocatable_bytes=int(gib * 2**30)),))


def test_devices_count_only_as_far_as_there_is_main_memory_for_their_pods() -> None:
    """A pod with one device requests 10 GiB; its class of memory is found to be the node's."""
    one = {"tensor": 1}
    asked = [contender(name, **one) for name in "abc"]
    found = contend(asked, site=Site(hardware=with_memory(25), prices={}))
    assert [isinstance(found[f"ns/{name}"], Plan) for name in "abc"] == [True, True, False]
    message = refused(found["ns/c"])
    assert "no node has 1 H100-80GB free with 10.00 GiB of main memory" in message.replace(
        "NVIDIA-H100-80GB-HBM3", "H100-80GB"
    )
    assert "of main memory: node h100-0 lacks 5.00 GiB of it" in message
    two, *_ = contend(
        [contender("a", replicas=3, **one)], site=Site(hardware=with_memory(25), prices={})
    ).values()
    assert isinstance(two, Plan)


def test_pods_of_an_accepted_plan_have_their_main_memory_and_cpu_before_they_have_a_node() -> None:
    whole = with_memory(25)
    pool = next(each.name for each in whole.inventory().pools)
    held = Need(key="ns/x", pool=pool, pods=1, devices=1, memory_bytes=16 * 2**30, nodes=("h100-0",))
    of_one = contender("a", tensor=1)
    refused(contend([of_one], site=Site(hardware=whole, accepted=(held,), prices={}))["ns/a"])
    busy = replace(held, memory_bytes=0, cpu_millis=whole.nodes[0].cpu_allocatable_millis)
    with_cpu = replace(of_one, placement=replace(TOLERANT, cpu_millis=1000))
    refused(contend([with_cpu], site=Site(hardware=whole, accepted=(busy,), prices={}))["ns/a"])
    none = replace(busy, cpu_millis=busy.cpu_millis - 1000)
    found = contend([with_cpu], site=Site(hardware=whole, accepted=(none,), prices={}))["ns/a"]
    assert isinstance(found, Plan)


def test_where_there_is_no_accelerator_that_can_be_used_it_is_said_why() -> None:
    cordoned, cpu = (replace(node(name), schedulable=False) for name in ("h100-0", "cpu-0"))
    where = Site(hardware=Records(nodes=(cordoned, cpu)), prices={})
    text = refused(contend([contender("a")], site=where)["ns/a"], "NoAccelerators")
    assert "left out: h100-0" in text
    # of a node without any it would help nobody
    assert "cpu-0" not in text


def test_nodes_that_were_left_out_are_named() -> None:
    cordoned = replace(node("h100-0"), schedulable=False)
    where = Site(hardware=Records(nodes=(cordoned, node("l4-0"))), prices={})
    (found,) = contend([contender("a", model=LLAMA_70B, tensor=8)], site=where).values()
    assert isinstance(found, Rejection)
    assert "left out: h100-0: 8 of " in found.message
    assert "cordoned" in found.message


def test_a_stated_inventory_knows_no_pods_but_those_of_accepted_plans() -> None:
    stated = site("h100-0").inventory()
    need = Need(key="ns/a", pool=stated.pools[0].name, pods=1, devices=8)
    where = Site(hardware=stated, accepted=(need,), prices={})
    assert "8 by ns/a" in refused(contend([contender("b")], site=where)["ns/b"])
    assert isinstance(contend([contender("a")], site=where)["ns/a"], Plan)


CONTENDERS = st.lists(
    st.builds(
        lambda tensor, priority, age, replicas: (tensor, priority, f"2026-01-{age:02}T00:00:00Z", replicas),
        st.sampled_from([1, 2, 4, 8]),
        st.integers(0, 2),
        st.integers(1, 9),
        st.integers(1, 3),
    ),
    min_size=2,
    max_size=50,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONTENDERS, st.integers(0, 7), st.randoms(use_true_random=False))
def test_fifty_settle_without_a_double_booking_in_order_whoever_asks_first(
    drawn: list[tuple[int, int, str, int]], busy: int, shuffler: random.Random
) -> None:
    asked = [
        contender(f"o{at:02}", tensor=tensor, priority=priority, created=created, replicas=replicas)
        for at, (tensor, priority, created, replicas) in enumerate(drawn)
    ]
    pods = (holder("h100-0", busy, name="x"),) if busy else ()
    where = site("h100-0", "h200-0", pods=pods)
    found = contend(asked, site=where)
    shuffler.shuffle(asked)
    assert contend(asked, site=where) == found
    _nobody_is_booked_twice(asked, found, where)
    for each in asked:
        # what is behind somebody in rank changes nothing for it
        ahead = [other for other in asked if other.rank <= each.rank]
        assert contend(ahead, site=where)[each.key] == found[each.key]


def _nobody_is_booked_twice(asked: list[Contender], found: dict[str, Plan | Rejection], where: Site) -> None:
    """Every replica that was counted on has devices of its own: at least one of each plan, on one node."""
    free = {(p.name, n.name): n.free for p in where.inventory().pools for n in p.nodes}
    room, taken = room_of(where), Counter[tuple[str, str]]()
    for each in sorted(asked, key=lambda one: one.rank):
        outcome, room = plan_next(each, site=where, room=room, explain=False)
        assert isinstance(outcome, Plan) == isinstance(found[each.key], Plan)
    for need in room.granted:
        assert need.nodes
        assert len(need.nodes) <= need.pods
        for name in need.nodes:
            taken[need.pool, name] += need.devices
    assert all(count <= free[place] for place, count in taken.items())
    assert {need.key for need in room.granted} == {k for k, o in found.items() if isinstance(o, Plan)}


def test_the_resource_of_a_holder_is_that_of_the_pool() -> None:
    assert Records(nodes=(), pods=(holder("n", 2),)).devices_on(GPU, nodes={"n"}) == {"": 2}
    assert Records(nodes=(), pods=(holder("n", 2),)).devices_on("amd.com/gpu", nodes={"n"}) == {}
    assert Records(nodes=(), pods=(holder("n", 2, phase="Failed"),)).devices_on(GPU, nodes={"n"}) == {}
