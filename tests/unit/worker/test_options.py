"""The command line of the worker."""

from __future__ import annotations

import pytest

from tonnage_worker.options import MIDDLEWARE, Options, parse_options

PLAN = ("--plan", "/etc/tonnage/plan.json")


def test_as_the_operator_renders_it() -> None:
    options = parse_options((*PLAN, "--", "--model", "/models/m", "--port", "8000"), environment={})
    assert options == Options(
        plan_path="/etc/tonnage/plan.json",
        port=8081,
        termination_log="/dev/termination-log",
        engine_module="vllm.entrypoints.openai.api_server",
        engine_port=8000,
        engine_arguments=("--model", "/models/m", "--port", "8000", "--middleware", MIDDLEWARE),
    )


@pytest.mark.parametrize(
    ("arguments", "port"),
    [
        ((), 8000),
        (("--port", "9000"), 9000),
        (("--port=9001",), 9001),
        (("--port", "9000", "--port=9002"), 9002),
        (("--port",), 8000),
        (("--port", "eighty"), 8000),
        (("--served-model-name", "x", "--", "--port", "7"), 7),
    ],
)
def test_the_engines_port(arguments: tuple[str, ...], port: int) -> None:
    assert parse_options((*PLAN, "--", *arguments), environment={}).engine_port == port


def test_the_engine_module_comes_from_the_environment() -> None:
    environment = {"TONNAGE_ENGINE_MODULE": "fast"}
    assert parse_options((*PLAN, "--"), environment=environment).engine_module == "fast"


def test_engine_arguments_are_not_read_as_own() -> None:
    options = parse_options((*PLAN, "--", "--plan", "other", "--port", "1"), environment={})
    assert (options.plan_path, options.port) == ("/etc/tonnage/plan.json", 8081)


@pytest.mark.parametrize("arguments", [("--",), ("--model", "m"), (*PLAN, "stray"), (*PLAN, "--port", "x")])
def test_a_wrong_command_line_is_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refusal:
        parse_options(arguments, environment={})
    assert refusal.value.code == 2
    assert "error:" in capsys.readouterr().err
