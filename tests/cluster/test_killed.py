"""SIGKILL of the operator's process at random moments, while objects are made, changed, scaled and deleted.

The process is started again at once with the same identity, so that it takes its own lease back. In each
round one object is in each part of its life, and the process is killed five times before they settle.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cluster.ground import Ground, State, difference, open_ground
from cluster.operator_process import COMMAND, environment_of
from cluster.reliability import Report
from cluster.test_faults import CHANGED, SCALED, live
from harness.cluster import Cluster

pytestmark = pytest.mark.cluster
KILLS = int(os.environ.get("TONNAGE_KILLS", "25"))
SEED = int(os.environ.get("TONNAGE_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
LATEST_SECONDS = 2.0
KILLS_A_ROUND = 5
LIFE = ("create", "update", "scale", "delete")


class Killable:
    """The operator's process, with one namespace to look at."""

    def __init__(self, ground: Ground) -> None:
        self._environment = environment_of(ground.cluster, watched=ground.namespace)
        self._log = ground.cluster.state / "logs" / f"operator-{ground.namespace}.log"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process; nothing waits until it is ready."""
        with self._log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *COMMAND, env=self._environment, stdout=output, stderr=output
            )

    async def keep(self) -> None:
        """Start the process again whenever it ended by itself, as Kubernetes does."""
        while True:
            assert self.process is not None
            await self.process.wait()
            await asyncio.sleep(1)
            await self.start()

    async def answers(self) -> None:
        """Wait until the process has begun its work: its probes' port is open."""
        port = int(self._environment["TONNAGE_HEALTH_PORT"])
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return

    async def kill(self) -> None:
        """SIGKILL, and the end of the process."""
        assert self.process is not None
        assert self.process.returncode is None, "the process ended by itself"
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def killable(ground: Ground) -> AsyncIterator[Killable]:
    """A running operator until the block ends."""
    operator = Killable(ground)
    await operator.start()
    try:
        yield operator
    finally:
        if operator.process is not None and operator.process.returncode is None:
            await operator.kill()


async def act(ground: Ground, part: str, name: str) -> None:
    """One part of an object's life, by its user."""
    if part == "create":
        await ground.apply(name)
    elif part == "update":
        await ground.apply(name, **CHANGED)
    elif part == "scale":
        await ground.apply(name, **SCALED)
    else:
        await ground.delete(name)


async def settle(ground: Ground, part: str, name: str, expected: dict[str, State]) -> None:
    """The state of the undisturbed run must come, and stay."""
    try:
        await ground.settled(
            name,
            lambda: (
                not ground.seen.left(name) if part == "delete" else ground.seen.state(name) == expected[part]
            ),
        )
    except AssertionError:
        apart = difference(expected[part], ground.seen.state(name))
        raise AssertionError(f"seed {SEED}: {name} after {part}: {apart}") from None


async def one_round(
    ground: Ground, operator: Killable, chance: random.Random, *, number: int, objects: int
) -> list[tuple[str, str]]:
    """Each of four objects takes one part of its life, and again and again the process is killed."""
    acts = [(part, f"k-{number - age:03}") for age, part in enumerate(LIFE) if 0 <= number - age < objects]

    async def user(part: str, name: str, after: float) -> None:
        await asyncio.sleep(after)
        await act(ground, part, name)

    moments = [chance.uniform(0, 0.5) for _ in acts]
    async with asyncio.TaskGroup() as group:
        for (part, name), after in zip(acts, moments, strict=True):
            group.create_task(user(part, name, after))
        for kill in range(KILLS_A_ROUND):
            if kill % 2 == 0:  # every second one may hit the start itself
                await operator.answers()
            await asyncio.sleep(chance.uniform(0, LATEST_SECONDS))
            await operator.kill()
            await operator.start()
    return acts


async def test_killed_at_random_moments_it_ends_where_an_undisturbed_run_ends(
    cluster: Cluster, report: Report
) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    async with open_ground(cluster, "killed") as ground, killable(ground) as operator:
        states = await live(ground, "whole", None)
        expected: dict[str, State] = dict(zip(LIFE, [*states, {}], strict=True))
        rounds = math.ceil(KILLS / KILLS_A_ROUND)
        objects = rounds - len(LIFE) + 1
        for number in range(rounds):
            acts = await one_round(ground, operator, chance, number=number, objects=objects)
            async with asyncio.TaskGroup() as group:
                for part, name in acts:
                    group.create_task(settle(ground, part, name, expected))
        assert not any(ground.seen.objects.values())
        refused = ground.refused_writes()
        assert refused == [], refused
        report.row(
            "SIGKILL of the process",
            injected=rounds * KILLS_A_ROUND,
            result=f"{objects} objects: each state as undisturbed, refused writes 0 (seed {SEED})",
        )
