"""All commands: their help, the names they are called by, and words that were probably meant."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.paths import REPOSITORY
from tonnage.api.crd import build_crd
from tonnage.cli.main import COMMANDS, build_parser
from tonnage.cli.parser import meant, program
from unit.cli.samples import Run


def test_help_lists_the_commands_with_examples(tonnage: Run) -> None:
    code, output, _ = tonnage("--help")
    assert code == 0
    for name, command in COMMANDS.items():
        assert f"    {name}" in output
        assert command.help in output
    assert "examples:\n  tonnage fit" in output


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_has_examples(tonnage: Run, name: str) -> None:
    code, output, _ = tonnage(name, "--help")
    assert code == 0
    assert output.startswith(f"usage: tonnage {name} ")
    assert "examples:\n" in output
    assert f"tonnage {name}" in output.partition("examples:")[2]


@pytest.mark.parametrize("name", ["fit", "plan", "explain"])
def test_help_tells_the_exit_codes(tonnage: Run, name: str) -> None:
    assert "exit codes" in tonnage(name, "--help")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plann",), "did you mean plan?"),
        (("explian", "chat"), "did you mean explain?"),
        (("xyz",), "known: fit, plan, explain, crd, completion"),
        (("fit", "Qwen/Qwen3-8B", "--contxt=1", "--kv-dtype", "fp8"), "did you mean --context?"),
        (("crd", "--outpt", "json"), "did you mean --output?"),
        ((), "COMMAND"),
        (("completion", "tcsh"), "invalid choice: 'tcsh'"),
    ],
)
def test_what_was_probably_meant_is_said(tonnage: Run, words: tuple[str, ...], said: str) -> None:
    code, output, complaint = tonnage(*words)
    assert (code, output) == (2, "")
    assert said in complaint
    assert "--help` tells all options, with examples" in complaint


def test_far_words_are_not_guessed() -> None:
    assert meant("xyz", COMMANDS) == ""


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("/usr/bin/tonnage", "tonnage"),
        ("/usr/bin/kubectl-tonnage", "kubectl tonnage"),
        ("kubectl-tonnage.exe", "kubectl tonnage"),
        ("/src/cli/main.py", "tonnage"),
    ],
)
def test_the_program_is_named_as_it_was_called(called: str, name: str) -> None:
    assert program(called) == name
    help_text = build_parser(prog=program(called), wanted="plan").format_help()
    assert help_text.startswith(f"usage: {name} ")
    assert f"  {name} plan -f chat.yaml" in help_text


def test_as_a_plugin_everything_is_named_as_kubectl_names_it(tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-tonnage"
    plugin.write_text(f"#!{sys.executable}\nfrom tonnage.cli.main import main\nmain()\n")
    plugin.chmod(0o755)

    def run(*words: str) -> tuple[str, str]:
        done = subprocess.run([plugin, *words], capture_output=True, text=True, check=False)
        return done.stdout, done.stderr

    assert "  kubectl tonnage Qwen" not in run("fit", "--help")[0]
    assert "  kubectl tonnage fit Qwen/Qwen3-32B" in run("fit", "--help")[0]
    assert run("fit", "no-such-model")[1].startswith("kubectl tonnage fit: ModelUnknown: ")
    assert run("plan", "-f", "/no/such")[1].startswith("kubectl tonnage plan: /no/such cannot be read")
    assert run("plna")[1].startswith("usage: kubectl tonnage ")


@pytest.mark.parametrize("form", [(), ("-o", "yaml"), ("-o", "json")])
def test_crd_is_the_one_of_the_repository(tonnage: Run, form: tuple[str, ...]) -> None:
    code, output, _ = tonnage("crd", *form)
    read = json.loads(output) if "json" in form else yaml.safe_load(output)
    assert (code, read) == (0, build_crd())
    if not form:
        assert output == (REPOSITORY / "crds" / "tonnage.dev_llmdeployments.yaml").read_text()


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    line = f'"{sys.executable}" -m tonnage.cli.main crd | head -1'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert (done.stdout[:11], done.stderr) == ("# Generated", "")
