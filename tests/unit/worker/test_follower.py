"""One node of a replica that spans several, as a process: it asks no engine and waits for its leader."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from tonnage_worker.options import parse_options
from unit.worker.worker_process import Worker, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAN = ("--plan", "/etc/tonnage/plan.json")
GROUP = ("--nnodes", "2", "--node-rank", "1", "--master-addr", "127.0.0.1", "--headless")


class Leader(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def leader() -> Iterator[int]:
    """Answers as the worker of a leader that drains, at this port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Leader)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def follower(directory: Path, *, leader_port: int, **options: Any) -> Worker:
    own = ("--follower", "--leader-port", str(leader_port))
    return Worker(directory, own_arguments=own, engine_arguments=GROUP, **options)


def test_as_the_operator_renders_it() -> None:
    arguments = (*PLAN, "--follower", "--", "--model", "m", "--master-addr", "chat-1a2b-0.chat-1a2b.ns")
    options = parse_options(arguments, environment={})
    assert options.engine_module == "vllm.entrypoints.cli.main"
    assert options.engine_arguments[:3] == ("serve", "--model", "m")
    assert "--middleware" not in options.engine_arguments
    assert options.leader == "http://chat-1a2b-0.chat-1a2b.ns:8081/live"
    six = parse_options((*PLAN, "--follower", "--", "--master-addr=fd00::1"), environment={})
    assert six.leader == "http://[fd00::1]:8081/live"


def test_a_follower_must_know_its_leader(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options((*PLAN, "--follower", "--", "--model", "m"), environment={})
    assert "--master-addr" in capsys.readouterr().err


def test_it_is_ready_while_its_engine_runs_whatever_that_answers(tmp_path: Path) -> None:
    with leader() as port, follower(tmp_path, leader_port=port, faults={"sick_after": 0}) as worker:
        worker.until_ready()
        assert worker.get("/live")[0] == 200
        report = worker.capacity()
    assert (report["state"], report["reason"], report["observed"]) == ("Starting", "Follower", None)


def test_told_to_stop_it_stays_until_its_leader_is_gone(tmp_path: Path) -> None:
    with ExitStack() as stack:
        port = stack.enter_context(leader())
        with follower(tmp_path, leader_port=port, drain__shutdownTimeoutSeconds=60) as worker:
            worker.until_ready()
            worker.process.send_signal(signal.SIGTERM)
            worker.until(lambda: worker.get("/ready")[0] == 503, "not ready")
            time.sleep(3)
            assert worker.process.poll() is None
            stack.close()
            assert worker.wait() == 0
            assert worker.last_words()["reason"] == "Drained"


def test_it_stays_no_longer_than_a_leader_may(tmp_path: Path) -> None:
    limits = {"drain__endpointSeconds": 1, "drain__shutdownTimeoutSeconds": 1}
    with leader() as port, follower(tmp_path, leader_port=port, **limits) as worker:
        worker.until_ready()
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == 0


def test_an_engine_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    limits = {"drain__endpointSeconds": 0, "drain__shutdownTimeoutSeconds": 0}
    faults = {"ignore_sigterm": True}
    with follower(tmp_path, leader_port=free_port(), faults=faults, **limits) as worker:
        worker.until(lambda: worker.get("/health", port=worker.engine_port)[0] == 200, "started")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == 137
        assert worker.last_words()["reason"] == "DrainTimeout"


def test_an_engine_that_fails_says_why(tmp_path: Path) -> None:
    words = ["ValueError: No available memory for the cache blocks."]
    with follower(tmp_path, leader_port=free_port(), faults={"print": words, "exit": 3}) as worker:
        assert worker.wait() == 3
        assert worker.last_words()["exitCode"] == 3
