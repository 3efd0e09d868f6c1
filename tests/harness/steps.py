"""Visible progress, and failures that name their step and log."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.paths import CACHE

_STARTED = time.monotonic()
_LOGS = CACHE / "logs"
_HEARTBEAT_SECONDS = 20.0


class StepError(RuntimeError):
    """A step of the harness failed; the text names the step and the log to read."""


def say(text: str) -> None:
    """Print one line of progress with the seconds since this process began."""
    print(f"[{time.monotonic() - _STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step, and its duration when it is over."""
    say(f"{title} ...")
    begun = time.monotonic()
    try:
        yield
    except (StepError, TimeoutError):
        raise
    except subprocess.CalledProcessError as error:
        raise StepError(f"step '{title}' failed: {error}\n{error.stderr or error.output or ''}") from error
    except Exception as error:
        raise StepError(f"step '{title}' failed: {type(error).__name__}: {error}") from error
    say(f"{title}: done in {time.monotonic() - begun:.1f} s")


def run(title: str, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> str:
    """Run a command with its output in a log file; returns what it printed on standard output.

    While it runs, its last line is shown every `_HEARTBEAT_SECONDS`.

    Raises:
        StepError: the command failed; carries the last lines of its log.
    """
    _LOGS.mkdir(parents=True, exist_ok=True)
    log = _LOGS / f"{title.replace(' ', '-').replace('/', '-')}.log"
    with log.open("w+") as errors:
        process = subprocess.Popen(
            [str(word) for word in argv],
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with process:
            output = _output_of(process, title=title, log=log)
        if process.returncode:
            errors.write(output)
            errors.flush()
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise StepError(f"step '{title}' failed with exit code {process.returncode}; log: {log}\n{tail}")
    return output


def _output_of(process: subprocess.Popen[str], *, title: str, log: Path) -> str:
    begun = time.monotonic()
    while True:
        try:
            return process.communicate(timeout=_HEARTBEAT_SECONDS)[0]
        except subprocess.TimeoutExpired:
            last = log.read_text(errors="replace").rstrip().rpartition("\n")[2][:120]
            say(f"{title}: {time.monotonic() - begun:.0f} s, goes on{f': {last}' if last else ''}")
        except BaseException:
            process.kill()
            raise
