"""The operator: watch, lead, reconcile; and stop without leaving a trace."""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from aiohttp import web

from tonnage.cluster.guard import GuardedCluster
from tonnage.cluster.port import (
    CHILDREN,
    DEVICE_CLASS,
    GROUP_SET,
    LLM_DEPLOYMENT,
    NODE,
    POD,
    PRIORITY_CLASS,
    RESOURCE_CLAIM,
    RESOURCE_CLAIM_TEMPLATE,
    RESOURCE_SLICE,
    ApiError,
    Kind,
    Object,
)
from tonnage.cluster.reflector import RELIST_SECONDS, Reflector, Sink
from tonnage.control.config import Config
from tonnage.control.hardware import Hardware, Pods
from tonnage.control.health import serve_health
from tonnage.control.leader import Leader
from tonnage.control.learning import LearnedMap, Learning
from tonnage.control.metrics import Metrics
from tonnage.control.ports import Ports
from tonnage.control.queue import Key, KeyedQueue
from tonnage.control.reconcile import reconcile
from tonnage.control.store import Store
from tonnage.control.world import Clock, World
from tonnage.rendering.names import MANAGED_BY, MANAGER

logger = logging.getLogger(__name__)

WORKERS = 8
RESYNC_SECONDS = 600.0
UNKNOWN_SECONDS = 5.0
RESYNC_PAUSE_SECONDS = 2.0
# devices become free one by one; those who wait for some look again this long after the first, and later the
# more of them there are: in a busy cluster looking must not be all that is done
ROOM_SECONDS = 0.5
ROOM_SECONDS_EACH = 0.05
OF_NODES: Final = (NODE, RESOURCE_SLICE, DEVICE_CLASS, PRIORITY_CLASS)
# of an API group that a cluster may not serve
OPTIONAL: Final = frozenset(
    {RESOURCE_SLICE, RESOURCE_CLAIM, RESOURCE_CLAIM_TEMPLATE, DEVICE_CLASS, GROUP_SET}
)
OF_HARDWARE: Final = frozenset({*OF_NODES, RESOURCE_CLAIM})
_IS_IT_INSTALLED = " (is the CustomResourceDefinition installed?)"


def rfc3339() -> str:
    """The time as the API spells it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro() -> str:
    """The time as the API spells it in a Lease."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def watched(config: Config) -> list[tuple[Kind, str]]:
    """What is watched for good: kinds, each with a namespace, empty for all."""
    kinds = (LLM_DEPLOYMENT, *CHILDREN, POD, *((RESOURCE_CLAIM,) if config.reads_nodes else ()))
    found = [(kind, namespace) for namespace in config.watched or ("",) for kind in kinds]
    return [*found, *((kind, "") for kind in OF_NODES)] if config.reads_nodes else found


class Process:
    """One operator on its ports: `start` begins, `failed` is called when a part of it ended by itself.

    Without `watches_objects` somebody else tells of LLMDeployments (`take`); they are then only listed, at
    the start and now and then, for what that somebody missed.
    """

    def __init__(
        self,
        config: Config,
        *,
        ports: Ports,
        failed: Callable[[], None],
        watches_objects: bool = True,
        relist_seconds: float = RELIST_SECONDS,
    ) -> None:
        self.config = config
        self.queue = KeyedQueue()
        self.metrics = Metrics()
        self.store = Store(touched=lambda key, first: self.queue.add(key, first=first))
        self.hardware = Hardware(changed=self._room_changed)
        self.failure = ""
        self._failed = failed
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self.leader = Leader(
            ports.cluster,
            namespace=config.namespace,
            name=config.lease,
            identity=config.identity,
            clock=Clock(monotonic=time.monotonic, now=rfc3339_micro),
        )
        cluster = GuardedCluster(ports.cluster, may_write=self.leader.holds, clock=time.monotonic)
        learning = Learning(
            trusted=config.trusted if config.learned else (),
            changed=self._room_changed,
            counted=self.metrics.learned.inc,
        )
        self._learned = LearnedMap(
            cluster, learning, namespace=config.namespace, name=config.learned, watched=config.watched
        )
        self._world = World(
            cluster=cluster,
            scraper=ports.scraper,
            store=self.store,
            hardware=self.hardware,
            offer=config.offer,
            learning=learning,
            room_changed=self._room_changed,
            settings=config.settings,
            clock=Clock(monotonic=time.monotonic, now=rfc3339),
            nodes_readable=self._nodes_readable,
            groups_served=self._groups_served,
            pressed=lambda: self.queue.pressing > 0,
        )
        self._reflectors = [
            self._reflector(
                cluster,
                kind,
                namespace,
                watches=watches_objects or kind != LLM_DEPLOYMENT,
                relist_seconds=relist_seconds,
            )
            for kind, namespace in watched(config)
        ]

    def _reflector(
        self, cluster: GuardedCluster, kind: Kind, namespace: str, *, watches: bool, relist_seconds: float
    ) -> Reflector:
        reflector = Reflector(
            cluster,
            kind,
            self._sink(kind),
            selector=f"{MANAGED_BY}={MANAGER}" if kind in CHILDREN else "",
            clock=time.monotonic,
            namespace=namespace,
            watches=watches,
            optional=kind in OPTIONAL,
            relist_seconds=relist_seconds,
        )
        if kind == GROUP_SET:
            reflector.served_changed = self._room_changed
        return reflector

    def _sink(self, kind: Kind) -> Sink:
        if kind == POD:
            return Pods(self.store, self.hardware)
        return self.hardware if kind in OF_HARDWARE else self.store

    async def start(self) -> None:
        """Answer probes and begin all tasks."""
        self._runner = await serve_health(
            port=self.config.health_port, alive=self.alive, ready=self.ready, metrics=self.metrics
        )
        for reflector in self._reflectors:
            self._spawn(reflector.run(), name=f"watch {reflector.name}")
        self._spawn(self._lead(), name="leader")

    async def listed(self) -> None:
        """Wait until everything was listed once, or the right to list it is known to be missing."""
        for reflector in self._reflectors:
            await reflector.settled.wait()

    def take(self, event_type: str | None, body: Object) -> None:
        """An event of an LLMDeployment, from somebody else's watch; no type where it was listed."""
        if event_type == "DELETED":
            self.store.remove(LLM_DEPLOYMENT, body)
        else:
            self.store.put(LLM_DEPLOYMENT, body)

    async def stop(self) -> None:
        """Stop the tasks and release the lease."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._world.forget_all()
        await self.leader.release()
        if self._runner is not None:
            await self._runner.cleanup()

    # probes

    def alive(self) -> str:
        """What is wrong with this process; empty if nothing."""
        silent = [self.failure] if self.failure else []
        for reflector in self._reflectors:
            silence = time.monotonic() - reflector.last_contact
            self.metrics.contact.labels(reflector.kind.plural, reflector.namespace).set(silence)
            if silence > reflector.most_silence_seconds:
                silent.append(f"watch of {reflector.name}: nothing heard for {silence:.0f} s")
        self.metrics.queue.set(len(self.queue))
        self.metrics.leader.set(self.leader.holds())
        return "; ".join(silent)

    def ready(self) -> str:
        """What is missing before this process can act or stand by; empty if nothing."""
        missing = [r for r in self._reflectors if not r.settled.is_set()]
        if missing:
            hint = any(r.kind == LLM_DEPLOYMENT for r in missing) and _IS_IT_INSTALLED
            return f"not listed: {', '.join(r.name for r in missing)}{hint or ''}"
        if not any(self._knows(namespace) for namespace in self.config.watched or ("",)):
            return "; ".join(r.refused for r in self._reflectors if r.refused)
        return ""

    def _knows(self, namespace: str) -> bool:
        """Is everything known of what we made in a namespace? Not where the right to read it is missing."""
        return all(
            r.synced.is_set()
            for r in self._reflectors
            if r.kind not in OF_HARDWARE and r.namespace in ("", namespace)
        )

    def _nodes_readable(self) -> bool:
        return any(r.kind == NODE and not r.refused for r in self._reflectors)

    def _groups_served(self) -> bool:
        return any(r.kind == GROUP_SET and r.served for r in self._reflectors)

    # the work

    async def _lead(self) -> None:
        await self.listed()
        await self.leader.acquire()
        self._world.unseen = set(self.store.objects)
        if self._world.learning.enabled:
            # a plan that is made before would not have it
            await self._learned.load()
            self._spawn(self._learned.keep(), name="learned")
        for number in range(WORKERS):
            self._spawn(self._work(), name=f"worker {number}")
        self._spawn(self._resync(), name="resync")
        await self.leader.keep()
        raise RuntimeError("the leader lease was lost")

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            try:
                await self._pass(key)
            finally:
                self.queue.done(key)

    async def _pass(self, key: Key) -> None:
        if not self._knows(key[0]):
            # what is not seen would be taken for missing; the plans of others do not wait for it
            self._world.unseen.discard(key)
            self.queue.add_after(key, seconds=UNKNOWN_SECONDS)
            return
        try:
            with self.metrics.seconds.time():
                again = await reconcile(key, self._world)
        except ApiError as error:
            self.metrics.reconciles.labels("error").inc()
            logger.warning("pass failed, tried again: %s", error, extra={"object": "/".join(key)})
            self.queue.add_failed(key)
        except Exception:
            self.metrics.reconciles.labels("bug").inc()
            logger.exception("pass failed by a bug in Tonnage", extra={"object": "/".join(key)})
            self._world.unseen.discard(key)
            self.queue.add_failed(key)
        else:
            self.metrics.reconciles.labels("ok").inc()
            self.queue.succeeded(key)
            if key not in self.store.objects:
                self.queue.forget(key)
            elif again is not None:
                self.queue.add_after(key, seconds=max(again, 0.05))

    async def _resync(self) -> None:
        """A whole pass over each object now and then, one after another: a missed change is seen too."""
        while True:
            keys = list(self.store.objects)
            pause = max(RESYNC_SECONDS / max(len(keys), 1), RESYNC_PAUSE_SECONDS)
            for key in keys:
                await asyncio.sleep(pause)
                if key in self.store.objects:
                    self.store.touch(key)
            if not keys:
                await asyncio.sleep(RESYNC_SECONDS)

    def _room_changed(self) -> None:
        waiting = self._world.waiting_for_room
        for key in waiting:
            self.queue.add_after(key, seconds=ROOM_SECONDS + ROOM_SECONDS_EACH * len(waiting))

    def _spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task that ends by itself ends the process: Kubernetes starts a clean one."""
        if task.cancelled():
            return
        error = task.exception()
        self.failure = f"task {task.get_name()} ended: {error or 'without an error'}"
        logger.error(self.failure, exc_info=error)
        self._failed()
