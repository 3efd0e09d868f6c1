"""Arbitration: objects that want a plan on GPUs at the same time, one after the other, each with what those
ahead of it leave. Pure: the same records, needs and contenders give the same answers, whoever asks first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from tonnage.engines import GpuRules
from tonnage.gpus.inventory import Access, Inventory, Pool, Problem, Vendor
from tonnage.gpus.placement import Placement
from tonnage.gpus.records import ANYWHERE, Records
from tonnage.gpus.reservations import Need, rank, settle, take_off
from tonnage.models import ModelProfile
from tonnage.planning.adapters import Adapters
from tonnage.planning.gpu.choose import gpu_question, plan_on_gpus
from tonnage.planning.gpu.question import Hardware
from tonnage.planning.plan import Demand, GpuPlan, Plan, Rejection
from tonnage.planning.residuals import NOTHING_LEARNED, Residuals
from tonnage.planning.words import gib

NO_ROOM: Final = frozenset(
    {"NotEnoughGpus", "NotEnoughMemory", "NoUsablePool", "NoAccelerators", "NoRoomForSurge"}
)
"""Reasons that say the cluster has too little, rather than that the demand makes no sense."""

_NAMED: Final = 3
_MOST_TEXT: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """An object that wants a plan: what is asked, where its pods may run, and its rank.

    `key` is `namespace/name`, `created` its creation time as the API writes it. `replicas` is how many it
    wants. `surges`: pods of an earlier plan are there, and must stay until a pod of the new one serves.
    `in_force` is that plan, if it is known: made anew it needs no room beside itself. `withheld_bytes` of
    each device are kept free beyond what the laws ask for, since workers of that plan fail: one of them need
    not stay. `adapters` are held beside the weights. `plain`: the engine gets no arguments of the user's own,
    so that what plain starts have taught holds for it.
    """

    key: str
    created: str
    priority: int
    demand: Demand
    model: ModelProfile
    engine: GpuRules
    hardware: Hardware
    placement: Placement
    replicas: int
    surges: bool = False
    in_force: Plan | None = None
    withheld_bytes: int = 0
    adapters: Adapters | None = None
    plain: bool = True

    @property
    def rank(self) -> tuple[int, str, str]:
        """What comes first: the higher priority, then the older object, then the name."""
        return rank(
            Need(key=self.key, pool="", pods=1, devices=1, priority=self.priority, created=self.created)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What is contended for: what was read of the cluster, or the inventory that its administrator stated,
    what accepted plans still need, the administrator's prices, and what starts have taught."""

    hardware: Records | Inventory
    accepted: tuple[Need, ...] = ()
    prices: Mapping[str, Decimal]
    learned: Residuals = NOTHING_LEARNED

    def inventory(self, *, placement: Placement = ANYWHERE, without: str = "") -> Inventory:
        """The pools that a pod could use, the devices of one object's own pods counted as free."""
        if isinstance(self.hardware, Inventory):
            return self.hardware
        return self.hardware.inventory(placement=placement, without=without)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What is left after those ahead: `granted` are accepted plans and the contenders before, with their
    nodes, `left` is the whole inventory less all of it."""

    granted: tuple[Need, ...]
    left: Inventory

    def give(self, need: Need) -> Room:
        """The room after a need was given what there is for it."""
        settled = settle(self.left, reserved=[need])
        return Room(granted=(*self.granted, *settled.granted), left=settled.left)


def room_of(site: Site) -> Room:
    """The room before the first contender."""
    settled = settle(site.inventory(), reserved=site.accepted)
    return Room(granted=settled.granted, left=settled.left)


def contend(contenders: Iterable[Contender], *, site: Site) -> dict[str, Plan | Rejection]:
    """The outcome of each contender, by key: in the order of their rank each is planned with what is left."""
    room, outcomes = room_of(site), dict[str, Plan | Rejection]()
    for contender in sorted(contenders, key=lambda each: each.rank):
        outcome, room = plan_next(contender, site=site, room=room)
        outcomes[contender.key] = outcome
    return outcomes


def plan_next(
    contender: Contender, *, site: Site, room: Room, explain: bool = True
) -> tuple[Plan | Rejection, Room]:
    """The outcome of one contender, and the room behind it.

    A plan is made if one replica finds its devices; it is then given what there is for all that are wanted.
    """
    inventory = site.inventory(placement=contender.placement, without=contender.key)
    others = [need for need in room.granted if need.key != contender.key]
    outcome = plan_on_gpus(
        gpu_question(
            contender.demand,
            model=contender.model,
            inventory=_with_room(take_off(inventory, others), placement=contender.placement),
            engine=contender.engine,
            hardware=contender.hardware,
            prices=site.prices,
            withheld_bytes=contender.withheld_bytes,
            adapters=contender.adapters,
            learned=site.learned if contender.plain else NOTHING_LEARNED,
        ),
        explain=explain,
    )
    if isinstance(outcome, Rejection) or outcome.gpu is None:
        return _explained(outcome, inventory, site=site, others=others), room
    need = need_of(contender, outcome, gpu=outcome.gpu, inventory=inventory)
    if contender.surges and not _takes_its_place(contender, outcome, gpu=outcome.gpu):
        beside = _beside_own_pods(contender, site=site, room=room, others=others)
        if not _has_room(beside, replace(need, pods=outcome.gpu.nodes_per_replica)):
            return _no_room_for_surge(outcome, outcome.gpu), room
    return outcome, room.give(need)


def _with_room(inventory: Inventory, *, placement: Placement) -> Inventory:
    """The inventory with no device free on nodes where others are to get so much CPU or main memory that a
    pod does not get what its template requests; what its plan requests is looked at with the plan."""
    cpu, memory = placement.cpu_millis, placement.memory_bytes
    pools = (
        replace(
            pool,
            nodes=tuple(
                replace(node, free=0)
                if node.free and (node.cpu_millis < cpu or node.memory_bytes < memory)
                else node
                for node in pool.nodes
            ),
        )
        for pool in inventory.pools
    )
    return replace(inventory, pools=tuple(pools))


def need_of(contender: Contender, plan: Plan, *, gpu: GpuPlan, inventory: Inventory) -> Need:
    """What all replicas of a plan need, on those nodes of its pool where a pod of the object would be given
    devices: what is free of a node may be too little main memory for it."""
    nodes = (
        node.name for pool in inventory.pools if pool.name == plan.pool for node in pool.nodes if node.free
    )
    return Need(
        key=contender.key,
        pool=plan.pool,
        pods=contender.replicas * gpu.nodes_per_replica,
        devices=gpu.devices_per_pod,
        cpu_millis=contender.placement.cpu_millis,
        memory_bytes=contender.placement.memory_bytes or plan.request_bytes,
        priority=contender.priority,
        created=contender.created,
        usable=frozenset(nodes),
    )


def _takes_its_place(contender: Contender, plan: Plan, *, gpu: GpuPlan) -> bool:
    """Needs a plan no room beside the pods before? The same plan needs none, nor does one that replaces a
    plan whose workers fail, which need not stay until others serve: as long as one of them, the only one or
    one with as many devices, makes room for a new one."""
    before = contender.in_force
    if plan == before or not contender.withheld_bytes:
        return plan == before
    if contender.replicas == 1 or before is None or before.gpu is None:
        return contender.replicas == 1
    return plan.pool == before.pool and gpu.devices_per_pod <= before.gpu.devices_per_pod


def _beside_own_pods(contender: Contender, *, site: Site, room: Room, others: Sequence[Need]) -> Inventory:
    """What is free beside the pods that a roll-out leaves until new ones serve."""
    if isinstance(site.hardware, Inventory):
        return room.left
    before = contender.in_force.gpu if contender.in_force is not None else None
    pods = contender.replicas * (before.nodes_per_replica if before is not None else 1)
    rolled_out = site.hardware.as_rolled_out(contender.key, pods=pods)
    return take_off(rolled_out.inventory(placement=contender.placement), others)


def _has_room(left: Inventory, need: Need) -> bool:
    (granted,) = settle(left, reserved=[need]).granted
    return len(granted.nodes) == need.pods


def _no_room_for_surge(plan: Plan, gpu: GpuPlan) -> Rejection:
    needed = gpu.devices_per_pod * gpu.nodes_per_replica
    return Rejection(
        reason="NoRoomForSurge",
        message=(
            f"the new plan needs {needed} free {plan.product} beside the pods that serve, with "
            f"{gib(plan.request_bytes)} of main memory for each pod, until one of the new pods does; free "
            "them, or set rollout.allowDowntime: true. The plan before stays in force"
        ),
        numbers={"gpus": needed},
    )


def _explained(
    outcome: Plan | Rejection, inventory: Inventory, *, site: Site, others: Sequence[Need]
) -> Plan | Rejection:
    """A rejection with those who hold what is missing, and what was left out of the inventory."""
    if isinstance(outcome, Plan) or outcome.reason not in NO_ROOM:
        return outcome
    pools = [pool for pool in inventory.pools if pool.vendor is not Vendor.CPU]
    held = [text for pool in pools if (text := _holders(pool, site=site, others=others))]
    text = outcome.message
    if held and outcome.reason == "NotEnoughGpus":
        text += f"; in use: {'; '.join(held[:_NAMED])}"
    problems = [problem for problem in inventory.problems if problem.of_accelerators]
    if problems:
        text += f"; left out: {'; '.join(_left_out(problems))}"
    return replace(outcome, message=text[:_MOST_TEXT])


def _holders(pool: Pool, *, site: Site, others: Sequence[Need]) -> str:
    """Who has devices of a pool: pods that run, and plans whose pods are still to come."""
    held = Counter({need.key: len(need.nodes) * need.devices for need in others if need.pool == pool.name})
    if isinstance(site.hardware, Records):
        nodes = {node.name for node in pool.nodes}
        if pool.access is Access.CLAIM:
            held.update(site.hardware.claimed_on(nodes=nodes))
        else:
            held.update(site.hardware.devices_on(pool.resource, nodes=nodes))
    ranked = sorted(
        ((count, key) for key, count in held.items() if count), key=lambda each: (-each[0], each[1])
    )
    if not ranked:
        return ""
    named = [f"{count} by {key or 'other pods'}" for count, key in ranked[:_NAMED]]
    more = len(ranked) - _NAMED
    return f"{pool.product}: {', '.join(named)}{f' and {more} more' if more > 0 else ''}"


def _left_out(problems: Sequence[Problem]) -> Iterator[str]:
    """The first node of each reason, and how many there are."""
    reasons = Counter(problem.reason for problem in problems)
    for reason, count in sorted(reasons.items(), key=lambda each: (-each[1], each[0]))[:_NAMED]:
        first = next(problem for problem in problems if problem.reason is reason)
        more = f" (and {count - 1} more {reason})" if count > 1 else ""
        yield f"{first.node}: {first.message}{more}"
