"""A pass: what is said of one that failed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tonnage.cluster.port import LLM_DEPLOYMENT, ApiError
from tonnage.control import reconcile as passes
from tonnage.control.hardware import Hardware
from tonnage.control.reconcile import reconcile
from tonnage.control.store import Store
from tonnage.control.world import Clock, Pass, World
from unit.rendering.samples import SETTINGS

KEY = ("default", "chat")


class Passes:
    """Passes over one object whose children cannot be brought about as often as `failures` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, failures: int) -> None:
        self.failures, self.told = failures, list[int]()
        store = Store(touched=lambda _key, _first: None)
        self.world = World(
            cluster=None,  # type: ignore[arg-type]
            scraper=None,  # type: ignore[arg-type]
            store=store,
            hardware=Hardware(changed=lambda: None),
            settings=SETTINGS,
            clock=Clock(monotonic=lambda: 0.0, now=lambda: "2026-01-01T00:00:00Z"),
        )
        store.put(
            LLM_DEPLOYMENT,
            {"metadata": {"namespace": KEY[0], "name": KEY[1], "uid": "u1", "resourceVersion": "1"}},
        )
        monkeypatch.setattr(passes, "_decide_and_bring", self._bring)
        monkeypatch.setattr(passes, "LOOKING", (self._tell,))

    async def _bring(self, _p: Pass, _world: World) -> None:
        if self.failures:
            self.failures -= 1
            raise ApiError(500, "try again")

    async def _tell(self, p: Pass, _world: World) -> bool:
        self.told.append(p.memory.failures)
        return True

    def run(self) -> Any:
        try:
            return asyncio.run(reconcile(KEY, self.world))
        except ApiError as error:
            return error.status


def test_nothing_is_said_of_what_one_failure_left_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(monkeypatch, failures=1)
    assert (passes.run(), passes.told) == (500, [])
    assert (passes.run(), passes.told) == (None, [0])


def test_two_failures_in_a_row_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(monkeypatch, failures=2)
    assert (passes.run(), passes.told) == (500, [])
    assert (passes.run(), passes.told) == (500, [2])
    assert (passes.run(), passes.told) == (None, [2, 0])
