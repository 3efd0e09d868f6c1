"""The engine's code for the session. Where its environment cannot be had the tier is skipped, in CI it
fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.tiers import require
from oracle import environment
from oracle.client import Oracle


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    """Answers of vLLM's own code."""
    require(environment.missing())
    with Oracle() as found:
        yield found
