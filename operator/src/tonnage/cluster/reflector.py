"""List, then watch, for ever: one reflector keeps one kind of the store equal to the API server.

It watches all namespaces or one. Where the right to read is missing it asks again for ever, and says so.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Protocol

from tonnage.cluster.port import ApiError, Cluster, Event, Kind, Object

logger = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 30.0
SHORT_WATCH_SECONDS = 1.0


class Sink(Protocol):
    """Where a reflector puts what it learns."""

    def replace(self, kind: Kind, objects: list[Object], *, namespace: str) -> None:
        """These are all objects of the kind, of one namespace if it is named: what is missing was deleted."""
        ...

    def put(self, kind: Kind, body: Object) -> None:
        """This object was added or changed."""
        ...

    def remove(self, kind: Kind, body: Object) -> None:
        """This object was deleted."""
        ...


class Reflector:
    """Keeps `kind` in `sink`; `last_contact` is when the API server was last heard of (clock's seconds).

    `synced` is set once all is known, `settled` also when that is known to be refused; `refused` says why,
    as long as it is.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        sink: Sink,
        *,
        selector: str,
        clock: Callable[[], float],
        namespace: str = "",
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self.name = f"{kind.plural} in {namespace}" if namespace else kind.plural
        self.synced = asyncio.Event()
        self.settled = asyncio.Event()
        self.refused = ""
        self.last_contact = clock()
        self._cluster, self._sink, self._selector, self._clock = cluster, sink, selector, clock
        self._version = ""

    async def run(self) -> None:
        """Never returns. A failed list or watch is repeated with growing pauses; 410 lists at once."""
        pause = FIRST_BACKOFF_SECONDS
        while True:
            try:
                if not self._version:
                    await self._list()
                opened = self._clock()
                await self._watch()
                if self._clock() - opened >= SHORT_WATCH_SECONDS:
                    pause = FIRST_BACKOFF_SECONDS
                else:
                    # a watch that ends at once, without an error, must not become a hot loop
                    await asyncio.sleep(FIRST_BACKOFF_SECONDS)
            except ApiError as error:
                if error.gone:
                    self._version = ""
                    continue
                # no answer may hide missed events only if the version is lost too; the server decides (410)
                self._failed(error, pause=pause)
                await asyncio.sleep(error.retry_after or pause * random.uniform(0.8, 1.2))  # noqa: S311
                pause = min(pause * 2, MAX_BACKOFF_SECONDS)

    async def _list(self) -> None:
        listing = await self._cluster.list(self.kind, namespace=self.namespace, selector=self._selector)
        self._sink.replace(self.kind, listing.items, namespace=self.namespace)
        self._version = listing.resource_version
        self._answered()
        self.synced.set()
        self.settled.set()

    async def _watch(self) -> None:
        events = self._cluster.watch(
            self.kind,
            resource_version=self._version,
            namespace=self.namespace,
            selector=self._selector,
        )
        async for event in events:
            self._take(event)

    def _answered(self) -> None:
        self.last_contact = self._clock()
        if self.refused:
            self.refused = ""
            logger.info("watch of %s: the right to read is there now", self.name)

    def _failed(self, error: ApiError, *, pause: float) -> None:
        if not error.forbidden:
            logger.warning("watch of %s: %s; again in %.1f s", self.name, error, pause)
            return
        # an answer: the connection is sound, and a restart would not bring the right
        self.last_contact = self._clock()
        if not self.refused:
            logger.error("watch of %s: %s; asked again until it is granted", self.name, error.message)
        self.refused = error.message
        self.settled.set()

    def _take(self, event: Event) -> None:
        self._answered()
        self._version = event.object["metadata"]["resourceVersion"]
        if event.type == "DELETED":
            self._sink.remove(self.kind, event.object)
        elif event.type != "BOOKMARK":
            self._sink.put(self.kind, event.object)
