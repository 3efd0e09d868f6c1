"""The examples of docs/cli.md and of the help texts: commands that exist, answers that are given."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness.paths import REPOSITORY
from tonnage.cli.main import COMMANDS, build_parser, parse

PROGRAM = [sys.executable, "-m", "tonnage.cli.main"]


def sessions() -> list[tuple[str, str]]:
    """(command, answer) of every console block."""
    blocks = re.findall(r"```console\n(.*?)```", (REPOSITORY / "docs" / "cli.md").read_text(), re.DOTALL)
    found = []
    for block in blocks:
        for piece in block.split("$ ")[1:]:
            command, _, answer = piece.partition("\n")
            found.append((command, answer))
    return found


def examples() -> list[str]:
    """Every command line that a help text or a page shows."""
    helps = [build_parser(wanted=name) for name in COMMANDS]
    texts = [helps[0].format_help(), *(part.epilog % {"prog": part.prog} for part in map(_part, COMMANDS))]
    pages = [(REPOSITORY / name).read_text() for name in ("docs/cli.md", "README.md", "docs/fit.md")]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("  tonnage ")]
    lines += [
        found for page in pages for found in re.findall(r"^(?:\$ )?(tonnage [^\n]*)", page, re.MULTILINE)
    ]
    lines += [found for page in pages for found in re.findall(r"`(tonnage [a-z]+ [^`]*)`", page)]
    return sorted({re.split(r" {2,}| *[|<>#)]", line.strip())[0] for line in lines})


def _part(name: str) -> object:
    return parse([name, *{"plan": ["-f", "x"], "completion": ["bash"]}.get(name, [])]).parser


def test_there_are_sessions_and_examples() -> None:
    assert len(sessions()) >= 2
    assert len(examples()) >= 15
    assert {line.split()[1] for line in examples()} >= {"fit", "plan", "explain", "crd", "completion"}


@pytest.mark.parametrize(("command", "answer"), sessions())
def test_sessions_are_as_printed(command: str, answer: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f'tonnage() {{ "{sys.executable}" -m tonnage.cli.main "$@"; }}; {command}'],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == answer


@pytest.mark.parametrize("line", examples())
def test_examples_are_commands_that_exist(line: str) -> None:
    words = shlex.split(line)[1:]
    if words[-1] in {"NAME", "FILE", "MODEL", "SHELL"}:
        words[-1] = "bash"
    assert parse(words).command == words[0]
