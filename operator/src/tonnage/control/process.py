"""The operator's process: connect, watch, lead, reconcile; and stop without leaving a trace."""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from aiohttp import web
from kubernetes.aio.client import ApiClient

from tonnage.cluster.engine import EngineScraper
from tonnage.cluster.kubernetes import KubernetesCluster, connect
from tonnage.cluster.port import CHILDREN, LLM_DEPLOYMENT, NODE, POD, ApiError, Cluster, Kind, Object
from tonnage.cluster.reflector import Reflector
from tonnage.control.config import Config
from tonnage.control.health import serve_health
from tonnage.control.leader import Leader
from tonnage.control.metrics import Metrics
from tonnage.control.queue import Key, KeyedQueue
from tonnage.control.reconcile import reconcile
from tonnage.control.store import Store
from tonnage.control.world import Clock, World
from tonnage.rendering.names import MANAGED_BY, MANAGER

logger = logging.getLogger(__name__)

WORKERS = 4
RESYNC_SECONDS = 600.0
SERVED_SECONDS = 2.0
UNKNOWN_SECONDS = 5.0
# bookmarks come about every minute; a watch may be silent while it is being opened again
MAX_SILENCE_SECONDS = 180.0


def rfc3339() -> str:
    """The time as the API spells it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Process:
    """Everything that runs beside kopf's watch of the LLMDeployments."""

    def __init__(self, config: Config, *, failed: Callable[[], None]) -> None:
        self.config = config
        self.queue = KeyedQueue()
        self.metrics = Metrics()
        self.store = Store(touched=self.queue.add, nodes_changed=self._nodes_changed)
        self.failure = ""
        self._served = False
        self._failed = failed
        self._tasks: list[asyncio.Task[None]] = []
        self._reflectors: list[Reflector] = []
        self._runner: web.AppRunner | None = None
        self._scraper = EngineScraper()
        self._client: ApiClient | None = None
        self._leader: Leader | None = None
        self._world: World | None = None

    # what kopf calls

    async def start(self) -> None:
        """Connect, start the tasks, and return when LLMDeployments can be watched.

        kopf looks once which resources there are: were it to go on without the CustomResourceDefinition, it
        would be deaf for ever.
        """
        watched = list(self._watched())
        self._client = await connect(watches=len(watched))
        self._leader = Leader(
            self._client,
            namespace=self.config.namespace,
            name=self.config.lease,
            identity=self.config.identity,
            clock=time.monotonic,
        )
        cluster = KubernetesCluster(self._client, may_write=self._leader.holds)
        self._world = World(
            cluster=cluster,
            scraper=self._scraper,
            store=self.store,
            settings=self.config.settings,
            clock=Clock(monotonic=time.monotonic, now=rfc3339),
            nodes_readable=self._nodes_readable,
        )
        self._reflectors = [
            Reflector(
                cluster,
                kind,
                self.store,
                selector="" if kind == NODE else f"{MANAGED_BY}={MANAGER}",
                clock=time.monotonic,
                namespace=namespace,
            )
            for kind, namespace in watched
        ]
        self._runner = await serve_health(
            port=self.config.health_port, alive=self.alive, ready=self.ready, metrics=self.metrics
        )
        for reflector in self._reflectors:
            self._spawn(reflector.run(), name=f"watch {reflector.name}")
        self._spawn(self._lead(self._leader, self._world), name="leader")
        while not await self._is_served(cluster):
            await asyncio.sleep(SERVED_SECONDS)
        self._served = True

    def _watched(self) -> Iterator[tuple[Kind, str]]:
        """What reflectors are needed: kind and namespace, empty for all."""
        for namespace in self.config.watched or ("",):
            for kind in (*CHILDREN, POD):
                yield kind, namespace
        if self.config.reads_nodes:
            yield NODE, ""

    @staticmethod
    async def _is_served(cluster: Cluster) -> bool:
        try:
            served = await cluster.serves(LLM_DEPLOYMENT)
        except ApiError as error:
            logger.warning("it is not known yet whether there are LLMDeployments: %s", error)
            return False
        if not served:
            logger.warning("LLMDeployments cannot be listed yet: is the CustomResourceDefinition installed?")
        return served

    def take(self, event_type: str | None, body: Object) -> None:
        """An event of an LLMDeployment, from kopf's watch."""
        if event_type == "DELETED":
            self.store.remove_object(body)
        else:
            self.store.put_object(body)

    async def stop(self) -> None:
        """Stop the tasks, release the lease, close the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._leader is not None:
            await self._leader.release()
        await self._scraper.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    # probes

    def alive(self) -> str:
        """What is wrong with this process; empty if nothing."""
        silent = [self.failure] if self.failure else []
        for reflector in self._reflectors:
            silence = time.monotonic() - reflector.last_contact
            self.metrics.contact.labels(reflector.kind.plural, reflector.namespace).set(silence)
            if silence > MAX_SILENCE_SECONDS:
                silent.append(f"watch of {reflector.name}: nothing heard for {silence:.0f} s")
        self.metrics.queue.set(len(self.queue))
        self.metrics.leader.set(self._leader is not None and self._leader.holds())
        return "; ".join(silent)

    def ready(self) -> str:
        """What is missing before this process can act or stand by; empty if nothing."""
        missing = [r.name for r in self._reflectors if not r.settled.is_set()]
        if not self._served:
            missing.append(f"{LLM_DEPLOYMENT.plural} (is the CustomResourceDefinition installed?)")
        if missing:
            return f"not listed yet: {', '.join(missing)}"
        if not any(self._knows(namespace) for namespace in self.config.watched or ("",)):
            return "; ".join(r.refused for r in self._reflectors if r.refused)
        return ""

    def _knows(self, namespace: str) -> bool:
        """Is everything known of what we made in a namespace? Not where the right to read it is missing."""
        return all(
            r.synced.is_set() for r in self._reflectors if r.kind != NODE and r.namespace in ("", namespace)
        )

    def _nodes_readable(self) -> bool:
        return any(r.kind == NODE and not r.refused for r in self._reflectors)

    # the work

    async def _lead(self, leader: Leader, world: World) -> None:
        for reflector in self._reflectors:
            await reflector.settled.wait()
        await leader.acquire()
        for number in range(WORKERS):
            self._spawn(self._work(world), name=f"worker {number}")
        self._spawn(self._resync(), name="resync")
        await leader.keep()
        raise RuntimeError("the leader lease was lost")

    async def _work(self, world: World) -> None:
        while True:
            key = await self.queue.take()
            try:
                await self._pass(key, world)
            finally:
                self.queue.done(key)

    async def _pass(self, key: Key, world: World) -> None:
        if not self._knows(key[0]):
            self.queue.add_after(key, seconds=UNKNOWN_SECONDS)
            return
        try:
            with self.metrics.seconds.time():
                again = await reconcile(key, world)
        except ApiError as error:
            self.metrics.reconciles.labels("error").inc()
            logger.warning("pass failed, tried again: %s", error, extra={"object": "/".join(key)})
            self.queue.add_failed(key, at_least=error.retry_after)
        except Exception:
            self.metrics.reconciles.labels("bug").inc()
            logger.exception("pass failed by a bug in Tonnage", extra={"object": "/".join(key)})
            self.queue.add_failed(key)
        else:
            self.metrics.reconciles.labels("ok").inc()
            self.queue.succeeded(key)
            if key not in self.store.objects:
                self.queue.forget(key)
            elif again is not None:
                self.queue.add_after(key, seconds=max(again, 0.05))

    async def _resync(self) -> None:
        while True:
            for key in list(self.store.objects):
                self.queue.add(key)
            await asyncio.sleep(RESYNC_SECONDS)

    def _nodes_changed(self) -> None:
        if self._world is not None:
            for key in self._world.waiting_for_room:
                self.queue.add(key)

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
