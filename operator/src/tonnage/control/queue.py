"""A keyed work queue: each key at most once in line, one worker per key, growing pauses after failures.

There are two lines. What a user changed is taken first, so that a burst of new objects is deployed before the
news of the ones already deployed is looked at; the other line is never left waiting for long.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict

Key = tuple[str, str]

FIRST_BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 60.0
# of so many keys taken, one is of the second line even while there are keys in the first
SECOND_LINE_SHARE = 8


def growing_pause(failures: int, *, first_seconds: float, most_seconds: float) -> float:
    """Seconds to wait after `failures` earlier ones: doubled each time, up to `most_seconds`."""
    # the exponent is bounded because a float is: 2.0 ** 1024 is an error
    return min(first_seconds * 2.0 ** min(failures, 20), most_seconds)


class KeyedQueue:
    """Keys to reconcile. `add` while a key is worked on puts it in line again when it is done."""

    def __init__(self) -> None:
        self._ready = asyncio.Semaphore(0)
        self._first: OrderedDict[Key, None] = OrderedDict()
        self._second: OrderedDict[Key, None] = OrderedDict()
        self._taken = 0
        self._active: set[Key] = set()
        self._again: dict[Key, bool] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    @property
    def pressing(self) -> int:
        """Keys in the first line."""
        return len(self._first)

    def add(self, key: Key, *, first: bool = False) -> None:
        """Put a key in line, once; in the first line, also if it was in the second."""
        if key in self._active:
            self._again[key] = first or self._again.get(key, False)
        elif key in self._second and first:
            del self._second[key]
            self._first[key] = None
        elif key not in self._first and key not in self._second:
            (self._first if first else self._second)[key] = None
            self._ready.release()

    def add_after(self, key: Key, *, seconds: float) -> None:
        """Put a key in line later; an earlier timer of the same key stands."""
        loop = asyncio.get_running_loop()
        old = self._timers.get(key)
        if old is not None:
            if old.when() <= loop.time() + seconds:
                return
            old.cancel()
        self._timers[key] = loop.call_later(seconds, self._fire, key)

    def add_failed(self, key: Key) -> None:
        """Put a key in line after a failure: in 0.2 s, doubled each time, at most a minute, with jitter."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        pause = growing_pause(count, first_seconds=FIRST_BACKOFF_SECONDS, most_seconds=MAX_BACKOFF_SECONDS)
        self.add_after(key, seconds=pause * random.uniform(0.8, 1.2))  # noqa: S311

    def succeeded(self, key: Key) -> None:
        """Forget the failures of a key."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """Drop the timer and the failures of a key that no longer exists."""
        self._failures.pop(key, None)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def take(self) -> Key:
        """The next key; call `done` when its work is finished."""
        await self._ready.acquire()
        self._taken += 1
        turn = self._taken % SECOND_LINE_SHARE == 0
        line = self._second if self._second and (turn or not self._first) else self._first
        key, _ = line.popitem(last=False)
        self._active.add(key)
        return key

    def done(self, key: Key) -> None:
        """The work on a key is finished; it goes in line again if it was added meanwhile."""
        self._active.discard(key)
        if key in self._again:
            self.add(key, first=self._again.pop(key))

    def _fire(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)
