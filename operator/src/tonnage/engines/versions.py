"""From an engine version to its rules."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from tonnage.engines.cpu import CPU_RULES
from tonnage.engines.rules import EngineRules

_RULES: Final = {"CPU": CPU_RULES}
_VERSION: Final = re.compile(
    r"v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?:[.+-]?[0-9A-Za-z.+-]{0,40})?", re.ASCII
)


class UnknownEngineVersionError(ValueError):
    """No rules are known for the engine version or hardware; the message says which are."""


def rules_for(version: str, *, accelerator: str = "CPU") -> EngineRules:
    """The rules of an engine version on CPU nodes (`accelerator` "CPU").

    A patch release follows its minor release; a newer unknown version takes the newest known rules and is
    marked `assumed`. Raises `UnknownEngineVersionError` for an older unknown version, an unreadable one,
    or other hardware.
    """
    known = _RULES.get(accelerator)
    if known is None:
        raise UnknownEngineVersionError(
            f"no engine rules for accelerator {accelerator!r}; known: {', '.join(sorted(_RULES))}"
        )
    wanted = _release(version)
    if wanted is None:
        raise UnknownEngineVersionError(f"engine version {version[:60]!r} is not of the form 0.32.0")
    newest = known[-1]
    for rules in reversed(known):
        if _minor(rules) == wanted[:2]:
            return replace(rules, version=version)
    if wanted[:2] > _minor(newest):
        return replace(newest, version=version, assumed=True)
    oldest = known[0]
    raise UnknownEngineVersionError(
        f"engine version {version} is older than {oldest.rules_version}, the oldest whose memory rules on "
        f"{accelerator} are known; use engine.version {newest.rules_version}"
    )


def _release(version: str) -> tuple[int, int] | None:
    match = _VERSION.fullmatch(version.strip())
    return None if match is None else (int(match[1]), int(match[2]))


def _minor(rules: EngineRules) -> tuple[int, int]:
    release = _release(rules.rules_version)
    assert release is not None  # noqa: S101 - our own table
    return release
