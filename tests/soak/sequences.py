"""`make soak-sequences`: 1,000 histories of objects, generated from the schema, on the real control plane.

TONNAGE_SEED sets the seed (one of the clock's else), which is printed. Played in waves; after each, all
objects at rest are looked at again, by an operator that was restarted too. Ends with the first wave in which
a history broke a promise: it is shrunk and printed as YAML.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import sys
import time

from cluster.operator_process import install_rights
from harness import lifecycle
from harness.cluster import Cluster
from sequences.generate import generate
from sequences.play import Player, told
from sequences.shrink import report
from sequences.stage import stage

RUNS = 1000
WAVE = 100
PORT = 18540


async def soak(cluster: Cluster, *, runs: int, seed_number: int) -> None:
    """Play all waves; exits with the report of the first that has a failure."""
    started = time.monotonic()
    histories = generate(runs, seed_number=seed_number)
    async with stage(cluster, namespaces=8, port=PORT, prefix="soak") as played_on:
        player = Player(played_on)
        for first in range(0, runs, WAVE):
            found = await player.wave(histories[first : first + WAVE], restart=True)
            failures = [failure for failure in found if failure is not None]
            if failures:
                sys.exit(await report(failures, player, seed_number=seed_number))
            done = min(first + WAVE, runs)
            print(f"{done} of {runs}, {time.monotonic() - started:.0f} s", flush=True)
    print(f"{runs} histories, seed {seed_number}: no promise was broken")
    for title, counts in told(player.tally).items():
        print(f"{title}: " + ", ".join(f"{name or 'taken'} {count}" for name, count in counts.items()))


def main() -> None:
    """Start a simulated cluster, soak, and stop it."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    seed_number = int(os.environ.get("TONNAGE_SEED") or time.time())
    now = datetime.datetime.now(datetime.UTC)
    print(f"TONNAGE_SEED={seed_number} make soak-sequences, {now:%Y-%m-%d %H:%M} UTC", flush=True)
    cluster = lifecycle.start_simulated()
    try:
        install_rights(cluster)
        asyncio.run(soak(cluster, runs=runs, seed_number=seed_number))
    finally:
        lifecycle.stop(cluster)


if __name__ == "__main__":
    main()
