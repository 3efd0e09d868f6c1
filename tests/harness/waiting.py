"""Waiting for something to become true, with a deadline that is generous and never asserted on."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_until(
    what: str, probe: Callable[[], Found | None], *, seconds: float = 60.0, every_seconds: float = 0.25
) -> Found:
    """Call `probe` until it returns something true, and return that.

    Raises:
        TimeoutError: nothing true within `seconds`; carries what `probe` returned last.
    """
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}; last: {found!r}")
        time.sleep(every_seconds)
    return found
