"""Entry of the worker pod, PID 1: `python3 -P -m tonnage_worker.serve --plan FILE -- ENGINE_ARGUMENT...`"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worker until its engine has ended; returns the exit code (0: drained)."""
    early: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        early.append(number)

    # For PID 1 the kernel drops signals without a handler, and importing takes a while: without this, a
    # SIGTERM in the first moment would be lost and the pod would live on until it is killed.
    signal.signal(signal.SIGTERM, remember)
    signal.signal(signal.SIGINT, remember)
    from .container import run_container  # noqa: PLC0415

    return run_container(sys.argv[1:] if arguments is None else arguments, early_signals=early)


if __name__ == "__main__":
    sys.exit(main())
