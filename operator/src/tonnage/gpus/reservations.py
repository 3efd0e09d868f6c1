"""Who may count on which devices: accepted plans whose pods are not bound yet, and objects that still wait.

Pods that are bound are in the inventory already. A pod takes all its devices on one node, so what counts is
not how many are free but how many pods find a node. Pods go to nodes in one fixed order, those first that
others than LLMDeployments have filled most: what an object would be given does not change when those behind
it are taken off too, nor when pods are bound, so that every order of asking ends the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tonnage.gpus.inventory import Inventory, Pool, PoolNode, Sharing

_NAMED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """`pods` pods of one object that are not bound yet, each with `devices` (1 or more) of a node of `pool`.

    `key` is `namespace/name`, `priority` that of its priority class, `created` its creation time as the API
    writes it (RFC 3339 in UTC, which sorts as text). `usable` are the nodes that its pods may be placed on,
    None for all of the pool. `nodes` is where it was granted, one name a pod; empty where that is not known.
    """

    key: str
    pool: str
    pods: int
    devices: int
    priority: int = 0
    created: str = ""
    usable: frozenset[str] | None = None
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """An object ahead of another, and how many devices of the pool it is given before it."""

    key: str
    devices: int
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an object waits: `free` devices were left of the `wanted` ones, after `holders` had theirs."""

    key: str
    pool: str
    pods: int
    devices: int
    free: int
    holders: tuple[Holder, ...]

    @property
    def message(self) -> str:
        """The refusal for people: what is wanted, what is left, and who has the rest."""
        wanted = f"{_count(self.pods, 'pod')} of {_count(self.devices, 'device')}"
        left = f"{_count(self.free, 'device')} free"
        where = ", too few of them on one node" if self.free >= self.pods * self.devices else ""
        return f"pool {self.pool} has no room for {wanted}: {left}{where}{self._held()}"

    def _held(self) -> str:
        if not self.holders:
            return "; nothing is reserved for others: running pods have the rest"
        named = [f"{one.devices} by {one.key} (priority {one.priority})" for one in self.holders[:_NAMED]]
        more = len(self.holders) - _NAMED
        return f"; reserved first: {', '.join(named)}{f' and {more} more' if more > 0 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What every object gets: the needs that were granted with their nodes, those that were refused, and what
    is `left` of the inventory for anybody else."""

    granted: tuple[Need, ...]
    refused: tuple[Refusal, ...]
    left: Inventory


def rank(need: Need) -> tuple[int, str, str]:
    """What comes first: the higher priority, then the older object, then the name."""
    return -need.priority, need.created, need.key


def settle(
    inventory: Inventory, *, reserved: Iterable[Need] = (), waiting: Iterable[Need] = ()
) -> Settlement:
    """Give what is free to needs in order: accepted plans (`reserved`) first, then objects that wait.

    `inventory` is of all nodes that any of them could use (`take_inventory` with a placement that tolerates
    every taint), since what one holds must be taken off where it holds it; `Need.usable` tells them apart.
    An accepted plan is never displaced by one that waits. Who waits is given room for all its pods or for
    none; one behind it may then have what it cannot use, since devices on other nodes do not help it. Of an
    accepted plan whose devices somebody else took, as many pods as find a node still count.
    """
    room = _Room(inventory)
    granted = [room.take(need, room.places(need)) for need in sorted(reserved, key=rank)]
    refused = []
    for need in sorted(waiting, key=rank):
        places = room.places(need)
        if len(places) == need.pods:
            granted.append(room.take(need, places))
        else:
            refused.append(room.refusal(need))
    return Settlement(granted=tuple(granted), refused=tuple(refused), left=room.inventory())


def free_for(
    inventory: Inventory, need: Need, *, reserved: Iterable[Need] = (), waiting: Iterable[Need] = ()
) -> Inventory:
    """What the object of `need` may count on: all but what others have reserved, and what those that wait
    ahead of it will be given, on the nodes it may use. Of `need` only key, rank and nodes matter."""
    others = [each for each in reserved if each.key != need.key]
    ahead = [each for each in waiting if each.key != need.key and rank(each) < rank(need)]
    return restrict(settle(inventory, reserved=others, waiting=ahead).left, usable=need.usable)


def restrict(inventory: Inventory, *, usable: frozenset[str] | None) -> Inventory:
    """The part of an inventory that is on these nodes; pools without any are left out."""
    if usable is None:
        return inventory
    pools = (
        replace(pool, nodes=tuple(node for node in pool.nodes if node.name in usable))
        for pool in inventory.pools
    )
    return replace(inventory, pools=tuple(pool for pool in pools if pool.nodes))


def take_off(inventory: Inventory, granted: Iterable[Need]) -> Inventory:
    """The inventory less what was granted, on the nodes where it was."""
    taken = Counter((need.pool, node) for need in granted for node in need.nodes for _ in range(need.devices))
    pools = (
        replace(pool, nodes=tuple(_without(node, taken[pool.name, node.name]) for node in pool.nodes))
        for pool in inventory.pools
    )
    return replace(inventory, pools=tuple(pools))


class _Room:
    """What is free, while it is given away."""

    def __init__(self, inventory: Inventory) -> None:
        self.whole = inventory
        self.pools = {pool.name: pool for pool in inventory.pools}
        self.free = {pool.name: {node.name: node.free for node in pool.nodes} for pool in inventory.pools}
        self.order = {pool.name: _fullest_first(pool) for pool in inventory.pools}
        self.whole_devices = {pool.name for pool in inventory.pools if pool.sharing is Sharing.NONE}
        self.holders: dict[str, list[Holder]] = {}

    def places(self, need: Need) -> list[str]:
        """One node for each pod that finds one: where it was granted before, if there is still room, else the
        fullest; nothing changes yet."""
        if need.devices > 1 and need.pool not in self.whole_devices:
            return []
        free, given = self.free.get(need.pool, {}), dict[str, int]()
        if need.devices > max(free.values(), default=0):
            return []
        found: list[str] = []
        wishes = ((name, 1) for name in need.nodes)
        for name, most in (*wishes, *((name, need.pods) for name in self.order.get(need.pool, ()))):
            if len(found) == need.pods:
                break
            if need.usable is not None and name not in need.usable:
                continue
            left = free.get(name, 0) - given.get(name, 0)
            pods = min(left // need.devices, need.pods - len(found), most)
            if pods > 0:
                given[name] = given.get(name, 0) + pods * need.devices
                found.extend([name] * pods)
        return found

    def take(self, need: Need, places: Sequence[str]) -> Need:
        """Give the need devices on these nodes."""
        for name in places:
            self.free[need.pool][name] -= need.devices
            if not self.free[need.pool][name]:
                self.order[need.pool].remove(name)
        if places:
            holder = Holder(key=need.key, devices=len(places) * need.devices, priority=need.priority)
            self.holders.setdefault(need.pool, []).append(holder)
        return replace(need, nodes=tuple(places))

    def refusal(self, need: Need) -> Refusal:
        """Why nothing was given."""
        return Refusal(
            key=need.key,
            pool=need.pool,
            pods=need.pods,
            devices=need.devices,
            free=sum(
                count
                for name, count in self.free.get(need.pool, {}).items()
                if need.usable is None or name in need.usable
            ),
            holders=tuple(self.holders.get(need.pool, ())),
        )

    def inventory(self) -> Inventory:
        """The inventory less what was given."""
        pools = tuple(replace(pool, nodes=self._nodes(pool)) for pool in self.whole.pools)
        return replace(self.whole, pools=pools)

    def _nodes(self, pool: Pool) -> tuple[PoolNode, ...]:
        free = self.free[pool.name]
        return tuple(
            node if node.free == free[node.name] else _less(node, free=free[node.name]) for node in pool.nodes
        )


def _without(node: PoolNode, taken: int) -> PoolNode:
    return _less(node, free=max(0, node.free - taken)) if taken else node


def _less(node: PoolNode, *, free: int) -> PoolNode:
    """What is given is ours already, so that who is given the next finds the nodes in the same order."""
    return replace(node, free=free, ours=node.ours + node.free - free)


def _fullest_first(pool: Pool) -> list[str]:
    """Names of the nodes with devices free, those with the fewest first, so that whole nodes stay whole.
    Devices of our own pods count as free, since the order must not change when a pod is bound."""
    usable = (node for node in pool.nodes if node.free)
    return [node.name for node in sorted(usable, key=lambda node: (node.free + node.ours, node.name))]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
