"""The peers' own packages, each in a virtual environment made on demand and kept in the cache.

They run offline; only making an environment needs a package registry. Without one the bench goes on with the
re-expressed formulas.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.peers import hf_mem
from bench.peers.question import Question, UnansweredError
from harness.paths import CACHE, REPOSITORY, content_key

UV: Final = REPOSITORY / ".venv/bin/uv"
INSTALL_SECONDS: Final = 600
RUN_SECONDS: Final = 600

Answer = dict[str, Any]
"""Figures by name, or `reason` why there are none."""


class UnavailableError(RuntimeError):
    """A package could not be installed or run; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A published package: `alone` is installed without its dependencies, `requirements` with them."""

    name: str
    script: str
    requirements: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


HF_MEM = Package(name="hf-mem", script="run_hf_mem.py", requirements=("hf-mem==0.5.6",))
LLM_D_PLANNER = Package(
    name="llm-d-planner",
    script="run_llm_d_planner.py",
    requirements=("transformers==5.19.0",),
    alone=("llm-d-planner==0.3.3",),
)
AICONFIGURATOR = Package(
    name="aiconfigurator", script="run_aiconfigurator.py", requirements=("aiconfigurator-core==0.12.0",)
)


def ask(package: Package, questions: Sequence[Question]) -> list[Answer]:
    """The package's own answers. Raises `UnavailableError`."""
    python = _interpreter(package)
    cases = [_case(package, question) for question in questions]
    script = Path(__file__).with_name(package.script)
    asked = [case for case in cases if "reason" not in case]
    # -I: the folder of the script holds modules that are called like the packages.
    done = _run([str(python), "-I", str(script)], RUN_SECONDS, stdin=json.dumps(asked))
    answers = iter(json.loads(done.splitlines()[-1]))
    return [case if "reason" in case else next(answers) for case in cases]


def _case(package: Package, question: Question) -> dict[str, Any]:
    try:
        config = hf_mem.config_of(question) if package is HF_MEM else dict(question.config)
    except UnansweredError as error:
        return {"reason": str(error)}
    return {
        "model": question.model,
        "config": config,
        "hf_quant_config": question.hf_quant_config,
        "tp": question.tensor_parallel,
        "pp": question.pipeline_parallel,
        "ranks": question.ranks,
        "kv_dtype": question.kv_dtype,
        "context_tokens": question.context_tokens,
        "kv_bytes": question.kv_bytes,
    }


def _interpreter(package: Package) -> Path:
    home = CACHE / "bench-peers" / content_key(package.name, *package.requirements, *package.alone)
    python, ready = home / "bin/python", home / ".ready"
    if not ready.exists():
        try:
            _install(package, home, python)
        except UnavailableError as error:
            raise UnavailableError(f"could not be installed: {error}") from None
        ready.touch()
    return python


def _install(package: Package, home: Path, python: Path) -> None:
    _run([str(UV), "venv", "-q", "--clear", "--python", sys.executable, str(home)], INSTALL_SECONDS)
    install = [str(UV), "pip", "install", "-q", "--python", str(python)]
    if package.alone:
        _run([*install, "--no-deps", *package.alone], INSTALL_SECONDS)
    _run([*install, *package.requirements], INSTALL_SECONDS)


def _run(command: list[str], seconds: int, *, stdin: str = "") -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command, input=stdin, env=environment, capture_output=True, text=True, timeout=seconds, check=True
        )
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in error.stderr.splitlines() if line.strip()]
        raise UnavailableError(lines[-1] if lines else f"exit status {error.returncode}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(str(error)) from None
    return done.stdout
