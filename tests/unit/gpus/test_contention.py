"""Fifty objects compete for too few GPUs, from the records of nodes and pods on: asked in any order, while
pods are bound one by one, no device is given twice, and those that get theirs are the first by rank."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tonnage.gpus.discover import take_inventory
from tonnage.gpus.inventory import Inventory
from tonnage.gpus.nodes import Node
from tonnage.gpus.pods import PodUse
from tonnage.gpus.reservations import Need, rank, settle
from unit.gpus.clusters import GPU, holder, node
from unit.gpus.lines import line_up

POOL = "nvidia-h100-80gb-hbm3"
OBJECTS = 50


@dataclass
class World:
    """A cluster and its objects: who waits, whose plan is accepted, and which of their pods run."""

    nodes: tuple[Node, ...]
    waiting: dict[str, Need]
    accepted: dict[str, Need] = field(default_factory=dict)
    pods: list[PodUse] = field(default_factory=list)

    def inventory(self) -> Inventory:
        return take_inventory(self.nodes, pods=self.pods)

    def unbound(self) -> list[Need]:
        """What accepted plans still need."""
        bound = Counter(pod.deployment for pod in self.pods)
        left = (replace(each, pods=each.pods - bound[each.key]) for each in self.accepted.values())
        return [replace(each, nodes=each.nodes[-each.pods :]) for each in left if each.pods]

    def ask(self, key: str) -> None:
        """One object is looked at: it sees all others, and what it is given it keeps."""
        if key not in self.waiting:
            return
        result = line_up(self.inventory(), self.waiting.values(), reserved=self.unbound())
        for each in result.granted:
            if each.key == key:
                self.accepted[key] = each
                del self.waiting[key]

    def bind(self, key: str) -> None:
        """The next pod of an object gets its node."""
        for each in self.unbound():
            if each.key == key:
                name = f"{key}-{len(self.pods)}"
                self.pods.append(holder(each.nodes[0], each.devices, name=name, deployment=key))

    def check(self) -> None:
        """No node has given more devices than it has, to pods and to plans whose pods are still to come."""
        given_away: Counter[str] = Counter()
        for pod in self.pods:
            given_away[pod.node] += pod.resources[GPU]
        for each in self.unbound():
            given_away.update(dict.fromkeys(each.nodes, 0))
            for name in each.nodes:
                given_away[name] += each.devices
        assert all(given_away[each.name] <= each.allocatable[GPU] for each in self.nodes)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    sizes = draw(st.lists(st.integers(1, 8), min_size=1, max_size=6))
    nodes = tuple(
        replace(node("h100-0"), name=f"n{at}", capacity={GPU: 8}, allocatable={GPU: size})
        for at, size in enumerate(sizes)
    )
    needs = {
        f"o{number:02}": Need(
            key=f"o{number:02}",
            pool=POOL,
            pods=draw(st.integers(1, 2)),
            devices=draw(st.sampled_from([1, 1, 1, 2, 4])),
            priority=draw(st.integers(0, 3)),
            created=f"2026-01-{draw(st.integers(1, 9)):02}T00:00:00Z",
        )
        for number in range(OBJECTS)
    }
    return World(nodes=nodes, waiting=needs)


@settings(max_examples=15)
@given(world=worlds(), data=st.data())
def test_fifty_objects_settle_without_a_double_booking_in_order_of_priority(
    world: World, data: st.DataObject
) -> None:
    needs = dict(world.waiting)
    assert sum(each.pods * each.devices for each in needs.values()) > sum(
        each.allocatable[GPU] for each in world.nodes
    )
    at_once = line_up(world.inventory(), needs.values())
    steps = [(act, key) for key in needs for act in (World.ask, World.bind)]
    for act, key in data.draw(st.permutations(steps)):
        act(world, key)
        world.check()
    for key in sorted(needs):
        world.ask(key)
    world.check()
    assert {key: Counter(each.nodes) for key, each in world.accepted.items()} == {
        each.key: Counter(each.nodes) for each in at_once.granted
    }
    for loser in at_once.refused:
        ahead = [each for each in at_once.granted if rank(each) < rank(needs[loser.key])]
        left = settle(take_inventory(world.nodes), reserved=ahead).left
        assert line_up(left, [loser]).refused


@settings(max_examples=15)
@given(world=worlds(), data=st.data())
def test_what_is_freed_goes_to_the_first_that_waits_without_a_human(
    world: World, data: st.DataObject
) -> None:
    """Objects are deleted while others run; whoever fits then is granted, and those that run keep theirs."""
    for key in sorted(world.waiting):
        world.ask(key)
        world.bind(key)
    for gone in data.draw(st.lists(st.sampled_from(sorted(world.accepted)), unique=True, max_size=5)):
        kept = {key: each.nodes for key, each in world.accepted.items() if key != gone}
        del world.accepted[gone]
        world.pods = [pod for pod in world.pods if pod.deployment != gone]
        for key in data.draw(st.permutations(sorted(world.waiting))):
            world.ask(key)
            world.check()
        assert kept.items() <= {key: each.nodes for key, each in world.accepted.items()}.items()
        for each in world.waiting.values():
            ahead = [other for other in world.waiting.values() if rank(other) < rank(each)]
            mine = line_up(world.inventory(), ahead, reserved=world.unbound()).left
            assert line_up(mine, [each]).refused
