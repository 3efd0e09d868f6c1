"""What a running process costs: CPU seconds and memory, from /proc."""

from __future__ import annotations

import os
import time
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time since the process began; steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def memory_mib(pid: int, field: str) -> float:
    """`VmRSS` (now) or `VmHWM` (at most so far)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) / 1024


def calm_after(pid: int, *, since: float, busy_share: float = 0.1, calm_seconds: float = 5.0) -> float:
    """Seconds from `since` (monotonic) until the process last used more than `busy_share` of a core.

    Looked at from now on in steps of a quarter second, until it was calm for `calm_seconds`; before now it
    counts as busy.
    """
    last_busy, before, step = time.monotonic(), cpu_seconds(pid), 0.25
    while time.monotonic() - last_busy < calm_seconds:
        time.sleep(step)
        now = cpu_seconds(pid)
        if now - before > busy_share * step:
            last_busy = time.monotonic()
        before = now
    return last_busy - since
