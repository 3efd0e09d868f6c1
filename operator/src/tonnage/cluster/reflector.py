"""List, then watch, for ever: one reflector keeps one kind of the store equal to the API server.

A watch tells every change once and in order. What breaks that (an event that never came, came late or came
from an older server) is met by lists: at once where it can be seen, else within `relist_seconds`.

It watches all namespaces or one. Where the right to read is missing it asks again for ever, and says so.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing
from typing import Protocol

from tonnage.cluster.port import ApiError, Cluster, Event, Kind, Object

logger = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 30.0
SHORT_WATCH_SECONDS = 1.0
RELIST_SECONDS = 600.0
SPREAD = 1.2
# bookmarks come about every minute; a watch may be silent while it is being opened again
MAX_SILENCE_SECONDS = 180.0
# A server that lags gives lists that are older than what was seen, and they must not be acted on: old specs
# would be rolled out. One that was restored from a backup gives them for good: after so many in a row, which
# the growing pauses spread over two minutes, they are believed.
OLD_LISTS = 10


class Sink(Protocol):
    """Where a reflector puts what it learns."""

    def replace(self, kind: Kind, objects: list[Object], *, namespace: str, version: str) -> None:
        """These are all objects of the kind at `version`, of one namespace if it is named.

        Without a version whatever is known is to be forgotten.
        """
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
    as long as it is. Both are cleared where the server no longer serves the kind, unless the cluster may do
    without it (`optional`): there is nothing of the kind then, `served` is False, and `served_changed` is
    called when that changes. Without `watches` it only lists, every `relist_seconds`: somebody else tells of
    changes.
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
        watches: bool = True,
        optional: bool = False,
        relist_seconds: float = RELIST_SECONDS,
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self.most_silence_seconds = MAX_SILENCE_SECONDS + (0.0 if watches else relist_seconds * SPREAD)
        self.name = f"{kind.plural} in {namespace}" if namespace else kind.plural
        self.synced = asyncio.Event()
        self.settled = asyncio.Event()
        self.refused = ""
        self.last_contact = clock()
        self._cluster, self._sink, self._selector, self._clock = cluster, sink, selector, clock
        self._watches, self._optional, self._absent = watches, optional, False
        self.served_changed: Callable[[], None] = lambda: None
        self._relist_seconds, self._relist_at = relist_seconds, float("inf")
        self._version = ""  # where the next watch starts; "" where only a list can tell
        self._seen = ""  # the highest version that was ever told of
        self._old_lists = 0
        self._pause = FIRST_BACKOFF_SECONDS

    async def run(self) -> None:
        """Never returns. What fails or ends at once is repeated with growing pauses."""
        while True:
            opened = self._clock()
            failure: ApiError | None = None
            try:
                if not self._version or opened >= self._relist_at:
                    await self._list()
                    opened = self._clock()
                await (self._watch() if self._watches else self._wait())
            except ApiError as error:
                failure = error
            short = self._clock() - opened < SHORT_WATCH_SECONDS
            if not short:
                self._pause = FIRST_BACKOFF_SECONDS
            if short or failure is not None:
                await self._rest(failure)

    async def _rest(self, failure: ApiError | None) -> None:
        pause = self._pause * random.uniform(0.8, 1.2)  # noqa: S311
        if failure is not None:
            self._failed(failure, pause=pause)
        await asyncio.sleep(pause)
        self._pause = min(self._pause * 2, MAX_BACKOFF_SECONDS)

    async def _list(self) -> None:
        listing = await self._cluster.list(self.kind, namespace=self.namespace, selector=self._selector)
        version = listing.resource_version if self._believes(listing.resource_version) else ""
        self._sink.replace(self.kind, listing.items, namespace=self.namespace, version=version)
        self._version = self._seen = listing.resource_version
        self._relist_at = self._clock() + self._relist_seconds * random.uniform(0.8, SPREAD)  # noqa: S311
        self._answered()
        self._note_absence(False)

    def _answered(self) -> None:
        self.last_contact = self._clock()
        if self.refused:
            self.refused = ""
            logger.info("watch of %s: the right to read is there now", self.name)

    def _failed(self, error: ApiError, *, pause: float) -> None:
        if error.status:
            # an answer: the connection is sound, and a restart would change nothing
            self.last_contact = self._clock()
        if error.gone or error.not_found:
            self._version = ""
        if error.not_found and self._optional:
            self._nothing()
            return
        if error.not_found:
            self.synced.clear()
            self.settled.clear()
        if not error.forbidden:
            logger.warning("watch of %s: %s; again in %.1f s", self.name, error, pause)
            return
        if not self.refused:
            logger.error("watch of %s: %s; asked again until it is granted", self.name, error.message)
        self.refused = error.message
        self.settled.set()

    def _nothing(self) -> None:
        """The server does not serve the kind: asked again as rarely as a pause may be."""
        if not self._absent:
            logger.info("watch of %s: this API server does not serve them", self.name)
        self._sink.replace(self.kind, [], namespace=self.namespace, version="")
        self._seen, self._pause = "", MAX_BACKOFF_SECONDS
        self._note_absence(True)

    @property
    def served(self) -> bool:
        """Is the kind known to be served?"""
        return self.synced.is_set() and not self._absent

    def _note_absence(self, absent: bool) -> None:
        before = self.served
        self._absent = absent
        self.synced.set()
        self.settled.set()
        if before != self.served:
            self.served_changed()

    def _believes(self, version: str) -> bool:
        """Does a list follow what was seen? Raises ApiError to ask again before an older one is taken."""
        if not _older(version, than=self._seen):
            self._old_lists = 0
            return True
        self._old_lists += 1
        if self._old_lists < OLD_LISTS:
            raise ApiError(0, f"a list at {version} is older than {self._seen}, which was seen before")
        self._old_lists = 0
        return False

    async def _wait(self) -> None:
        await asyncio.sleep(self._relist_at - self._clock())

    async def _watch(self) -> None:
        events = self._cluster.watch(
            self.kind,
            resource_version=self._version,
            namespace=self.namespace,
            selector=self._selector,
            seconds=self._relist_at - self._clock(),
        )
        async with aclosing(events):
            async for event in events:
                self._take(event)

    def _take(self, event: Event) -> None:
        self._answered()
        version = event.object["metadata"]["resourceVersion"]
        if _older(version, than=self._seen):
            raise ApiError(410, f"an event of version {version} came after {self._seen}")
        told = version == self._seen
        self._version = self._seen = version
        if event.type == "BOOKMARK" or told:
            return
        if event.type == "DELETED":
            self._sink.remove(self.kind, event.object)
        else:
            self._sink.put(self.kind, event.object)


def _older(version: str, *, than: str) -> bool:
    """resourceVersions of one kind are ordered integers (guaranteed since Kubernetes 1.35)."""
    return version.isdigit() and than.isdigit() and int(version) < int(than)
