"""From an engine version to its rules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypeVar

from tonnage.engines.cpu import CPU_RULES
from tonnage.engines.gpu import GPU_RULES, GpuRules
from tonnage.engines.rules import EngineRules

_VERSION: Final = re.compile(
    r"v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?:[.+-]?[0-9A-Za-z.+-]{0,40})?", re.ASCII
)
Rules = TypeVar("Rules", EngineRules, GpuRules)


class UnknownEngineVersionError(ValueError):
    """No rules are known for the engine version or hardware; the message says which are."""


def rules_for(version: str, *, accelerator: str = "CPU") -> EngineRules:
    """The rules of an engine version on CPU nodes (`accelerator` "CPU").

    A patch release follows its minor release; a newer unknown version takes the newest known rules and is
    marked `assumed`. Raises `UnknownEngineVersionError` for an older unknown version, an unreadable one,
    or other hardware.
    """
    if accelerator != "CPU":
        raise UnknownEngineVersionError(f"no engine rules for accelerator {accelerator!r}; known: CPU")
    return _pick(CPU_RULES, version, hardware="CPU")


def gpu_rules_for(version: str) -> GpuRules:
    """The rules of an engine version on NVIDIA GPUs; versions and errors as in `rules_for`.

    A version between two known ones takes the older rules: what changed in between is not known.
    """
    return _pick(GPU_RULES, version, hardware="NVIDIA GPUs")


def _pick(known: Sequence[Rules], version: str, *, hardware: str) -> Rules:
    wanted = release_of(version)
    if wanted is None:
        raise UnknownEngineVersionError(f"engine version {version[:60]!r} is not of the form 0.32.0")
    for rules in reversed(known):
        if _minor(rules) == wanted:
            return replace(rules, version=version)
        if _minor(rules) < wanted:
            return replace(rules, version=version, assumed=True)
    oldest, newest = known[0], known[-1]
    raise UnknownEngineVersionError(
        f"engine version {version} is older than {oldest.rules_version}, the oldest whose memory rules on "
        f"{hardware} are known; use engine.version {newest.rules_version}"
    )


def release_of(version: str) -> tuple[int, int] | None:
    """(major, minor) of a version such as "0.32.0" or "0.20.1rc1", None where it is not of that form."""
    match = _VERSION.fullmatch(version.strip())
    return None if match is None else (int(match[1]), int(match[2]))


def _minor(rules: EngineRules | GpuRules) -> tuple[int, int]:
    release = release_of(rules.rules_version)
    assert release is not None  # noqa: S101 - our own table
    return release
