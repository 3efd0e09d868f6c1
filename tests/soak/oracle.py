"""`make soak-oracle`: every plan of the grid, and everything that would have been better than it, by vLLM's
own KV-cache code (hours on one core; goes on where it was stopped).

What was found is kept by plan and rival in build/soak-oracle.jsonl; remove it to begin anew.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

from harness.paths import REPOSITORY
from oracle import grid, starts
from oracle.client import Oracle
from oracle.engine.case import Case
from oracle.grid import Scenario
from oracle.rivals import rivals, valid_after_all
from oracle.validity import objections
from tonnage.planning.plan import Plan

KEPT: Final = REPOSITORY / "build/soak-oracle.jsonl"
_TOLD_SECONDS: Final = 60.0


def main() -> None:
    """Check for as many seconds as the argument says, or to the end; then tell what all runs found. Fails if
    anything was wrong."""
    limit_seconds = float(sys.argv[1]) if len(sys.argv) > 1 else float("inf")
    started = told = time.monotonic()
    KEPT.parent.mkdir(exist_ok=True)
    known, met = _known(), set[str]()
    with Oracle() as oracle, KEPT.open("a") as kept:
        for number, scenario in enumerate(_planned()):
            if time.monotonic() - started > limit_seconds:
                break
            for key, found in _checks(scenario, oracle, known, met):
                known[key] = found
                kept.write(json.dumps([key, found]) + "\n")
                kept.flush()
            if time.monotonic() - told > _TOLD_SECONDS:
                told = time.monotonic()
                print(f"{number} scenarios, {len(known)} checks, {told - started:.0f} s", file=sys.stderr)
        _report(known, met, asked=oracle.asked, seconds=time.monotonic() - started)
    sys.exit(any(known[key] for key in met))


def _planned() -> list[Scenario]:
    """Scenarios with a plan, in an order in which any beginning is a sample; platforms one after the other in
    every part."""
    planned = [each for each in grid.shuffled() if isinstance(grid.answer(each), Plan)]
    parts = [planned[first : first + 400] for first in range(0, len(planned), 400)]
    return [each for part in parts for each in sorted(part, key=grid.platform)]


def _checks(
    scenario: Scenario, oracle: Oracle, known: dict[str, list[str]], met: set[str]
) -> Iterator[tuple[str, list[str]]]:
    """What is not known yet of a scenario: its plan, then its rivals; each once, whatever qualities share it.
    All of them were `met`, known before or not."""
    plan, files, case = grid.answer(scenario), grid.files(scenario.model), _case(scenario)
    assert isinstance(plan, Plan)
    key = _key(case)
    met.add(key)
    if key not in known:
        yield key, [f"{scenario.name}: {each}" for each in objections(plan, oracle.check(case))]
    if plan.gpu is None:
        return
    asked = grid.question(scenario)
    for rival in rivals(asked):
        start = starts.of_choice(
            asked, rival.choice, config=files[0], hf_quant_config=files[1], kv_bytes=rival.kv_bytes
        )
        key = f"rival {_digest(start.text)}"
        met.add(key)
        if key not in known:
            found = valid_after_all(rival, asked, oracle, files=files)
            yield key, [f"{scenario.name}: {found}"] if found else []


def _case(scenario: Scenario) -> Case:
    plan, (config, quantization) = grid.answer(scenario), grid.files(scenario.model)
    assert isinstance(plan, Plan)
    return starts.of_plan(plan, config=config, hf_quant_config=quantization)


def _key(case: Case) -> str:
    return f"plan {_digest(case.text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _known() -> dict[str, list[str]]:
    if not KEPT.exists():
        return {}
    return dict(json.loads(line) for line in KEPT.read_text().splitlines())


def _report(known: dict[str, list[str]], met: set[str], *, asked: int, seconds: float) -> None:
    now = datetime.datetime.now(datetime.UTC)
    planned = _planned()
    done = Counter(key.split()[0] for key in met)
    wrong = [text for key in met for text in known[key]]
    print(f"make soak-oracle, vLLM {grid.VERSION}, {now:%Y-%m-%d %H:%M} UTC")
    print(f"grid: {len(grid.shuffled())} scenarios, {len(planned)} with a plan")
    plans = {_key(_case(each)) for each in planned}
    print(f"different plans checked: {len(plans & met)} of {len(plans)}; rivals: {done['rival']}")
    print(f"this run: {asked} questions to the engine's code in {seconds:.0f} s")
    print(f"wrong: {len(wrong)}")
    print("\n".join(sorted(wrong)))


if __name__ == "__main__":
    main()
