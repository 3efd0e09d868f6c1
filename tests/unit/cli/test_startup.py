"""`tonnage fit` starts fast: what it imports, and how long it takes beside an empty program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unit.cli.samples import model_directory, safetensors

HEAVY = (
    "pydantic",
    "kubernetes",
    "kopf",
    "aiohttp",
    "huggingface_hub",
    "asyncio",
    "yaml",
    "email",
    "http",
    "urllib",
    "socket",
    "ssl",
    "pathlib",
    "subprocess",
)
FIT = "from tonnage.cli.main import main; main()"
TIMES = 20


def _environment(tmp_path: Path) -> dict[str, str]:
    """As after an installation, which compiles modules once."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return environment | {"PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}


@pytest.mark.parametrize("form", [("--kv-bytes", "1GiB", "-o", "json"), ("--gpu", "H100"), ()])
@pytest.mark.parametrize("named", ["catalogue", "directory"])
def test_nothing_heavy_is_imported(tmp_path: Path, form: tuple[str, ...], named: str) -> None:
    path = model_directory(tmp_path / "model")
    (path / "model.safetensors").write_bytes(safetensors(elements=1))
    model = "Qwen/Qwen3-32B" if named == "catalogue" else str(path)
    program = (
        f"import sys\nsys.argv = {['tonnage', 'fit', model, *form]!r}\n"
        f"try:\n    {FIT}\nexcept SystemExit:\n    print(*sorted(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "tonnage" in loaded
    assert loaded & set(HEAVY) == set()


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    """Processor time: what else runs on the machine does not count."""
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    child = os.posix_spawn(command[0], command, environment, file_actions=silent)
    _, status, usage = os.wait4(child, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime


def test_answer_within_ten_empty_programs(tmp_path: Path) -> None:
    environment = _environment(tmp_path)
    nothing = [sys.executable, "-c", "pass"]
    answer = [sys.executable, "-c", FIT, "fit", "Qwen/Qwen3-32B", "--kv-bytes", "40GiB", "-o", "json"]
    _seconds(answer, environment)
    pairs = [(_seconds(nothing, environment), _seconds(answer, environment)) for _ in range(TIMES)]
    empty, full = (min(times) for times in zip(*pairs, strict=True))
    assert full < 10 * empty, f"{full * 1000:.1f} ms, an empty program takes {empty * 1000:.1f} ms"
