"""Who gets which GPUs: one arbitration for all objects that want a plan, so that none counts on another's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from tonnage.api.workload import Accelerator
from tonnage.control.hardware import Hardware
from tonnage.control.queue import Key
from tonnage.gpus.inventory import Access, Inventory
from tonnage.gpus.placement import Placement
from tonnage.gpus.records import Records
from tonnage.gpus.reservations import Need
from tonnage.planning.gpu.choose import takes_gpus
from tonnage.planning.gpu.contend import Contender, Room, Site, plan_next, room_of
from tonnage.planning.plan import Plan, Rejection
from tonnage.planning.residuals import NOTHING_LEARNED, Residuals
from tonnage.rendering.gpu import not_rendered


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A plan on GPUs that is in force: what its `pods` pods need each, with CPU and main memory, and where
    they may run."""

    plan_hash: str
    pool: str
    pods: int
    devices: int
    memory_bytes: int
    priority: int
    created: str
    placement: Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """A contender that had its turn, with its outcome; `explained`: a rejection says what would do."""

    contender: Contender
    before: Room
    outcome: Plan | Rejection
    after: Room
    explained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the administrator states: prices for a device and hour, and an inventory in place of what is read
    of nodes."""

    prices: Mapping[str, Decimal] = field(default_factory=dict)
    inventory: Inventory | None = None


NOTHING_STATED: Final = Offer()
# plans that were accepted while turns were taken have first call: the turns are taken anew, but not for ever
_MOST_TRIES: Final = 4


def _key_of(contender: Contender) -> Key:
    namespace, _, name = contender.key.partition("/")
    return namespace, name


class _Usable:
    """Nodes that pods of accepted plans may be given devices of: many ask for the same."""

    def __init__(self, hardware: Records | Inventory) -> None:
        self._hardware = hardware
        self._known: list[tuple[Placement, dict[str, frozenset[str]]]] = []

    def nodes(self, accepted: Accepted) -> frozenset[str]:
        """Names of the nodes of the plan's pool with devices free."""
        alike = (pools for placement, pools in self._known if placement == accepted.placement)
        pools = next(alike, None)
        if pools is None:
            pools = self._pools(accepted.placement)
            self._known.append((accepted.placement, pools))
        return pools.get(accepted.pool, frozenset())

    def _pools(self, placement: Placement) -> dict[str, frozenset[str]]:
        whole = self._hardware
        if isinstance(whole, Records):
            whole = whole.inventory(placement=placement)
        return {pool.name: frozenset(node.name for node in pool.nodes if node.free) for pool in whole.pools}


class Arbiter:
    """Plans on GPUs in the order of their objects' rank, each with what those ahead leave.

    Accepted plans come first, for as many pods as have no node yet. What was worked out stands until a
    record of the hardware, an accepted plan, what was learned or a contender ahead changes. `changed` is
    called when that may give those who wait another answer: devices, or the name of who has them. `learned`
    tells what starts have taught.
    """

    def __init__(
        self,
        hardware: Hardware,
        *,
        offer: Offer,
        changed: Callable[[], None],
        groups: Callable[[], bool] = lambda: False,
        learned: Callable[[], Residuals] = lambda: NOTHING_LEARNED,
    ) -> None:
        self._hardware, self._offer, self._changed = hardware, offer, changed
        self._groups, self._learned = groups, learned
        self._accepted: dict[Key, Accepted] = {}
        self._contenders: dict[Key, Contender] = {}
        self._turns: list[_Turn] = []
        self._site: Site | None = None
        self._seen: tuple[object, ...] = ()
        self._lock = asyncio.Lock()

    @property
    def is_stated(self) -> bool:
        """Is the inventory the administrator's own statement?"""
        return self._offer.inventory is not None

    def stated_resources(self, accelerator: Accelerator | None) -> tuple[str, ...]:
        """Extended resources of a stated inventory that an object which asks for this may be planned on."""
        if self._offer.inventory is None or not self.takes_gpus(accelerator):
            return ()
        pools = (pool for pool in self._offer.inventory.pools if pool.access is Access.RESOURCE)
        return tuple(sorted({pool.resource for pool in pools}))

    def takes_gpus(self, accelerator: Accelerator | None) -> bool:
        """Is an object that asks for this, or for nothing, planned on GPUs?"""
        if accelerator is not None:
            return accelerator is Accelerator.GPU
        return takes_gpus(None, inventory=self._offer.inventory or self._hardware.devices)

    def accept(self, key: Key, accepted: Accepted) -> None:
        """A plan is in force: its pods have first call on their devices."""
        self._contenders.pop(key, None)
        if self._accepted.get(key) != accepted:
            self._accepted[key] = accepted
            self._changed()

    def holds(self, key: Key) -> bool:
        """Is a plan of this object known to be in force?"""
        return key in self._accepted

    def withdraw(self, key: Key) -> None:
        """An object contends no more: those behind it may have what it would have been given."""
        if self._contenders.pop(key, None) is not None:
            self._changed()

    def leave(self, key: Key) -> None:
        """An object has no plan on GPUs any more, or is gone."""
        self.withdraw(key)
        if self._accepted.pop(key, None) is not None:
            self._changed()

    async def outcome(self, key: Key, contender: Contender) -> Plan | Rejection:
        """The plan of a contender, or why there is none now."""
        async with self._lock:
            if self._contenders.get(key, contender) != contender:
                # it may want less than before
                self._changed()
            self._contenders[key] = contender
            for _ in range(_MOST_TRIES):
                site, accepted = self._site_now(), self._accepted.copy()
                order = self._up_to(key, contender)
                self._keep_what_stands(order)
                while len(self._turns) < len(order):
                    self._take_turn(order[len(self._turns)], site)
                    # one plan after another keeps the process busy for a while: others want their turn too
                    await asyncio.sleep(0)
                if accepted == self._accepted:
                    break
            return self._explained(order, site)

    def _up_to(self, key: Key, contender: Contender) -> list[Contender]:
        """A contender, after those that are ahead of it."""
        order = sorted({**self._contenders, key: contender}.values(), key=lambda each: each.rank)
        return order[: order.index(contender) + 1]

    def _site_now(self) -> Site:
        """What is contended for; turns taken on another ground are forgotten."""
        learned = self._learned()
        seen = (
            self._hardware.changes,
            self._groups(),
            tuple(sorted(self._accepted.items())),
            learned,
        )
        if self._site is None or seen != self._seen:
            self._seen, self._turns = seen, []
            self._site = Site(
                hardware=self._offer.inventory or self._hardware.records,
                accepted=tuple(self._needs()),
                prices=self._offer.prices,
                learned=learned,
            )
        return self._site

    def _needs(self) -> list[Need]:
        needs = ((key, each, self._pods_to_come(key, each)) for key, each in self._accepted.items())
        usable = _Usable(self._offer.inventory or self._hardware.records)
        return [self._need(key, each, pods=pods, usable=usable) for key, each, pods in needs if pods > 0]

    def _pods_to_come(self, key: Key, accepted: Accepted) -> int:
        """Pods whose devices the inventory still shows as free."""
        if self.is_stated:
            return accepted.pods
        return accepted.pods - self._hardware.bound_pods(key, plan_hash=accepted.plan_hash)

    @staticmethod
    def _need(key: Key, accepted: Accepted, *, pods: int, usable: _Usable) -> Need:
        return Need(
            key="/".join(key),
            pool=accepted.pool,
            pods=pods,
            devices=accepted.devices,
            cpu_millis=accepted.placement.cpu_millis,
            memory_bytes=accepted.memory_bytes,
            priority=accepted.priority,
            created=accepted.created,
            usable=usable.nodes(accepted),
        )

    def _keep_what_stands(self, order: list[Contender]) -> None:
        same = zip(self._turns, order, strict=False)
        stands = next(
            (at for at, (turn, contender) in enumerate(same) if turn.contender != contender),
            min(len(self._turns), len(order)),
        )
        if stands < len(order):
            del self._turns[stands:]

    def _take_turn(self, contender: Contender, site: Site) -> None:
        before = self._turns[-1].after if self._turns else room_of(site)
        try:
            outcome, after = plan_next(contender, site=site, room=before, explain=False)
        except Exception:
            # a bug in planning one is no reason to fail the passes of all behind it too
            self._contenders.pop(_key_of(contender), None)
            raise
        refusal = not_rendered(outcome, groups=self._groups()) if isinstance(outcome, Plan) else None
        if refusal is not None:
            # no pod will ever ask for what it would be given
            outcome, after = refusal, before
        turn = _Turn(
            contender=contender,
            before=before,
            outcome=outcome,
            after=after,
            explained=refusal is not None,
        )
        self._turns.append(turn)

    def _explained(self, order: list[Contender], site: Site) -> Plan | Rejection:
        """The last outcome; what would make a rejection fit is searched for only where it is asked for."""
        turn = self._turns[len(order) - 1]
        if isinstance(turn.outcome, Rejection) and not turn.explained:
            outcome, after = plan_next(turn.contender, site=site, room=turn.before)
            turn = _Turn(
                contender=turn.contender, before=turn.before, outcome=outcome, after=after, explained=True
            )
            self._turns[len(order) - 1] = turn
        return turn.outcome
