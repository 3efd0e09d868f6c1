"""What stands between an operator and its ports in a test: everything passes, and a fault is a subclass."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tonnage.cluster.port import Cluster, Event, Kind, Listing, Object
from tonnage.control.world import Scraper
from tonnage.rendering.observations import Pod, Report

T = TypeVar("T")
WRITES = frozenset({"apply", "overwrite", "apply_status", "delete", "create", "replace"})
SCRAPE = "scrape"


@dataclass(frozen=True)
class Call:
    """One call of the operator: what it does to which objects; the name is empty for lists and watches."""

    verb: str
    kind: str
    name: str = ""

    @property
    def writes(self) -> bool:
        """Does it change something?"""
        return self.verb in WRITES


class Between:
    """`Cluster` and `Scraper` that pass everything on. A fault overrides `around`, `events` or `narrow`."""

    def __init__(self, cluster: Cluster, scraper: Scraper) -> None:
        self._cluster, self._scraper = cluster, scraper

    async def around(self, call: Call, send: Callable[[], Awaitable[T]]) -> T:
        """Send a call and give back its answer."""
        return await send()

    async def events(self, call: Call, stream: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        """The events of a watch."""
        async for event in stream:
            yield event

    def narrow(self, kind: Kind, selector: str) -> str:
        """The labels that a list or watch asks for."""
        return selector

    async def get(self, kind: Kind, *, namespace: str, name: str) -> Object | None:
        """See `Cluster`."""
        return await self.around(
            Call("get", kind.plural, name), lambda: self._cluster.get(kind, namespace=namespace, name=name)
        )

    async def list(self, kind: Kind, *, namespace: str = "", selector: str = "") -> Listing:
        """See `Cluster`."""
        labels = self.narrow(kind, selector)
        return await self.around(
            Call("list", kind.plural), lambda: self._cluster.list(kind, namespace=namespace, selector=labels)
        )

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
        call = Call("watch", kind.plural)
        stream = self._cluster.watch(
            kind,
            resource_version=resource_version,
            namespace=namespace,
            selector=self.narrow(kind, selector),
            seconds=seconds,
        )
        first = await self.around(call, lambda: anext(stream, None))
        try:
            if first is not None:
                yield first
                async for event in self.events(call, stream):
                    yield event
        finally:
            await stream.aclose()

    async def apply(self, kind: Kind, body: Object, *, force: bool = True) -> Object:
        """See `Cluster`."""
        return await self.around(
            _of("apply", kind, body), lambda: self._cluster.apply(kind, body, force=force)
        )

    async def overwrite(self, kind: Kind, body: Object) -> Object:
        """See `Cluster`."""
        return await self.around(_of("overwrite", kind, body), lambda: self._cluster.overwrite(kind, body))

    async def apply_status(self, kind: Kind, body: Object) -> Object:
        """See `Cluster`."""
        return await self.around(
            _of("apply_status", kind, body), lambda: self._cluster.apply_status(kind, body)
        )

    async def delete(self, kind: Kind, *, namespace: str, name: str, uid: str) -> None:
        """See `Cluster`."""
        return await self.around(
            Call("delete", kind.plural, name),
            lambda: self._cluster.delete(kind, namespace=namespace, name=name, uid=uid),
        )

    async def create(self, kind: Kind, body: Object) -> Object:
        """See `Cluster`."""
        return await self.around(_of("create", kind, body), lambda: self._cluster.create(kind, body))

    async def replace(self, kind: Kind, body: Object) -> Object:
        """See `Cluster`."""
        return await self.around(_of("replace", kind, body), lambda: self._cluster.replace(kind, body))

    async def report(self, pod: Pod) -> Report | None:
        """See `Scraper`."""
        return await self.around(Call(SCRAPE, "workers", pod.name), lambda: self._scraper.report(pod))


def _of(verb: str, kind: Kind, body: Object) -> Call:
    return Call(verb, kind.plural, body["metadata"].get("name", ""))
