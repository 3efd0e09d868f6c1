"""Who may count on which devices: plans that are accepted, and their pods that are not bound yet.

Pods that are bound are in the inventory already. A pod takes all its devices on one node, with the CPU and
main memory that it requests, so what counts is not how many are free but how many pods find a node. Pods go
to nodes in one fixed order, those first that others than LLMDeployments have filled most: what an object
would be given does not change when those behind it are taken off too, nor when pods are bound, so that every
order of asking ends the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from tonnage.gpus.inventory import Inventory, Pool, PoolNode, Sharing


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """`pods` pods of one object that are not bound yet, each with `devices` (1 or more) of a node of `pool`,
    and of the same node the CPU and main memory that it requests.

    `key` is `namespace/name`, `priority` that of its priority class, `created` its creation time as the API
    writes it (RFC 3339 in UTC, which sorts as text). `usable` are the nodes that its pods may be placed on,
    None for all of the pool. `nodes` is where it was granted, one name a pod; empty where that is not known.
    """

    key: str
    pool: str
    pods: int
    devices: int
    cpu_millis: int = 0
    memory_bytes: int = 0
    priority: int = 0
    created: str = ""
    usable: frozenset[str] | None = None
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What every object gets: its need with the nodes that there are for it, and what is `left` of the
    inventory for anybody else."""

    granted: tuple[Need, ...]
    left: Inventory


def rank(need: Need) -> tuple[int, str, str]:
    """What comes first: the higher priority, then the older object, then the name."""
    return -need.priority, need.created, need.key


def settle(inventory: Inventory, *, reserved: Iterable[Need]) -> Settlement:
    """Give what is free to accepted plans, in order of their rank.

    `inventory` is of all nodes that any of them could use (`take_inventory` with a placement that tolerates
    every taint), since what one holds must be taken off where it holds it; `Need.usable` tells them apart.
    Where somebody else took devices, as many pods as find a node still count.
    """
    room = _Room(inventory)
    granted = tuple(room.take(need, room.places(need)) for need in sorted(reserved, key=rank))
    return Settlement(granted=granted, left=room.inventory())


@dataclass(slots=True)
class _Taken:
    """What pods take of one node beside devices."""

    cpu_millis: int = 0
    memory_bytes: int = 0


def take_off(inventory: Inventory, granted: Iterable[Need]) -> Inventory:
    """The inventory less what was granted, on the nodes where it was."""
    devices: Counter[tuple[str, str]] = Counter()
    beside: dict[str, _Taken] = {}
    for need in granted:
        for node in need.nodes:
            devices[need.pool, node] += need.devices
            taken = beside.setdefault(node, _Taken())
            taken.cpu_millis += need.cpu_millis
            taken.memory_bytes += need.memory_bytes
    return _without(inventory, devices, beside)


def _without(
    inventory: Inventory, devices: Mapping[tuple[str, str], int], beside: Mapping[str, _Taken]
) -> Inventory:
    """The inventory less devices by pool and node, and what pods take beside them by node: of all pools that
    have a part of it."""
    if not beside:
        return inventory
    pools = (
        replace(
            pool,
            nodes=tuple(
                _less(node, devices=devices.get((pool.name, node.name), 0), beside=beside[node.name])
                if node.name in beside
                else node
                for node in pool.nodes
            ),
        )
        for pool in inventory.pools
    )
    return replace(inventory, pools=tuple(pools))


def _less(node: PoolNode, *, devices: int, beside: _Taken) -> PoolNode:
    """What is given is ours already, so that who is given the next finds the nodes in the same order."""
    free = max(0, node.free - devices)
    return replace(
        node,
        free=free,
        ours=node.ours + node.free - free,
        cpu_millis=max(0, node.cpu_millis - beside.cpu_millis),
        memory_bytes=max(0, node.memory_bytes - beside.memory_bytes),
    )


class _Room:
    """What is free, while it is given away."""

    def __init__(self, inventory: Inventory) -> None:
        self.whole = inventory
        self.nodes = {pool.name: {node.name: node for node in pool.nodes} for pool in inventory.pools}
        self.order = {pool.name: _fullest_first(pool) for pool in inventory.pools}
        self.whole_devices = {pool.name for pool in inventory.pools if pool.sharing is Sharing.NONE}
        self.devices: Counter[tuple[str, str]] = Counter()
        self.beside: dict[str, _Taken] = {}

    def places(self, need: Need) -> list[str]:
        """One node for each pod that finds one: where it was granted before, if there is still room, else the
        fullest; nothing changes yet."""
        if need.devices > 1 and need.pool not in self.whole_devices:
            return []
        found: list[str] = []
        given: Counter[str] = Counter()
        for name, most in self._wishes(need):
            if len(found) == need.pods:
                break
            if need.usable is not None and name not in need.usable:
                continue
            pods = min(self._room_for(need, name) - given[name], need.pods - len(found), most)
            if pods > 0:
                given[name] += pods
                found.extend([name] * pods)
        return found

    def _wishes(self, need: Need) -> Iterator[tuple[str, int]]:
        before = ((name, 1) for name in need.nodes)
        return chain(before, ((name, need.pods) for name in self.order.get(need.pool, ())))

    def _room_for(self, need: Need, name: str) -> int:
        """Pods of the need that the node has room for: its devices, CPU and main memory."""
        node = self.nodes.get(need.pool, {}).get(name)
        if node is None:
            return 0
        pods = (node.free - self.devices[need.pool, name]) // need.devices
        beside = self.beside.get(name, _NOTHING)
        if need.cpu_millis:
            pods = min(pods, (node.cpu_millis - beside.cpu_millis) // need.cpu_millis)
        if need.memory_bytes:
            pods = min(pods, (node.memory_bytes - beside.memory_bytes) // need.memory_bytes)
        return max(0, pods)

    def take(self, need: Need, places: Sequence[str]) -> Need:
        """Give the need devices on these nodes."""
        for name in places:
            self.devices[need.pool, name] += need.devices
            taken = self.beside.setdefault(name, _Taken())
            taken.cpu_millis += need.cpu_millis
            taken.memory_bytes += need.memory_bytes
            if self.devices[need.pool, name] >= self.nodes[need.pool][name].free:
                self.order[need.pool].remove(name)
        return replace(need, nodes=tuple(places))

    def inventory(self) -> Inventory:
        """The inventory less what was given."""
        return _without(self.whole, self.devices, self.beside)


_NOTHING = _Taken()


def _fullest_first(pool: Pool) -> list[str]:
    """Names of the nodes with devices free, those with the fewest first, so that whole nodes stay whole.
    Devices of our own pods count as free, since the order must not change when a pod is bound."""
    usable = (node for node in pool.nodes if node.free)
    return [node.name for node in sorted(usable, key=lambda node: (node.free + node.ours, node.name))]
