"""A node of a replica that spans several: its engine is headless, and the leader's worker answers for it.

It is ready while its engine runs: whether the replica serves, and holds what was planned, is for the leader
to say. It is told to stop together with its leader, which may have requests to finish: it stays until the
leader is gone, and no longer than a leader may drain. What is left of a group has nothing to do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any

from . import drain
from .engine_client import answers, open_peer_session
from .exits import Exit
from .supervisor import Supervisor

_POLL_SECONDS = 1.0
_GONE_ANSWERS = 2

log = logging.getLogger("tonnage_worker")


class Follower(Supervisor):
    """Supervises a headless engine; `leader` is where the leader's worker answers."""

    def __init__(self, *arguments: Any, leader: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.status = replace(self.status, follower=True)
        self._leader = leader

    async def _look(self) -> None:
        """There is nobody to ask; the loop is alive."""
        self._update()

    async def _drain(self) -> None:
        limits = self.status.plan.drain
        started = self._drain_asked_at or time.monotonic()
        most = limits.endpoint_seconds + limits.shutdown_timeout_seconds
        missed = 0
        while self._engine.running:
            now = time.monotonic()
            missed = missed if self._terminated else await self._missed(missed)
            if not self._terminated and (missed >= _GONE_ANSWERS or now - started >= most):
                why = "the leader is gone" if missed >= _GONE_ANSWERS else "the leader had its time"
                self._update(drain_note=why)
                log.info("stopping the engine after %.1f s: %s", now - started, why)
                self._terminated = True
                self._engine.terminate()
            elif now - started >= most + drain.KILL_MARGIN_SECONDS:
                text = f"the engine did not stop within {now - started:.0f} s; killed"
                self._end(Exit(reason="DrainTimeout", message=text, exit_code=137))
            await asyncio.wait({self._engine.ended}, timeout=_POLL_SECONDS)

    async def _missed(self, missed: int) -> int:
        self._update(drain_note="waiting for the leader to finish")
        async with open_peer_session() as session:
            return 0 if await answers(session, self._leader) else missed + 1

    async def _explain(self, returncode: int) -> Exit:
        """Without its leader an engine ends in whatever way: while draining it is meant to."""
        return self._drained() if self.status.draining else await super()._explain(returncode)
