"""Who may count on which devices: order, no double booking, whatever the order of asking."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonnage.gpus.inventory import Access, Inventory, Pool, PoolNode, Sharing, Vendor
from tonnage.gpus.reservations import Need, Settlement, rank, settle, take_off
from unit.gpus.lines import Line, line_up


def inventory(**pools: list[int]) -> Inventory:
    """Pools with nodes of that many free devices: `h100=[8, 4]` has h100-0 and h100-1."""
    return Inventory(
        pools=tuple(
            Pool(
                name=name,
                vendor=Vendor.NVIDIA,
                product=name,
                memory_bytes=2**36,
                memory_source="",
                access=Access.RESOURCE,
                resource="nvidia.com/gpu",
                sharing=Sharing.TIME_SLICING if name == "shared" else Sharing.NONE,
                nodes=tuple(
                    PoolNode(name=f"{name}-{at}", devices=8, free=free, cpu_millis=32_000, memory_bytes=64)
                    for at, free in enumerate(nodes)
                ),
            )
            for name, nodes in sorted(pools.items())
        )
    )


def need(key: str, pods: int = 1, devices: int = 1, **fields: Any) -> Need:
    return Need(**{"key": key, "pool": "h100", "pods": pods, "devices": devices, **fields})


def granted(result: Settlement | Line) -> dict[str, tuple[str, ...]]:
    return {each.key: each.nodes for each in result.granted}


def refused(result: Line) -> list[str]:
    return [each.key for each in result.refused]


def free(of: Inventory) -> dict[str, int]:
    return {node.name: node.free for pool in of.pools for node in pool.nodes}


def test_priority_then_age_then_name() -> None:
    ordered = [
        need("a/urgent", priority=10, created="2026-03-01T00:00:00Z"),
        need("a/old", created="2026-01-01T00:00:00Z"),
        need("a/new", created="2026-02-01T00:00:00Z"),
        need("b/new", created="2026-02-01T00:00:00Z"),
    ]
    assert sorted({each.key: each for each in ordered[::-1]}.values(), key=rank) == ordered
    result = line_up(inventory(h100=[2]), ordered[::-1])
    assert list(granted(result)) == ["a/urgent", "a/old"]
    assert refused(result) == ["a/new", "b/new"]


def test_a_pod_takes_its_devices_on_one_node() -> None:
    split = line_up(inventory(h100=[2, 2]), [need("a/big", devices=4), need("b/small", devices=2)])
    assert granted(split) == {"b/small": ("h100-0",)}
    two = line_up(inventory(h100=[8, 4]), [need("a/two", pods=2, devices=4)])
    assert granted(two) == {"a/two": ("h100-1", "h100-0")}
    assert free(two.left) == {"h100-0": 4, "h100-1": 0}


def test_small_pods_leave_whole_nodes_whole() -> None:
    result = line_up(inventory(h100=[8, 3, 1]), [need("a/a", pods=4), need("b/b", devices=8)])
    assert granted(result) == {"a/a": ("h100-2", "h100-1", "h100-1", "h100-1"), "b/b": ("h100-0",)}


def test_what_was_accepted_is_not_displaced() -> None:
    held = need("a/low", devices=8, nodes=("h100-0",))
    urgent = need("b/urgent", devices=8, priority=100)
    result = line_up(inventory(h100=[8]), [urgent], reserved=[held])
    assert granted(result) == {"a/low": ("h100-0",)}
    assert refused(result) == ["b/urgent"]
    assert refused(line_up(inventory(h100=[8]), [held, urgent])) == ["a/low"]


def test_an_accepted_plan_goes_where_there_is_room_now() -> None:
    held = need("a/a", pods=2, devices=4, nodes=("h100-0", "h100-1"))
    assert granted(settle(inventory(h100=[4, 4, 8]), reserved=[held])) == {"a/a": ("h100-0", "h100-1")}
    assert granted(settle(inventory(h100=[2, 4, 8]), reserved=[held])) == {"a/a": ("h100-1", "h100-2")}
    assert granted(settle(inventory(h100=[2, 4, 2]), reserved=[held])) == {"a/a": ("h100-1",)}


def test_pools_do_not_mix_and_shares_are_not_added_up() -> None:
    room = inventory(h100=[1], shared=[4])
    result = line_up(room, [need("a/a", devices=2, pool="shared"), need("a/b", pods=3, pool="shared")])
    assert granted(result) == {"a/b": ("shared-0",) * 3}
    assert refused(line_up(room, [need("a/a", pool="gone")])) == ["a/a"]


def test_needs_stay_on_the_nodes_they_may_use() -> None:
    """What is held elsewhere takes nothing here, and the other way round."""
    room = inventory(h100=[4, 4])
    there = need("a/there", devices=4, usable=frozenset({"h100-1"}), nodes=("h100-1",))
    here = need("b/here", devices=4, usable=frozenset({"h100-0"}))
    result = line_up(room, [replace(here, pods=2), replace(here, key="b/later")], reserved=[there])
    assert granted(result) == {"a/there": ("h100-1",), "b/later": ("h100-0",)}
    gone = settle(room, reserved=[replace(there, nodes=("h100-9",))])
    assert granted(gone) == {"a/there": ("h100-1",)}


def test_devices_count_only_as_far_as_pods_get_their_main_memory_and_cpu_beside_them() -> None:
    """64 bytes and 32 CPUs a node, eight devices free."""
    for each, pods in (({"memory_bytes": 20}, 3), ({"cpu_millis": 16_000}, 2), ({"memory_bytes": 65}, 0)):
        (found,) = settle(inventory(h100=[8]), reserved=[need("a/a", pods=4, **each)]).granted
        assert found.nodes == ("h100-0",) * pods
    room = inventory(h100=[8, 8])
    first = need("a/first", pods=2, memory_bytes=40)
    result = line_up(room, [first, need("b/second", memory_bytes=25), need("c/third", memory_bytes=24)])
    assert granted(result) == {"a/first": ("h100-0", "h100-1"), "c/third": ("h100-0",)}
    assert [node.memory_bytes for node in result.left.pools[0].nodes] == [0, 24]
    assert take_off(room, result.granted) == result.left


def test_what_one_pool_takes_of_a_node_another_pool_lacks() -> None:
    """Cards and partitions of cards may be on one node: its main memory is there once."""
    room = inventory(h100=[4], l4=[4])
    both = tuple(
        replace(pool, nodes=(replace(pool.nodes[0], name="n", memory_bytes=64),)) for pool in room.pools
    )
    room = replace(room, pools=both)
    result = line_up(room, [need("a/a", memory_bytes=40), need("b/b", pool="l4", memory_bytes=30)])
    assert (granted(result), refused(result)) == ({"a/a": ("n",)}, ["b/b"])
    assert {node.memory_bytes for pool in result.left.pools for node in pool.nodes} == {24}


# Fifty objects compete


@st.composite
def contests(draw: st.DrawFn) -> tuple[Inventory, list[Need]]:
    """Up to fifty objects for nodes with too few devices."""
    room = inventory(
        h100=draw(st.lists(st.integers(0, 8), max_size=8)), l4=draw(st.lists(st.integers(0, 2), max_size=4))
    )
    names = [node.name for pool in room.pools for node in pool.nodes]
    needs = [
        need(
            f"ns/o{number}",
            pods=draw(st.integers(1, 3)),
            devices=draw(st.sampled_from([1, 1, 2, 4, 8])),
            memory_bytes=draw(st.sampled_from([0, 0, 10, 30])),
            cpu_millis=draw(st.sampled_from([0, 1000, 10_000])),
            pool=draw(st.sampled_from(["h100", "h100", "h100", "l4"])),
            priority=draw(st.integers(0, 3)),
            created=f"2026-01-{draw(st.integers(1, 9)):02}T00:00:00Z",
            usable=draw(st.none() | st.frozensets(st.sampled_from(names)) if names else st.none()),
        )
        for number in range(draw(st.integers(0, 50)))
    ]
    return room, needs


def booked(needs: tuple[Need, ...]) -> dict[str, int]:
    places = sorted((name, each.devices) for each in needs for name in each.nodes)
    return {name: sum(count for _, count in group) for name, group in groupby(places, key=lambda one: one[0])}


@given(contest=contests())
def test_nothing_is_booked_twice(contest: tuple[Inventory, list[Need]]) -> None:
    room, needs = contest
    result = line_up(room, needs)
    before, taken = free(room), booked(result.granted)
    assert free(result.left) == {name: count - taken.get(name, 0) for name, count in before.items()}
    assert min(free(result.left).values(), default=0) >= 0
    left = {node.name: node for pool in result.left.pools for node in pool.nodes}
    for name, node in left.items():
        here = [each for each in result.granted for place in each.nodes if place == name]
        assert node.memory_bytes == 64 - sum(each.memory_bytes for each in here) >= 0
        assert node.cpu_millis == 32_000 - sum(each.cpu_millis for each in here) >= 0
    assert sorted([*granted(result), *refused(result)]) == sorted(each.key for each in needs)
    assert all(len(each.nodes) == each.pods for each in result.granted)


@given(contest=contests(), data=st.data())
def test_in_order_of_rank(contest: tuple[Inventory, list[Need]], data: st.DataObject) -> None:
    """Whoever is refused would be so if nobody behind it were there; whoever is granted gets the same."""
    room, needs = contest
    result = line_up(room, data.draw(st.permutations(needs)))
    assert result == line_up(room, needs)
    for each in needs:
        ahead = [other for other in needs if rank(other) <= rank(each)]
        alone = line_up(room, ahead)
        assert granted(alone).get(each.key) == granted(result).get(each.key)


@settings(max_examples=30)
@given(contest=contests(), data=st.data())
def test_every_order_of_asking_ends_the_same(
    contest: tuple[Inventory, list[Need]], data: st.DataObject
) -> None:
    """Objects are looked at one at a time, in any order and again; each sees all others, and what it is given
    it keeps. The end is that of looking at all at once."""
    room, needs = contest
    accepted: dict[str, Need] = {}
    order = [*data.draw(st.permutations(needs)), *needs]
    for each in order:
        waiting = [other for other in needs if other.key not in accepted]
        result = line_up(room, waiting, reserved=accepted.values())
        nodes = granted(result).get(each.key)
        if nodes:
            accepted[each.key] = replace(each, nodes=nodes)
    assert {key: each.nodes for key, each in accepted.items()} == granted(line_up(room, needs))


@given(contest=contests())
def test_one_after_another_from_what_is_left_is_all_at_once(contest: tuple[Inventory, list[Need]]) -> None:
    room, needs = contest
    left, given = room, dict[str, tuple[str, ...]]()
    for each in sorted(needs, key=rank):
        result = line_up(left, [each])
        left, given = result.left, given | granted(result)
    at_once = line_up(room, needs)
    assert (left, given) == (at_once.left, granted(at_once))


@given(contest=contests(), data=st.data())
def test_what_is_freed_is_given_on(contest: tuple[Inventory, list[Need]], data: st.DataObject) -> None:
    """When a holder goes, the first in order that fits now is granted, and nobody loses anything."""
    room, needs = contest
    before = line_up(room, needs)
    if not before.granted or not before.refused:
        return
    gone = data.draw(st.sampled_from(before.granted))
    kept = [each for each in before.granted if each is not gone]
    waiting = [each for each in needs if each.key in refused(before)]
    after = line_up(room, waiting, reserved=kept)
    assert {each.key for each in kept} <= granted(after).keys()
    fits = [
        each
        for each in sorted(waiting, key=rank)
        if line_up(room, [each], reserved=kept).granted[len(kept) :]
    ]
    assert granted(after).keys() >= {each.key for each in fits[:1]}


@pytest.mark.parametrize("free_devices", [0, 1, 7, 8, 50])
def test_fifty_objects_for_one_pool(free_devices: int) -> None:
    needs = [need(f"ns/{number:02}", priority=number % 5) for number in range(50)]
    room = inventory(h100=[free_devices])
    result = line_up(room, needs)
    assert list(granted(result)) == [each.key for each in sorted(needs, key=rank)][:free_devices]
