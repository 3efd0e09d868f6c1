"""A tier that cannot run here is skipped and says why; in CI it fails."""

import os

import pytest


def require(missing: str) -> None:
    """Skip what needs something that is `missing` here, or fail in CI; "" is nothing."""
    if missing and os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"this tier must run in CI, but {missing}")
    if missing:
        pytest.skip(missing)
