"""Does the engine hold what the plan says? Pure: observed figures in, a verdict out.

What is compared, per engine (with data parallelism a server reports several, each must hold the plan):

| verification | verified when |
|---|---|
| Strict | every figure is reported and equals the plan |
| AtLeast | tokens, concurrency and KV slots (blocks x block size) reach the plan, same dtype |
| Report | always; differences are only told |

AtLeast compares slots and not blocks because a block size other than planned changes the unit of `blocks`;
with the planned block size the two comparisons are the same. A larger or smaller block is fine as long as
nothing is lost.
Concurrency is compared to a relative 1e-9: it is a quotient of whole numbers, so another capacity differs by
far more, and another order of the same divisions by less.
Where an engine reports no tokens or no concurrency, AtLeast lets the rest decide and says what was left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .plan import Capacity, Verification

_SAME = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Outcome of a comparison: `ok` decides readiness, `message` gives both figures of each difference."""

    ok: bool
    equal: bool
    message: str


def compare(expected: Capacity, *, observed: Mapping[str, Capacity], verification: Verification) -> Verdict:
    """Compare the plan with every engine (`observed`: the engine's index -> its figures)."""
    if not observed:
        return Verdict(
            ok=verification is Verification.REPORT,
            equal=False,
            message="the engine reports no capacity: no vllm:cache_config_info on its metrics page "
            "(--disable-log-stats hides it)",
        )
    differences: list[str] = []
    failures: list[str] = []
    for engine, figures in sorted(observed.items()):
        name = "engine" if len(observed) == 1 else f"engine {engine}"
        differences += (f"{name} {text}" for text in _differences(expected, observed=figures))
        failures += (f"{name} {text}" for text in _shortfalls(expected, observed=figures))
    blocking = {Verification.STRICT: differences, Verification.AT_LEAST: failures, Verification.REPORT: []}
    message = "; ".join(differences) or _agreement(expected, engines=len(observed))
    if verification is Verification.AT_LEAST and (unknown := _not_reported(list(observed.values()))):
        message += f"; not reported by this engine version and not compared: {', '.join(unknown)}"
    return Verdict(ok=not blocking[verification], equal=not differences, message=message)


def worst(observed: Mapping[str, Capacity]) -> Capacity | None:
    """The engine that holds least, by KV slots; None if none reports."""
    return min(observed.values(), key=lambda figures: _slots(figures) or 0, default=None)


def _agreement(expected: Capacity, *, engines: int) -> str:
    who = "the engine holds" if engines == 1 else f"each of {engines} engines holds"
    return (
        f"{who} the planned {expected.blocks} KV blocks of {expected.block_size} tokens, "
        f"{expected.tokens} tokens, concurrency {number(expected.concurrency)}, dtype {expected.kv_dtype}"
    )


def _differences(expected: Capacity, *, observed: Capacity) -> Sequence[str]:
    """Every figure that is not as planned; one that is missing is not."""
    found = []
    if observed.blocks is None or observed.block_size is None:
        found.append("reports no KV blocks or no block size")
    elif (observed.blocks, observed.block_size) != (expected.blocks, expected.block_size):
        found.append(
            f"holds {observed.blocks} KV blocks of {observed.block_size} tokens, "
            f"planned {expected.blocks} of {expected.block_size}"
        )
    if observed.tokens != expected.tokens:
        found.append(f"holds {_told(observed.tokens)} tokens, planned {expected.tokens}")
    if observed.concurrency is None or not _close(observed.concurrency, expected.concurrency):
        found.append(
            f"has concurrency {number(observed.concurrency)}, planned {number(expected.concurrency)}"
        )
    if observed.kv_dtype != expected.kv_dtype:
        found.append(f"has KV dtype {observed.kv_dtype}, planned {expected.kv_dtype}")
    return found


def _shortfalls(expected: Capacity, *, observed: Capacity) -> Sequence[str]:
    """What is less than planned, or not comparable at all."""
    slots, planned_slots = _slots(observed), _slots(expected)
    found = []
    if slots is None or planned_slots is None or slots < planned_slots:
        found.append(f"holds {slots} KV slots, planned {planned_slots}")
    if observed.tokens is not None and observed.tokens < (expected.tokens or 0):
        found.append(f"holds {observed.tokens} tokens, planned {expected.tokens}")
    planned = expected.concurrency or 0.0
    if observed.concurrency is not None and observed.concurrency < planned * (1 - _SAME):
        found.append(f"has concurrency {number(observed.concurrency)}, planned {number(planned)}")
    if observed.kv_dtype != expected.kv_dtype:
        found.append(f"has KV dtype {observed.kv_dtype}, planned {expected.kv_dtype}")
    return found


def _told(figure: int | None) -> str:
    return "an unreported number of" if figure is None else str(figure)


def _close(first: float, second: float | None) -> bool:
    return second is not None and math.isclose(first, second, rel_tol=_SAME)


def _slots(figures: Capacity) -> int | None:
    if figures.blocks is None or figures.block_size is None:
        return None
    return figures.blocks * figures.block_size


def _not_reported(observed: Sequence[Capacity]) -> Sequence[str]:
    names = []
    if any(figures.tokens is None for figures in observed):
        names.append("tokens")
    if any(figures.concurrency is None for figures in observed):
        names.append("concurrency")
    return names


def number(value: float | None) -> str:
    """A concurrency as text with all its digits and no superfluous `.0`."""
    if value is None:
        return "unknown"
    return repr(value).removesuffix(".0")
