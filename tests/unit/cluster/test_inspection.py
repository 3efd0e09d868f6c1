"""The inspection as it runs in its pod: a process of another user, whose result is one line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.paths import REPOSITORY
from tonnage.models.wire import decode_wire
from unit.models.samples import smollm2_config

USER = 65532


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory with a model of one tensor, which every user can read."""
    for directory in (tmp_path, *list(tmp_path.parents)[:2]):
        directory.chmod(0o755)
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(smollm2_config()))
    (directory / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return directory


def inspect(path: Path) -> dict[str, Any]:
    # Debian's interpreter, since another user may not be let into the one of these tests
    python, user = (
        ("/usr/bin/python3", {"user": USER, "group": USER}) if os.geteuid() == 0 else (sys.executable, {})
    )
    done = subprocess.run(
        [python, "-P", "-m", "tonnage.cluster.inspection", "--path", str(path)],
        env={"PYTHONPATH": str(REPOSITORY / "operator/src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
        **user,  # type: ignore[call-overload]
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_readable_model_is_described(model: Path) -> None:
    found = decode_wire(inspect(model)["model"])
    assert found.shape.architecture == "LlamaForCausalLM"
    assert found.weights.bytes_by_dtype == (("BF16", 4),)


@pytest.mark.parametrize(
    ("locked", "reason"),
    [
        ("", "ConfigUnreadable"),
        ("config.json", "ConfigUnreadable"),
        ("model.safetensors", "WeightsUnreadable"),
    ],
)
def test_what_the_user_of_the_pod_cannot_read_is_said(model: Path, locked: str, reason: str) -> None:
    (model / locked).chmod(0)
    try:
        error = inspect(model)["error"]
    finally:
        (model / locked).chmod(0o755)
    assert error["reason"] == reason
    assert "readable for every user" in error["message"]


def test_a_directory_in_the_way_that_cannot_be_entered_is_said(model: Path) -> None:
    (model.parent).chmod(0o700)
    try:
        error = inspect(model)["error"]
    finally:
        (model.parent).chmod(0o755)
    assert error["reason"] == "ModelUnreadable"
