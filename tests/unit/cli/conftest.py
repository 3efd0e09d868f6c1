from __future__ import annotations

import pytest

from unit.cli.samples import Run, runner


@pytest.fixture
def fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`tonnage fit` in this process, without network settings of the machine."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    return runner(capsys)
