"""Parts of the engine process that need no process: the pump, the count of kills."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tonnage_worker.exits import explain
from tonnage_worker.process import Tail, _pump, oom_kills


def pumped(written: bytes, masked: tuple[bytes, ...] = ()) -> tuple[bytes, list[str]]:
    source, feed = os.pipe()
    drain, sink = os.pipe()
    os.write(feed, written)
    os.close(feed)
    tail = Tail()
    _pump(source, sink, tail, masked)
    os.close(sink)
    passed = b""
    while chunk := os.read(drain, 1 << 16):
        passed += chunk
    os.close(source)
    os.close(drain)
    return passed, tail.lines()


@pytest.mark.parametrize(
    ("written", "passed", "tail"),
    [
        (b"", b"", []),
        (b"one\ntwo\n", b"one\ntwo\n", ["one", "two"]),
        (b"one\nlast without end", b"one\nlast without end\n", ["one", "last without end"]),
        (b"windows\r\n", b"windows\r\n", ["windows"]),
        (b"caf\xc3\xa9 \xff\n", b"caf\xc3\xa9 \xff\n", ["caf\u00e9 \ufffd"]),
        (b'INFO: 127.0.0.2:4711 - "GET /health HTTP/1.1" 200 OK\nx\n', b"x\n", ["x"]),
        (
            b'INFO: 10.0.0.2:4711 - "GET /health HTTP/1.1" 200 OK\n',
            b'INFO: 10.0.0.2:4711 - "GET /health HTTP/1.1" 200 OK\n',
            ['INFO: 10.0.0.2:4711 - "GET /health HTTP/1.1" 200 OK'],
        ),
    ],
)
def test_lines_pass_through_and_the_tail_is_kept(written: bytes, passed: bytes, tail: list[str]) -> None:
    assert pumped(written) == (passed, tail)


def test_secrets_of_the_environment_are_masked_on_the_way() -> None:
    written = b"GET x?token=longsecret\nsecret longsecret\nplain\n"
    shown = b"GET x?token=[redacted]\n[redacted] [redacted]\nplain\n"
    assert pumped(written, (b"longsecret", b"secret")) == (shown, shown.decode().splitlines())


def test_a_log_that_nobody_reads_does_not_stop_the_pump() -> None:
    source, feed = os.pipe()
    drain, sink = os.pipe()
    os.close(drain)
    os.write(feed, b"lost\nkept\n")
    os.close(feed)
    tail = Tail()
    _pump(source, sink, tail)
    os.close(source)
    os.close(sink)
    assert tail.lines() == ["lost", "kept"]


OUT_OF_MEMORY = (
    "(EngineCore pid=7) ERROR torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 384.00 MiB."
)


@pytest.mark.parametrize(("later", "reason"), [(1.0, "OutOfMemory"), (61.0, "EngineExited")])
def test_why_it_ended_is_not_lost_among_the_requests_that_are(later: float, reason: str) -> None:
    now = 0.0
    tail = Tail(clock=lambda: now)
    tail.extend(["before", OUT_OF_MEMORY])
    now = later
    tail.extend('INFO: 10.0.0.9:1 - "POST /v1/completions HTTP/1.1" 500' for _ in range(2000))
    assert len(tail.lines()) <= 401
    assert explain(returncode=1, tail=tail.lines()).reason == reason


@pytest.mark.parametrize(
    ("content", "kills"),
    [
        ("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", 1),
        ("garbage", 0),
        ("", 0),
    ],
)
def test_kills_for_memory(tmp_path: Path, content: str, kills: int) -> None:
    path = tmp_path / "memory.events"
    path.write_text(content)
    assert oom_kills([str(path)]) == kills


def test_no_cgroup_file(tmp_path: Path) -> None:
    assert oom_kills([str(tmp_path / "none")]) == 0
