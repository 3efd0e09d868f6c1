"""Why did the engine end? From its exit status and the last lines of its log to a reason for programs. Pure.

The patterns follow the messages of vLLM 0.32 (file named at each) and the forms that start-up logs of
0.6-0.29 show. The first rule that matches decides; the newest matching line gives the message.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from .figures import NO_KV_MEMORY, NOT_FREE, OUT_OF_MEMORY, Patterns, find_figures

MESSAGE_LIMIT_BYTES = 4096  # the kubelet cuts longer termination messages
_LINE_LIMIT_CHARACTERS = 1200
_LOG_PREFIX = re.compile(
    r"^(?:\([^()]*\)\s*)*"  # (EngineCore pid=57)
    r"(?:(?:INFO|WARNING|ERROR|CRITICAL|DEBUG)\s+(?:\d\d-\d\d \d\d:\d\d:\d\d)?\s*(?:\[[^\]]*\])?\s*)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How the worker ends: `reason` and `figures` (bytes and tokens, see `figures`) for programs, `message`
    for people, the exit code."""

    reason: str
    message: str
    exit_code: int
    figures: Mapping[str, int] = field(default_factory=dict)


def explain(*, returncode: int, tail: Sequence[str], oom_kills: int = 0, was_healthy: bool = False) -> Exit:
    """Explain an engine that ended by itself.

    `returncode` is negative for a signal (as in subprocess), `tail` the last lines of its output, oldest
    first, `oom_kills` how often the kernel killed for memory in this container since the start.
    The worker's exit code is never 0: an engine has no reason to end by itself.
    """
    lines = [_strip(line) for line in tail]
    code = _exit_code(returncode)
    if oom_kills > 0:
        message = (
            f"the kernel killed {oom_kills} process(es) of this container for memory "
            f"(limit of the container reached); the engine ended with {_status(returncode)}"
        )
        return Exit(reason="OutOfMemory", message=message, exit_code=code)
    found = _match(lines)
    if found is not None:
        reason, message = found
        figures = find_figures(lines, _FIGURES.get(reason, ()))
        return Exit(reason=reason, message=message, exit_code=code, figures=figures)
    if returncode == -signal.SIGKILL:
        message = "the engine was killed (SIGKILL) and the container's memory limit was not reached"
        return Exit(reason="EngineKilled", message=message, exit_code=code)
    phase = "while serving" if was_healthy else "before it was healthy"
    message = f"the engine ended {phase} with {_status(returncode)}: {_last_error(lines)}"
    return Exit(reason="EngineExited", message=message, exit_code=code)


def render(exit_: Exit) -> str:
    """The termination message: one line of JSON of at most 4096 bytes; a longer message loses its end."""
    message = " ".join(exit_.message.split())
    figures = {"figures": dict(exit_.figures)} if exit_.figures else {}
    while True:
        text = json.dumps(
            {"reason": exit_.reason, "message": message, "exitCode": exit_.exit_code, **figures},
            ensure_ascii=False,
        )
        excess = len(text.encode(errors="replace")) - MESSAGE_LIMIT_BYTES
        if excess <= 0:
            return text
        message = message[: max(0, len(message) - max(1, excess // 4) - 1)] + "…"


def _exit_code(returncode: int) -> int:
    """The shell's convention for signals; 1 for an engine that ended by itself with 0."""
    if returncode < 0:
        return 128 - returncode
    return returncode or 1


def _status(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"


def _strip(line: str) -> str:
    return _LOG_PREFIX.sub("", line).strip()


def _last_error(lines: Sequence[str]) -> str:
    """The newest line that looks like an error, else the newest line with text."""
    errors = [
        line
        for line in lines
        if re.match(r"(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt)\b|error:|fatal", line, re.I)
    ]
    # The last exception of a multi-process engine only says that another process failed.
    specific = [line for line in errors if not _SECONDARY.search(line)]
    for candidates in (specific, errors, [line for line in lines if line]):
        if candidates:
            return _cut(candidates[-1])
    return "it wrote nothing"


_SECONDARY = re.compile(
    r"Engine core initialization failed|Engine process failed|See root cause|EngineDeadError"
)


def _cut(text: str) -> str:
    return text if len(text) <= _LINE_LIMIT_CHARACTERS else text[:_LINE_LIMIT_CHARACTERS] + "…"


def _match(lines: Sequence[str]) -> tuple[str, str] | None:
    for reason, pattern, describe in _RULES:
        for line in reversed(lines):
            found = pattern.search(line)
            if found is not None:
                return reason, describe(found, line)
    return None


def _request_too_long(found: re.Match[str], _: str) -> str:
    text = (
        f"KV memory is too small for one request of {found['length']} tokens: "
        f"it needs {found['needed']} GiB, available are {found['available']} GiB"
    )
    if found["estimate"]:
        text += f"; the estimated maximum length is {found['estimate']} tokens"
    return text


def _too_few_tokens(found: re.Match[str], _: str) -> str:
    return (
        f"KV memory is too small for one request of {found['length']} tokens: "
        f"the estimated maximum length is {found['tokens']} tokens"
    )


def _from_match(found: re.Match[str], line: str) -> str:
    return _cut(_ROOT_CAUSE.sub("", line[found.start() :]))


def _from_exception(_: re.Match[str], line: str) -> str:
    return _cut(line.removeprefix("Value error, "))


_ROOT_CAUSE = re.compile(r"['\"]?, please check the stack trace above for the root cause$")


_FIGURES: Final[Mapping[str, Patterns]] = {
    "NoKvMemory": NO_KV_MEMORY,
    "InsufficientMemory": NOT_FREE,
    "OutOfMemory": OUT_OF_MEMORY,
}


_RULES: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str], str], str]], ...] = (
    (  # v1/core/kv_cache_utils.py _check_enough_kv_cache_memory; older versions write "models's"
        "NoKvMemory",
        re.compile(
            r"To serve at least one request with the model(?:'s|s's|s') max seq len \((?P<length>\d+)\)"
            r",? \(?(?P<needed>[\d.]+) GiB KV cache is needed,? which is larger than"
            r" the available KV cache memory \((?P<available>-?[\d.]+) GiB\)\.?"
            r"(?:.*?estimated maximum model length is (?P<estimate>\d+))?"
        ),
        _request_too_long,
    ),
    (  # the V0 engine
        "NoKvMemory",
        re.compile(
            r"model's max seq len \((?P<length>\d+)\) is larger than the maximum number of tokens"
            r" that can be stored in KV cache \((?P<tokens>\d+)\)"
        ),
        _too_few_tokens,
    ),
    ("NoKvMemory", re.compile(r"No available memory for the cache blocks"), _from_match),
    ("InsufficientMemory", re.compile(r"(?<=PreflightError: )\S.*"), _from_match),
    (  # v1/worker/cpu_worker.py, v1/worker/utils.py: free memory is checked at start
        "InsufficientMemory",
        re.compile(r"(?:Available|Free) memory on .*is less than (?:desired|requested)"),
        _from_match,
    ),
    (
        "OutOfMemory",
        re.compile(
            r"OutOfMemoryError|(?:CUDA|HIP) (?:(?:driver )?error: )?out of memory"
            r"|DefaultCPUAllocator: can't allocate"
            r"|\bMemoryError\b|Cannot allocate memory"
        ),
        _from_exception,
    ),
    (  # model_executor/models/registry.py, which goes on with a list of some hundred names
        "UnknownArchitecture",
        re.compile(r"Model architectures? .*? (?:are|is) not supported[^.]*"),
        lambda found, _: found[0],
    ),
    (  # transformers' AutoConfig
        "UnknownArchitecture",
        re.compile(r"does not recognize this architecture|has no vLLM implementation"),
        _from_exception,
    ),
    (  # config/model.py _get_and_verify_max_len
        "ContextTooLong",
        re.compile(r"User-specified max_model_len \(\d+\) is greater than the derived max_model_len"),
        _from_match,
    ),
    (
        "ModelUnreadable",
        re.compile(
            r"config file at .* is not a valid JSON file|HeaderTooLarge|Error while deserializing header"
        ),
        _from_exception,
    ),
    (  # transformers utils/hub.py, huggingface_hub errors.py: a hub model that cannot be downloaded
        "HubUnreachable",
        re.compile(r"We couldn't connect to '[^']*' to load the files|LocalEntryNotFoundError: Got: .*"),
        _from_match,
    ),
    ("NoDiskSpace", re.compile(r"\[Errno 28\].*|No space left on device.*"), _from_match),
    (  # huggingface_hub takes a directory that does not exist for the name of a repository
        "ModelNotFound",
        re.compile(r"Repo id must be in the form .*: '(?P<path>/[^']*)'"),
        lambda found, _: f"there is no model at {found['path']}",
    ),
    (  # transformers_utils/config.py
        "ModelNotFound",
        re.compile(
            r"Invalid repository ID or local directory specified|is not a local folder|Repo id must be"
            r"|Cannot find any model weights|no config file found|RepositoryNotFoundError|GatedRepoError"
        ),
        _from_exception,
    ),
    (
        "InvalidArguments",
        re.compile(r"error: (?:unrecognized arguments|argument|the following arguments|ambiguous option).*"),
        _from_match,
    ),
    ("PortInUse", re.compile(r"\[Errno 98\].*|[Aa]ddress already in use.*"), _from_match),
)
