"""What a reconcile pass works with: the ports and stores of the process, and the state of one pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tonnage.api.conditions import Finding
from tonnage.api.status import ConditionType
from tonnage.api.v1alpha1 import Spec
from tonnage.cluster.inspected import Failure
from tonnage.cluster.port import Cluster, Kind, Object
from tonnage.control.hardware import Hardware
from tonnage.control.learning import Learning
from tonnage.control.queue import Key
from tonnage.control.room import NOTHING_STATED, Arbiter, Offer
from tonnage.control.store import Store
from tonnage.gpus.nodes import Node
from tonnage.models import ResolvedModel
from tonnage.rendering.findings import Worker
from tonnage.rendering.inspection import Reading
from tonnage.rendering.names import Owner
from tonnage.rendering.observations import Pod, Report
from tonnage.rendering.plan import Kept
from tonnage.rendering.settings import Settings


class Scraper(Protocol):
    """Reads what workers say."""

    async def report(self, pod: Pod) -> Report | None:
        """The report of a pod's worker; None if it does not answer."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Time as arguments: `monotonic` in seconds, `now` as RFC 3339 text."""

    monotonic: Callable[[], float]
    now: Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """Hashes of what we last applied to a child, and of how the API server spelled it where that differs."""

    desired_hash: str
    accepted_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A model as it was read, and the refresh that it was read for."""

    model: ResolvedModel
    refreshed: str


@dataclass(slots=True)
class Inspection:
    """Reading one model, for all objects of a namespace that want it.

    `failure` is what was found last if it failed, by which Job, and when to try again; `starting` while a
    Job is being made; `waiting` holds the objects that wait for the Job of another one.
    """

    job_uid: str = ""
    failures: int = 0
    retry_at: float = 0.0
    failure: Failure | None = None
    progress: str = ""
    starting: bool = False
    waiting: set[Key] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a worker said last, and when to ask it again; `misses` in a row without an answer.

    It is asked before that if its pod is no longer as `ready` as it was.
    """

    report: Report | None
    ready: bool
    again_at: float
    misses: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The end of a pass that left nothing to do but to ask the workers again.

    `changes` is the store's number for the object (`Store.changes`) when the pass began, `workers` what the
    workers had said.
    """

    changes: int
    workers: Sequence[Worker]


@dataclass(slots=True)
class Telling:
    """Writing the status, in the clock's seconds: `told_at` last, and `since` when a change has been waiting.

    The most urgent part of that change is worth a write after `hold_seconds`.
    """

    told_at: float = float("-inf")
    since: float | None = None
    hold_seconds: float = 0.0


@dataclass(slots=True)
class Memory:
    """What the process remembers of one object between passes; losing it costs reads, never a decision.

    `applied` are the children that were written, `rendered` the packed list of those last brought about,
    `unheard` are children whose making failed or was not answered. `ended` is a pod of a group as it was when
    it had failed: LeaderWorkerSet makes the whole group anew, and nothing of it is left to tell. `heard` are
    containers that have taught what they could.
    """

    uid: str
    applied: dict[tuple[Kind, str], Spelling | None] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    unheard: set[tuple[Kind, str]] = field(default_factory=set)
    asked: dict[str, Asked] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)
    reading: Reading | None = None
    known: Known | None = None
    asking: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    kept: tuple[Kept, str] | None = None
    rendered: bytes | None = None
    failures: int = 0
    telling: Telling = field(default_factory=Telling)
    settled: Settled | None = None
    ended: Pod | None = None


@dataclass(slots=True)
class World:
    """The process: ports, stores, settings and clock. `pressed`: do changed specs wait to be acted on?"""

    cluster: Cluster
    scraper: Scraper
    store: Store
    hardware: Hardware
    settings: Settings
    clock: Clock
    offer: Offer = NOTHING_STATED
    learning: Learning = field(default_factory=Learning)
    nodes_readable: Callable[[], bool] = lambda: True
    groups_served: Callable[[], bool] = lambda: False
    pressed: Callable[[], bool] = lambda: False
    models: dict[tuple[str, str], Known] = field(default_factory=dict)
    inspections: dict[tuple[str, str], Inspection] = field(default_factory=dict)
    memories: dict[Key, Memory] = field(default_factory=dict)
    waiting_for_room: set[Key] = field(default_factory=set)
    # objects that were there when this process took the lead and had no pass yet: their plans are not known
    unseen: set[Key] = field(default_factory=set)
    room_changed: Callable[[], None] = lambda: None
    arbiter: Arbiter = field(init=False)

    def __post_init__(self) -> None:
        """Arbitrate on the hardware that is known."""
        self.arbiter = Arbiter(
            self.hardware,
            offer=self.offer,
            groups=self.groups_served,
            changed=self.room_changed,
            learned=lambda: self.learning.known,
        )

    def nodes(self) -> tuple[Node, ...] | None:
        """All nodes as last seen; None where they may not be read."""
        return self.hardware.nodes if self.nodes_readable() else None

    def memory(self, key: Key, *, uid: str) -> Memory:
        """The memory of an object; one that had its name before leaves nothing in it."""
        known = self.memories.get(key)
        if known is not None and known.uid == uid:
            return known
        if known is not None:
            self.forget(key)
        # a first pass that has only begun tells others nothing: the object stays unseen
        self.memories[key] = Memory(uid=uid)
        return self.memories[key]

    def forget(self, key: Key) -> None:
        """Drop everything remembered of an object that is gone."""
        memory = self.memories.pop(key, None)
        for task in memory.asking.values() if memory is not None else ():
            task.cancel()
        if memory is not None and memory.reading is not None:
            # an object made anew reads its model anew, unless others have it: the files may be others
            self.models.pop((key[0], memory.reading.attempt), None)
            self.end_inspection(key[0], memory.reading)
        self.waiting_for_room.discard(key)
        self.unseen.discard(key)
        self.arbiter.leave(key)

    def forget_all(self) -> None:
        """The process ends: ask nobody any more."""
        for key in list(self.memories):
            self.forget(key)

    def inspection(self, namespace: str, reading: Reading) -> Inspection:
        """What is known of reading a model in a namespace."""
        return self.inspections.setdefault((namespace, reading.attempt), Inspection())

    def end_inspection(self, namespace: str, reading: Reading) -> None:
        """It came to its end, or nobody pursues it: those who waited look themselves."""
        ended = self.inspections.pop((namespace, reading.attempt), None)
        for waiting in ended.waiting if ended is not None else ():
            self.store.touch(waiting)


@dataclass(slots=True)
class Pass:
    """One reconcile of one object: filled by the steps in their order. `workload` is the Deployment or
    LeaderWorkerSet that is wanted."""

    key: Key
    body: Object
    owner: Owner
    memory: Memory
    spec: Spec | None = None
    reading: Reading | None = None
    known: Known | None = None
    kept: Kept | None = None
    plan_hash: str = ""
    findings: dict[ConditionType, Finding] = field(default_factory=dict)
    workload: tuple[Kind, str] | None = None
    workers: list[Worker] = field(default_factory=list)
    followers: list[Pod] = field(default_factory=list)
    unanswered: bool = False
    contends: bool = False
    requeue: list[float] = field(default_factory=list)
    ask_again: list[float] = field(default_factory=list)

    @property
    def generation(self) -> int:
        """Generation of the object as read."""
        return int(self.body["metadata"].get("generation", 0))

    def found(self, kind: ConditionType, status: bool | None, reason: str, message: str = "") -> None:
        """Record a finding."""
        self.findings[kind] = Finding(kind, status, reason, message)

    def again_in(self, seconds: float) -> None:
        """Ask for another whole pass; the earliest wish counts."""
        self.requeue.append(seconds)


Step = Callable[[Pass, World], Awaitable[bool]]
"""A step returns False to keep the steps after it in its group from being taken."""
