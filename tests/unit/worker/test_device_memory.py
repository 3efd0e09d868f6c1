"""What the engine's ranks tell the supervisor of their devices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tonnage_worker import device_memory
from tonnage_worker.device_memory import DeviceMemory, read_memory, write_memory

READY = DeviceMemory(total=100, free_at_start=90, free_at_ready=5, compiled=True)


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(device_memory.DIRECTORY_VARIABLE, str(tmp_path))
    assert read_memory(str(tmp_path)) is None
    write_memory(READY)
    assert read_memory(str(tmp_path)) == READY
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_of_several_ranks_the_fullest_counts(tmp_path: Path) -> None:
    for rank, free in enumerate((7, 3, 9)):
        told = {"total": 100, "free_at_start": 90, "free_at_ready": free, "compiled": True}
        (tmp_path / f"{rank}.json").write_text(json.dumps(told))
    found = read_memory(str(tmp_path))
    assert found is not None
    assert found.free_at_ready == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"total": 1}',
        '{"total": "x", "free_at_start": 1, "free_at_ready": 1, "compiled": true}',
        '{"total": 1, "free_at_start": 1, "free_at_ready": 1, "compiled": "no"}',
        '{"total": 1, "free_at_start": 1, "free_at_ready": 1}',
    ],
)
def test_what_is_unreadable_is_left_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "1.json").write_text(text)
    assert read_memory(str(tmp_path)) is None
    assert read_memory(str(tmp_path / "none")) is None


def test_without_a_supervisor_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(device_memory.DIRECTORY_VARIABLE, raising=False)
    write_memory(READY)
    monkeypatch.setenv(device_memory.DIRECTORY_VARIABLE, str(tmp_path / "gone"))
    write_memory(READY)
    assert not list(tmp_path.iterdir())
