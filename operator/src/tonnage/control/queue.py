"""A keyed work queue: each key at most once in line, one worker per key, growing pauses after failures."""

from __future__ import annotations

import asyncio
import random

Key = tuple[str, str]

FIRST_BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 60.0


def growing_pause(failures: int, *, first_seconds: float, most_seconds: float) -> float:
    """Seconds to wait after `failures` earlier ones: doubled each time, up to `most_seconds`."""
    # the exponent is bounded because a float is: 2.0 ** 1024 is an error
    return min(first_seconds * 2.0 ** min(failures, 20), most_seconds)


class KeyedQueue:
    """Keys to reconcile. `add` while a key is worked on puts it in line again when it is done."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._active: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Key) -> None:
        """Put a key in line, once."""
        if key in self._active:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

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
        key = await self._ready.get()
        self._waiting.discard(key)
        self._active.add(key)
        return key

    def done(self, key: Key) -> None:
        """The work on a key is finished; it goes in line again if it was added meanwhile."""
        self._active.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _fire(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)
