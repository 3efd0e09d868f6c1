"""What every call of the operator passes on its way to the port: the leader's fence and the server's wish."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from tonnage.cluster.port import ApiError, Cluster, Event, Kind, Listing, Object

T = TypeVar("T")

# a server that asks for more is asked again all the same: nobody looks at a process that is quiet for longer
MOST_QUIET_SECONDS = 120.0
SPREAD = 1.1


class GuardedCluster:
    """`Cluster` that writes only while `may_write` says so, and is quiet as long as the server asked.

    Retry-After counts for all calls of the process, not for the refused one alone: a server that says it
    about one has too much of all.
    """

    def __init__(
        self, cluster: Cluster, *, may_write: Callable[[], bool], clock: Callable[[], float]
    ) -> None:
        self._cluster, self._may_write, self._clock = cluster, may_write, clock
        self._quiet_until = float("-inf")

    async def get(self, kind: Kind, *, namespace: str, name: str) -> Object | None:
        """See `Cluster`."""
        return await self._call(lambda: self._cluster.get(kind, namespace=namespace, name=name))

    async def list(self, kind: Kind, *, namespace: str = "", selector: str = "") -> Listing:
        """See `Cluster`."""
        return await self._call(lambda: self._cluster.list(kind, namespace=namespace, selector=selector))

    async def watch(
        self,
        kind: Kind,
        *,
        resource_version: str,
        namespace: str = "",
        selector: str = "",
        seconds: float = 300.0,
    ) -> AsyncGenerator[Event]:
        """See `Cluster`."""
        await self._silence()
        events = self._cluster.watch(
            kind,
            resource_version=resource_version,
            namespace=namespace,
            selector=selector,
            seconds=seconds,
        )
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        except ApiError as error:
            self._heed(error)
            raise

    async def apply(self, kind: Kind, body: Object, *, force: bool = True) -> Object:
        """See `Cluster`."""
        return await self._write(lambda: self._cluster.apply(kind, body, force=force))

    async def overwrite(self, kind: Kind, body: Object) -> Object:
        """See `Cluster`."""
        return await self._write(lambda: self._cluster.overwrite(kind, body))

    async def apply_status(self, kind: Kind, body: Object) -> Object:
        """See `Cluster`."""
        return await self._write(lambda: self._cluster.apply_status(kind, body))

    async def delete(self, kind: Kind, *, namespace: str, name: str, uid: str) -> None:
        """See `Cluster`."""
        await self._write(lambda: self._cluster.delete(kind, namespace=namespace, name=name, uid=uid))

    async def create(self, kind: Kind, body: Object) -> Object:
        """See `Cluster`."""
        return await self._write(lambda: self._cluster.create(kind, body))

    async def replace(self, kind: Kind, body: Object) -> Object:
        """See `Cluster`."""
        return await self._write(lambda: self._cluster.replace(kind, body))

    async def _write(self, call: Callable[[], Awaitable[T]]) -> T:
        def fenced() -> Awaitable[T]:
            # asked last: the lease may end while the call waits
            if not self._may_write():
                raise ApiError(0, "this process does not hold the leader lease: nothing was written")
            return call()

        return await self._call(fenced)

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        await self._silence()
        try:
            return await call()
        except ApiError as error:
            self._heed(error)
            raise

    async def _silence(self) -> None:
        """Wait until the server wants to be asked again; not everybody at once."""
        while (wait := self._quiet_until - self._clock()) > 0:
            await asyncio.sleep(wait * random.uniform(1.0, SPREAD))  # noqa: S311

    def _heed(self, error: ApiError) -> None:
        if error.retry_after:
            wish = min(error.retry_after, MOST_QUIET_SECONDS)
            self._quiet_until = max(self._quiet_until, self._clock() + wish)
