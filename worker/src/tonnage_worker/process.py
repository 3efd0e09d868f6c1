"""The engine as a child process: own session, output passed through line by line without secrets, orphans
reaped.

As PID 1 (or as subreaper elsewhere) the worker inherits every process whose parent died; `reap` collects all
children with one waitpid loop, so nothing else in the worker may wait for children.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from .connections import WORKER_ADDRESS
from .redaction import MASK

_TAIL_LINES = 400
_ERROR_LINES = 200
_ERROR_SECONDS = 60.0
# What says why an engine ends. Under load hundreds of lines about requests that were lost may follow it.
_ERROR = re.compile(r"Error\b|Exception\b|out of memory|KV cache memory|error:")
_LINE_LIMIT_BYTES = 64 * 1024
_MASK = MASK.encode()
_PR_SET_CHILD_SUBREAPER = 36
# The engine's access log of the worker's own questions, one a second, would drown everything else.
_OWN_PROBE = re.compile(
    rb"\b%s:\d+ - \"GET /(?:health|metrics|version) " % re.escape(WORKER_ADDRESS.encode())
)


def become_subreaper() -> None:
    """Adopt orphaned descendants even when not PID 1 (a pod with a shared process namespace, a test)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Tail:
    """The last lines of the output, and before them those of the last minute that tell of errors."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines: deque[tuple[float, str]] = deque(maxlen=_TAIL_LINES)
        self._errors: deque[tuple[float, str]] = deque(maxlen=_ERROR_LINES)
        self._clock = clock
        self._lock = threading.Lock()

    def extend(self, lines: Iterable[str]) -> None:
        """Add lines, the newest last."""
        now = self._clock()
        with self._lock:
            for line in lines:
                if len(self._lines) == _TAIL_LINES and _ERROR.search(self._lines[0][1]):
                    self._errors.append(self._lines[0])
                self._lines.append((now, line))

    def lines(self) -> list[str]:
        """All that is kept, oldest first; an older error that is no longer among the last lines is not why
        the engine ended."""
        with self._lock:
            newest = self._lines[-1][0] if self._lines else 0.0
            errors = [line for written, line in self._errors if newest - written <= _ERROR_SECONDS]
            return [*errors, *(line for _, line in self._lines)]


class EngineProcess:
    """One run of the engine. `ended` resolves to its return code (negative: signal)."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        *,
        secrets: Iterable[str],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._process = process
        self.ended: asyncio.Future[int] = loop.create_future()
        self._tail = Tail()
        masked = tuple(sorted((secret.encode() for secret in secrets), key=len, reverse=True))
        self._pumps = [
            threading.Thread(target=_pump, args=(source.fileno(), sink, self._tail, masked), daemon=True)
            for source, sink in ((process.stdout, 1), (process.stderr, 2))
            if source is not None
        ]
        for pump in self._pumps:
            pump.start()

    @property
    def pid(self) -> int:
        """Process id; also the id of the engine's session and process group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the engine's main process is still there."""
        return not self.ended.done()

    def terminate(self) -> None:
        """SIGTERM to the main process only: it stops its own children in order."""
        self._signal(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the whole process group."""
        self._signal(-self.pid, signal.SIGKILL)

    def _signal(self, target: int, number: signal.Signals) -> None:
        # The id of a reaped main process still names its group while a member lives, and nothing else.
        if target < 0 or self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, number)

    def tail(self, *, wait_seconds: float = 0.0) -> list[str]:
        """The last lines written, and errors before them; waits so long for the rest of the output of an
        engine that has ended."""
        for pump in self._pumps:
            pump.join(wait_seconds)
        return self._tail.lines()

    def reap(self) -> int:
        """Collect every child that has ended, the engine among them; returns how many others there were."""
        orphans = 0
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return orphans
            if pid == 0:
                return orphans
            if pid == self.pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                self.ended.set_result(self._process.returncode)
            else:
                orphans += 1


def start_engine(
    module: str,
    *,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    secrets: Iterable[str],
    loop: asyncio.AbstractEventLoop,
) -> EngineProcess:
    """Start `python -P -m MODULE ARGUMENTS` in a session of its own; raises OSError.

    `secrets` are masked in what it writes.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        start_new_session=True,
    )
    return EngineProcess(process, secrets=secrets, loop=loop)


def _pump(source: int, sink: int, tail: Tail, masked: Sequence[bytes] = ()) -> None:
    """Copy whole lines until the end; runs in a thread, so that a slow log blocks no probe."""
    rest = b""
    while chunk := os.read(source, _LINE_LIMIT_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE_LIMIT_BYTES:
            lines, rest = [*lines, rest], b""
        _emit(lines, sink=sink, tail=tail, masked=masked)
    if rest:
        _emit([rest], sink=sink, tail=tail, masked=masked)


def _emit(lines: Sequence[bytes], *, sink: int, tail: Tail, masked: Sequence[bytes]) -> None:
    lines = [line for line in lines if not _OWN_PROBE.search(line)]
    for secret in masked:
        lines = [line.replace(secret, _MASK) for line in lines]
    tail.extend(line.decode(errors="replace").rstrip("\r") for line in lines)
    view = memoryview(b"".join(line + b"\n" for line in lines))
    while view:
        try:
            view = view[os.write(sink, view) :]
        except OSError:  # nobody reads the log any more: the engine must not block on it
            return


_OOM_COUNTS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")  # cgroup v2, v1


def oom_kills(paths: Sequence[str] = _OOM_COUNTS) -> int:
    """How many processes of this container the kernel has killed for memory; 0 where it does not tell."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError, KeyError), open(path, encoding="ascii") as events:
            return int(dict(line.split() for line in events)["oom_kill"])
    return 0
