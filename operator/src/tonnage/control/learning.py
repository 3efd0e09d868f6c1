"""What starts teach: in memory, where plans take it from, and kept in a ConfigMap of the operator's own
namespace.

The ConfigMap is read before it is written: what somebody changed in it, or that it was deleted, counts, and
what was taught since the last write is added. A process that does not lead writes nothing (`GuardedCluster`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from tonnage.cluster.port import CONFIG_MAP, ApiError, Cluster, Object
from tonnage.planning.residuals import NOTHING_LEARNED, Residuals, dump, is_trusted, read
from tonnage.rendering.learned import build_learned
from tonnage.rendering.lessons import Lesson
from tonnage.rendering.observations import Pod

logger = logging.getLogger(__name__)

# starts that come together, such as those of a roll-out, are one write
WRITE_SECONDS = 30.0
# how soon a change that somebody made is seen, and a write that failed is tried again
READ_SECONDS = 300.0
FUTURE_SECONDS: Final = 60
_MOST_UNWRITTEN: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A lesson, and the second in which its container started."""

    lesson: Lesson
    started_at: int


class Learning:
    """What is known now. Nothing is learned without `trusted` images; `changed` is called when something
    was."""

    def __init__(
        self,
        *,
        trusted: tuple[str, ...] = (),
        changed: Callable[[], None] = lambda: None,
        counted: Callable[[], None] = lambda: None,
    ) -> None:
        self.known: Residuals = NOTHING_LEARNED
        self.unwritten: deque[Start] = deque(maxlen=_MOST_UNWRITTEN)
        self.news = asyncio.Event()
        self._trusted, self._changed, self._counted = trusted, changed, counted

    def listens_to(self, pod: Pod, *, now: int) -> bool:
        """Whether what this pod's worker tells is believed: of an image that is trusted, and of a container
        that started before now by the clock of its node."""
        return 0 < pod.started_at <= now + FUTURE_SECONDS and is_trusted(pod.image, self._trusted)

    @property
    def enabled(self) -> bool:
        """Whether anything can be learned at all."""
        return bool(self._trusted)

    def teach(self, lesson: Lesson, *, started_at: int) -> None:
        """A start of a container that is listened to; one that is known changes nothing."""
        start = Start(lesson=lesson, started_at=started_at)
        known = _taught(self.known, start)
        if known is not self.known:
            self.unwritten.append(start)
            self._counted()
            self._know(known)
            self.news.set()

    def rebase(self, kept: Residuals) -> None:
        """Start from what is kept, and add what is not written yet."""
        for start in self.unwritten:
            kept = _taught(kept, start)
        if kept != self.known:
            self._know(kept)

    def is_written(self, starts: Collection[Start]) -> None:
        """These are kept now."""
        left = [start for start in self.unwritten if start not in starts]
        self.unwritten = deque(left, maxlen=_MOST_UNWRITTEN)

    def _know(self, known: Residuals) -> None:
        self.known = known
        self._changed()


def _taught(known: Residuals, start: Start) -> Residuals:
    lesson = start.lesson
    return known.with_start(
        lesson.key,
        started_at=start.started_at,
        measured_bytes=lesson.measured_bytes,
        law=lesson.law,
        trusted=True,
    )


class LearnedMap:
    """The ConfigMap, kept equal to what is known; `watched` are the namespaces that the operator serves."""

    def __init__(
        self, cluster: Cluster, learning: Learning, *, namespace: str, name: str, watched: tuple[str, ...]
    ) -> None:
        self._cluster, self._learning = cluster, learning
        self._namespace, self._name, self._watched = namespace, name, watched
        self._seen: Mapping[str, str] | None = None
        self._told = ""

    async def load(self) -> bool:
        """Read what is kept; False if that failed, which is told once."""
        return await self._tried(self._read)

    async def keep(self) -> None:
        """For ever: write what is new, at most once in a while, and see what others change."""
        while True:
            try:
                async with asyncio.timeout(READ_SECONDS):
                    await self._learning.news.wait()
                await asyncio.sleep(WRITE_SECONDS)
            except TimeoutError:
                pass
            self._learning.news.clear()
            if not await self._tried(self._write):
                await asyncio.sleep(READ_SECONDS)
                self._learning.news.set()

    async def _tried(self, work: Callable[[], Awaitable[object]]) -> bool:
        try:
            await work()
        except ApiError as error:
            self._tell(error)
            return False
        self._told = ""
        return True

    async def _read(self) -> Mapping[str, str]:
        stored = await self._cluster.get(CONFIG_MAP, namespace=self._namespace, name=self._name)
        data: Mapping[str, str] = (stored or {}).get("data") or {}
        if data != self._seen:
            self._seen = data
            kept, problems = read(data)
            for problem in problems:
                logger.warning("ConfigMap %s/%s: %s", self._namespace, self._name, problem)
            self._learning.rebase(kept)
        return data

    async def _write(self) -> None:
        there = await self._read()
        written = tuple(self._learning.unwritten)
        wanted = dump(self._learning.known)
        if not written:
            return
        if wanted != there:
            await self._cluster.apply(CONFIG_MAP, self._body(wanted))
            self._seen = wanted
        # also where it was there: of a write whose answer was lost, or a start that is too old by now
        self._learning.is_written(written)

    def _body(self, data: dict[str, str]) -> Object:
        return build_learned(data, namespace=self._namespace, name=self._name, watched=self._watched)

    def _tell(self, error: ApiError) -> None:
        if str(error) == self._told:
            return
        self._told = str(error)
        logger.warning(
            "what starts teach cannot be kept in ConfigMap %s/%s, and is forgotten when this process ends: "
            "%s%s",
            self._namespace,
            self._name,
            error,
            " (the chart's Role of this namespace grants get, create and patch)" if error.forbidden else "",
        )
