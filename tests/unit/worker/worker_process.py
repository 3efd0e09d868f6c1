"""A worker run as in its pod, as a process of its own, with the fake engine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unit.worker.test_plan import document

DEADLINE_SECONDS = 60.0
HERE = Path(__file__).parent


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Worker:
    """Starts one worker; a context manager that leaves no process behind.

    `faults` go to the fake engine, `changes` to the plan (see `document`), `before` is a Python statement
    that the same process runs first, `python` the interpreter of both worker and engine.
    """

    def __init__(
        self,
        directory: Path,
        *,
        faults: Mapping[str, Any] | None = None,
        plan: str | None = None,
        own_arguments: tuple[str, ...] = (),
        engine_arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        before: str = "",
        python: str = sys.executable,
        **changes: Any,
    ) -> None:
        self.port, self.engine_port = free_port(), free_port()
        self.termination_log = directory / "termination-log"
        self.log = directory / "log"
        plan_file = directory / "plan.json"
        drain = {"drain__endpointSeconds": 0.5, "drain__shutdownTimeoutSeconds": 5}
        plan_file.write_text(plan or json.dumps(document(**{**drain, **changes})))
        started_here = f"import os, sys; {before}; from tonnage_worker.serve import main; sys.exit(main())"
        self.command = [
            python,
            *(("-P", "-c", started_here) if before else ("-P", "-m", "tonnage_worker.serve")),
            *("--plan", str(plan_file), "--port", str(self.port)),
            *("--termination-log", str(self.termination_log)),
            *own_arguments,
            *("--", "--port", str(self.engine_port), *engine_arguments),
        ]
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "TMPDIR": str(directory),
            "TONNAGE_ENGINE_MODULE": "fake_engine",
            "TONNAGE_FOLLOWER_MODULE": "fake_engine",
            "FAKE_ENGINE": json.dumps(faults or {}),
            **(environment or {}),
        }

    def __enter__(self) -> Worker:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def get(self, path: str, *, port: int | None = None) -> tuple[int, str]:
        """Status and body; (0, error) if nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port or self.port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def capacity(self) -> dict[str, Any]:
        status, body = self.get("/capacity")
        return dict(json.loads(body)) if status == 200 else {}

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert self.process.poll() is None, f"ended before it was {what}\n{self.output()}"
            assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}\n{self.output()}"
            time.sleep(0.05)

    def until_ready(self) -> None:
        self.until(lambda: self.get("/ready")[0] == 200, "ready")

    def until_state(self, state: str) -> None:
        self.until(lambda: self.capacity().get("state") == state, f"state {state}")

    def wait(self) -> int:
        return self.process.wait(DEADLINE_SECONDS)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def last_words(self) -> dict[str, Any]:
        return dict(json.loads(self.termination_log.read_text()))
