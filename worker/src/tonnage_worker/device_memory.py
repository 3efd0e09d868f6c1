"""What an engine left of its device, told by its ranks to the supervisor through a directory.

The supervisor imports no torch, and the engine's metrics page does not tell. Each rank (see `preflight`)
writes one small file once it is warm; of several ranks the fullest device counts, as it does for the engine.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

DIRECTORY_VARIABLE = "TONNAGE_MEMORY_DIRECTORY"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Bytes of one device: its total, what was free once it was open and nothing was loaded, and what is free
    once the engine is warm. `compiled`: code was compiled in this start, and not all found in a cache."""

    total: int
    free_at_start: int
    free_at_ready: int
    compiled: bool


def write_memory(memory: DeviceMemory) -> None:
    """Tell the supervisor, if there is one."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if not directory:
        return
    with contextlib.suppress(OSError):
        path = Path(directory, f"{os.getpid()}.json")
        scratch = path.with_suffix(".new")
        scratch.write_text(json.dumps(asdict(memory)), encoding="ascii")
        scratch.replace(path)


def read_memory(directory: str) -> DeviceMemory | None:
    """That of the rank with the least left; None where no rank has told."""
    return min(_told(Path(directory)), key=lambda memory: memory.free_at_ready, default=None)


def _told(directory: Path) -> Iterator[DeviceMemory]:
    for path in sorted(directory.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            told = DeviceMemory(**json.loads(path.read_text(encoding="ascii")))
            amounts = told.total, told.free_at_start, told.free_at_ready
            if all(isinstance(amount, int) for amount in amounts) and isinstance(told.compiled, bool):
                yield told
