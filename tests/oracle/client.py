"""Asks the engine's code: one warm process per platform, started when it is first needed."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections import OrderedDict
from types import TracebackType
from typing import Final, Self

from harness.engine.install import PYTHON
from harness.paths import CACHE
from harness.steps import say
from oracle import environment
from oracle.engine.case import Answer, Case, answer_from

CASE_SECONDS: Final = 240.0
_START_SECONDS: Final = 300.0
_PROCESSES: Final = 2
_LOG: Final = CACHE / "logs/oracle.log"


class OracleError(RuntimeError):
    """The process that answers could not be started or ended; the text names its log."""


class Oracle:
    """Answers of vLLM's own code; equal cases are asked once. At most two processes are kept, so cases are
    best asked platform by platform."""

    def __init__(self, *, case_seconds: float = CASE_SECONDS) -> None:
        self._case_seconds = case_seconds
        self._processes: OrderedDict[str, _Process] = OrderedDict()
        self._known: dict[str, Answer] = {}
        self.asked = 0
        """Cases that were put to the engine's code."""
        self.seconds = 0.0
        """How long it took over them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def check(self, case: Case) -> Answer:
        """The engine's answer. Raises `OracleError`."""
        text = case.text
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = self._process(case.platform).ask(text, self._case_seconds + 30)
            self.asked += 1
            self.seconds += found.seconds
        return found

    def close(self) -> None:
        """End all processes."""
        while self._processes:
            self._processes.popitem()[1].close()

    def _process(self, platform: str) -> _Process:
        process = self._processes.pop(platform, None)
        if process is None:
            while len(self._processes) >= _PROCESSES:
                self._processes.popitem(last=False)[1].close()
            process = _Process(platform, case_seconds=self._case_seconds)
        self._processes[platform] = process
        return process


class _Process:
    """The program of one platform. A line of what it prints is an answer."""

    def __init__(self, platform: str, *, case_seconds: float) -> None:
        _LOG.parent.mkdir(parents=True, exist_ok=True)
        self._platform = platform
        self._left = b""
        path = environment.python_path(platform)
        argv = [str(PYTHON), "-m", "oracle.engine.program", platform, str(case_seconds)]
        with _LOG.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                env={**_without_python(), "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        started = time.monotonic()
        first = self._line(_START_SECONDS)
        say(f"vLLM {first.settings['vllm']} on {platform} ready after {time.monotonic() - started:.0f} s")

    def ask(self, text: str, limit_seconds: float) -> Answer:
        """The answer to a case's line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._line(limit_seconds)

    def close(self) -> None:
        """End it: it ends with its standard input."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _line(self, limit_seconds: float) -> Answer:
        assert self._process.stdout is not None
        end = time.monotonic() + limit_seconds
        while b"\n" not in self._left:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise OracleError(f"vLLM on {self._platform} said nothing for {limit_seconds:.0f} s: {_LOG}")
            part = os.read(self._process.stdout.fileno(), 65536)
            if not part:
                raise self._ended()
            self._left += part
        line, _, self._left = self._left.partition(b"\n")
        return answer_from(line.decode())

    def _ended(self) -> OracleError:
        code = self._process.wait()
        tail = "\n".join(_LOG.read_text(errors="replace").splitlines()[-15:])
        return OracleError(f"vLLM on {self._platform} ended with exit code {code}; log: {_LOG}\n{tail}")


def _without_python() -> dict[str, str]:
    """Our environment without what would make another interpreter read our packages."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
