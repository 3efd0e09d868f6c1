"""The shortest history that still breaks the same promise, and how it is shown."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

import yaml

from sequences.generate import History, Step
from sequences.ground import BASE, PLANNED, verdict
from sequences.play import Failure, Player
from sequences.schema import ABSENT, Field, get_at, set_at, units
from sequences.stage import manifest

Replay = Callable[[Sequence[History]], Awaitable[Sequence[Failure | None]]]
MAX_REPLAYS: Final = 48
_SIDE_BY_SIDE: Final = 8
_MOST_SHOWN: Final = 5
# what does not come to rest within this does not come to rest, and there are many replays
_SHRINK_SETTLE_SECONDS: Final = 30.0
_RESTARTS: Final = "restart"


async def shrunk(failure: Failure, replay: Replay, *, most: int = MAX_REPLAYS) -> Failure:
    """The smallest failure of the same check that at most `most` replays find."""
    tried = {_text(failure.history)}
    while True:
        untried = [one for one in simpler(failure.history) if _text(one) not in tried]
        found = None
        while untried and found is None and most > 0:
            some, untried = untried[: min(_SIDE_BY_SIDE, most)], untried[min(_SIDE_BY_SIDE, most) :]
            tried.update(map(_text, some))
            most -= len(some)
            again = [one for one in await replay(some) if one is not None and one.check == failure.check]
            # the simplest of those that failed together
            found = min(again, key=lambda one: len(_text(one.history)), default=None)
        if found is None:
            return failure
        failure = found


def simpler(history: History) -> Iterator[History]:
    """Histories with one thing less: a step, a field in all steps, a field in one, a hurry. The last object
    stays one that is planned."""
    seen = set()
    for one in _simpler(history):
        if one.steps and verdict(one.steps[-1].spec).kind == PLANNED and _text(one) not in seen:
            seen.add(_text(one))
            yield one


def _simpler(history: History) -> Iterator[History]:
    steps = history.steps
    for number in range(len(steps)):
        yield History((*steps[:number], *steps[number + 1 :]))
    fields = list(units())
    for field in fields:
        changed = tuple(Step(_without(step.spec, field), step.hurried) for step in steps)
        if changed != steps:
            yield History(changed)
    for number, step in enumerate(steps):
        for field in fields:
            changed_spec = _without(step.spec, field)
            if changed_spec != step.spec:
                yield _replaced(history, number, Step(changed_spec, step.hurried))
        if step.hurried:
            yield _replaced(history, number, Step(step.spec))


def _without(spec: dict[str, Any], field: Field) -> dict[str, Any]:
    default = get_at(BASE, field.path)
    if get_at(spec, field.path) in (ABSENT, default):
        return spec
    return set_at(spec, field.path, default)


def _replaced(history: History, number: int, step: Step) -> History:
    return History((*history.steps[:number], step, *history.steps[number + 1 :]))


def _text(history: History) -> str:
    return json.dumps([[step.spec, step.hurried] for step in history.steps], sort_keys=True)


async def report(failures: Sequence[Failure], player: Player, *, seed_number: int) -> str:
    """All failures for people; the first one shrunk, each other as it was found."""
    player.settle_seconds = _SHRINK_SETTLE_SECONDS
    first = await shrunk(failures[0], lambda some: player.wave(some, restart=_RESTARTS in failures[0].check))
    lines = [f"{len(failures)} histories broke a promise; seed {seed_number}", "", "the first, shrunk:"]
    lines += [shown(first), *(f"\nanother, as found:\n{shown(one)}" for one in failures[1:_MOST_SHOWN])]
    return "\n".join(lines)


class _Plain(yaml.SafeDumper):
    """YAML without anchors: each document can be applied alone."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def shown(failure: Failure) -> str:
    """A failure for people: the promise, what is wrong, and the objects as YAML to apply in turn."""
    lines = [f"broken: {failure.check}", *(f"  {line}" for line in failure.text.splitlines())]
    for number, step in enumerate(failure.history.steps, 1):
        said = verdict(step.spec)
        hurry = ", the next one at once" if step.hurried else ""
        lines.append(f"---\n# {number}: {said.kind} {said.reason}".rstrip() + hurry)
        body = manifest("default", "chat", step.spec)
        lines.append(yaml.dump(body, Dumper=_Plain, sort_keys=False).rstrip())
    return "\n".join(lines)
