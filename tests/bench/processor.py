"""Times of the processor beside a control of the same minute: Python counting 100,000 short texts."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.memory_tables import ninth_tenth

_WORDS: Final = [f"w{number % 997}" for number in range(100_000)]


def heading(command: str) -> str:
    """What was run, when and on what."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{command}, {written}, Python {platform.python_version()}, {os.cpu_count()} x {processor}"


def beside_control(once: Callable[[], Any], *, rounds: int) -> str:
    """Median and 90 % of the times of a call, and their ratio to the control's, in turns with it."""
    times, control = [], []
    for _ in range(rounds):
        control.append(_seconds(_control))
        times.append(_seconds(once))
    median, slow = statistics.median(times), ninth_tenth(sorted(times))
    ratio = median / statistics.median(control)
    return (
        f"median {median * 1e3:5.1f} ms, 90 % {slow * 1e3:5.1f} ms, {ratio:5.2f} of the control "
        f"({statistics.median(control) * 1e3:.1f} ms)"
    )


def _control() -> None:
    counts: dict[str, int] = {}
    for word in _WORDS:
        counts[word] = counts.get(word, 0) + 1


def _seconds(once: Callable[[], Any]) -> float:
    begun = time.process_time()
    once()
    return time.process_time() - begun
