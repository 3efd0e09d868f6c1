"""Histories generated from the schema, applied to the real control plane with a real operator."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from harness.cluster import Cluster
from sequences.fields import cases
from sequences.found import FOUND
from sequences.generate import generate
from sequences.ground import INVALID, PLANNED, REFUSED
from sequences.play import Player, told
from sequences.shrink import report, shown
from sequences.stage import Stage, stage

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="module")]
PORT = 18520
COUNT = 64
SEED = int(os.environ.get("TONNAGE_SEED", "20261127"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def played_on(cluster: Cluster) -> AsyncIterator[Stage]:
    async with stage(cluster, namespaces=8, port=PORT, prefix="sequences") as found:
        yield found


async def test_every_field_changes_something_or_is_refused(played_on: Stage) -> None:
    assert await Player(played_on).fields(cases()) == []


async def test_what_was_found_once_stays_mended(played_on: Stage) -> None:
    player = Player(played_on, first=500)
    found = await player.wave(list(FOUND.values()), restart=False)
    assert [shown(failure) for failure in found if failure is not None] == []


async def test_histories_end_as_if_they_had_not_been(played_on: Stage) -> None:
    player = Player(played_on, first=1000)
    found = await player.wave(generate(COUNT, seed_number=SEED), restart=True)
    failures = [failure for failure in found if failure is not None]
    if failures:
        pytest.fail(await report(failures, player, seed_number=SEED))
    tally = told(player.tally)
    objects = tally["objects"]
    assert objects[PLANNED] > objects[REFUSED] > 0 < objects[INVALID], tally
    assert tally["checks"]["equals fresh"] == COUNT, tally
    assert tally["checks"]["a restart writes nothing"] >= COUNT, tally
    reasons = {"NotSupportedYet", "PinnedByPlan", "ContextTooLong", "MemoryRequestTooSmall", "NoUsableNode"}
    assert reasons <= set(tally["reasons"]), tally
