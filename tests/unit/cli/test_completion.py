"""Completion: what may follow, and the scripts in real shells."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tonnage.cli.complete import FILES, NO_FILES, candidates
from tonnage.cli.completion import SCRIPTS
from unit.cli.samples import Run


def values(*words: str) -> list[str]:
    return [value for value, _ in candidates(words).values]


def test_commands_come_first() -> None:
    assert values("") == ["fit", "plan", "explain", "crd", "completion", "--help", "--version"]
    assert values("pl") == ["plan"]
    assert values("nonsense", "") == []
    assert values() == values("")


def test_options_that_are_not_written_yet() -> None:
    every = values("plan", "--")
    assert {"--filename", "--node", "--model", "--context", "--output", "--help"} <= set(every)
    rest = values("plan", "-o", "json", "--node", "a", "--")
    assert "--output" not in rest
    assert "--node" in rest  # may be repeated
    assert values("plan", "--kube") == ["--kubeconfig"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("plan", "-o", ""), ["text", "json", "yaml"]),
        (("plan", "--output", "j"), ["json"]),
        (("plan", "--output=y"), ["--output=yaml"]),
        (("crd", "-o", ""), ["yaml", "json"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("completion", "bash", ""), []),
        (
            ("fit", "qwen/qwen3-32"),
            ["Qwen/Qwen3-32B", "Qwen/Qwen3-32B-FP8", "Qwen/Qwen3-32B-FP8-Static-PerTensor"],
        ),
        (("fit", "--gpu", "h100-8"), ["H100-80GB"]),
        (("fit", "--gpu", "L4", "--gpu=H100-N"), ["--gpu=H100-NVL"]),
        (("fit", "a", "--kv-dtype", "aut"), ["auto"]),
        (("fit", "--context", ""), []),
        (("fit", "--tensor-parallel", ""), []),
    ],
)
def test_values(words: tuple[str, ...], expected: list[str]) -> None:
    assert values(*words) == expected


@pytest.mark.parametrize(
    ("words", "directive"),
    [
        (("plan", "-f", ""), FILES),
        (("plan", "--node", ""), FILES),
        (("plan", "--node="), FILES),
        (("plan", "--model", "./"), FILES),
        (("fit", "./"), FILES),
        (("explain", "--kubeconfig", ""), FILES),
        (("plan", "-o", ""), NO_FILES),
        (("crd", ""), NO_FILES),
        (("fit", "model", ""), NO_FILES),
        (("fit", "--gpu", ""), NO_FILES),
    ],
)
def test_files_follow_only_where_a_file_may_be_named(words: tuple[str, ...], directive: int) -> None:
    assert candidates(words).directive == directive


def test_contexts_come_from_the_kubeconfig_and_a_dead_cluster_names_nothing(
    tonnage: Run, tmp_path: Path
) -> None:
    file = tmp_path / "kubeconfig"
    cluster = "{name: c, cluster: {server: 'https://127.0.0.1:9'}}"
    contexts = "[{name: prod-a, context: {cluster: c}}, {name: prod-b, context: {cluster: c}}]"
    file.write_text(f"current-context: prod-a\nclusters: [{cluster}]\ncontexts: {contexts}\nusers: []\n")
    assert values("plan", "--kubeconfig", str(file), "--context", "pro") == ["prod-a", "prod-b"]
    assert values("explain", "--kubeconfig", str(file), "") == []
    assert values("explain", "--kubeconfig", "/no/such", "--context", "") == []
    assert tonnage("__complete", "explain", "") == (0, ":4\n", "")


def test_form_is_that_of_kubectls_plugins(tonnage: Run) -> None:
    assert tonnage("__complete", "completion", "b") == (0, "bash\n:4\n", "")
    code, output, _ = tonnage("__complete", "cr")
    assert (code, output) == (0, "crd\tprint the CustomResourceDefinition\n:4\n")


@pytest.fixture
def shell_path(tmp_path: Path) -> str:
    """A PATH with `tonnage` on it."""
    place = tmp_path / "bin"
    place.mkdir()
    program = place / "tonnage"
    program.write_text(f"#!{sys.executable}\nfrom tonnage.cli.main import main\nmain()\n")
    program.chmod(0o755)
    (tmp_path / "chat file.yaml").touch()
    (tmp_path / "only-here").mkdir()
    return f"{place}:{os.environ['PATH']}"


class Terminal:
    """An interactive shell on a pseudo-terminal."""

    def __init__(self, argv: list[str], *, path: str, place: Path, setup: str) -> None:
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(place)
            environment = {"PATH": path, "HOME": str(place), "TERM": "dumb", "PS1": "> ", "LC_ALL": "C.UTF-8"}
            os.execvpe(argv[0], argv, environment)
        # said in two pieces: the echo of what is typed is no answer
        self.type(f"{setup}; echo rea''dy\n", until="ready\r\n")

    def type(self, text: str, *, until: str, seconds: float = 60) -> str:
        """Type and read until the text appears; raises TimeoutError with what came instead."""
        os.write(self._fd, text.encode())
        end, seen = time.monotonic() + seconds, ""
        while until not in seen:
            if time.monotonic() > end or not select.select([self._fd], [], [], seconds)[0]:
                raise TimeoutError(f"{until!r} did not come; {seen!r} did")
            seen += os.read(self._fd, 65536).decode(errors="replace")
        return seen

    def close(self) -> None:
        """End the shell."""
        os.close(self._fd)
        os.waitpid(self._pid, 0)


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(tonnage completion bash)"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -U compinit; compinit -u -D; source <(tonnage completion zsh); PS1='> '",
    ),
}
TYPED = [
    ("tonnage pla\t", "tonnage plan "),
    ("tonnage explain --all-n\t", "tonnage explain --all-namespaces "),
    ("tonnage fit qwen/qwen3-30b-a3b-f\t", "Qwen/Qwen3-30B-A3B-FP8"),
    ("tonnage fit --gpu=H100-N\t", "--gpu=H100-NVL"),
    ("tonnage plan -o js\t", "tonnage plan -o json"),
    ("tonnage plan -f only-h\t", "only-here/"),
]


@pytest.mark.parametrize("name", SHELLS)
def test_keys_typed_in_a_real_shell(name: str, shell_path: str, tmp_path: Path) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    argv, setup = SHELLS[name]
    terminal = Terminal(argv, path=shell_path, place=tmp_path, setup=setup)
    try:
        for typed, wanted in TYPED:
            terminal.type(f"\x15{typed}", until=wanted)  # \x15 empties the line
    finally:
        terminal.close()


def test_bash_lists_what_is_possible_and_no_files_where_none_may_be(shell_path: str, tmp_path: Path) -> None:
    argv, setup = SHELLS["bash"]
    terminal = Terminal(argv, path=shell_path, place=tmp_path, setup=setup)
    try:
        seen = terminal.type("tonnage completion \t\t", until="zsh")
        assert "only-here" not in seen
    finally:
        terminal.close()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("tonnage pla", ["plan\ttell what the operator would make of an object"]),
        ("tonnage plan -o ", ["json", "text", "yaml"]),
        ("tonnage fit --gpu=H100-N", ["--gpu=H100-NVL\tNVIDIA H100 NVL"]),
        ("tonnage plan -f only-h", ["only-here/"]),
    ],
)
def test_fish_completes(line: str, wanted: list[str], shell_path: str, tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    script = tmp_path / "tonnage.fish"
    script.write_text(SCRIPTS["fish"])
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"],
        cwd=tmp_path,
        env={"PATH": shell_path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(done.stdout.splitlines()) == wanted


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_printed(tonnage: Run, name: str) -> None:
    assert tonnage("completion", name) == (0, SCRIPTS[name], "")
