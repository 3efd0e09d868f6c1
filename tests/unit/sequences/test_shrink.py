"""The shrinker finds the fault that was planted, within its bound, and shows it as YAML."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import yaml

from sequences.generate import History, Step, generate
from sequences.ground import BASE
from sequences.play import Failure
from sequences.schema import ABSENT, get_at, set_at
from sequences.shrink import shown, shrunk

CHECK = "planted"


class Planted:
    """A replay that fails by a rule, and counts."""

    def __init__(self, broken: Callable[[History], bool]) -> None:
        self.broken, self.replays = broken, 0

    async def __call__(self, some: Sequence[History]) -> list[Failure | None]:
        self.replays += len(some)
        return [Failure(one, CHECK, "as planted") if self.broken(one) else None for one in some]


def uses(history: History, name: str) -> bool:
    return any(get_at(step.spec, tuple(name.split("."))) is not ABSENT for step in history.steps)


def forgets_env(history: History) -> bool:
    """A fault in the operator: env set once stays when it is left out later, if verification changed too."""
    was = [get_at(step.spec, ("engine", "env")) is not ABSENT for step in history.steps]
    return any(was[:-1]) and not was[-1] and uses(history, "engine.verification")


async def test_two_steps_and_two_fields_are_left_of_a_long_history() -> None:
    env = [{"name": "LOUD", "value": "1"}]
    noise = {
        **BASE,
        "replicas": 3,
        "quality": "Lossless",
        "workload": {"concurrency": 7, "typicalTokens": 16},
    }
    loud = set_at(noise, ("engine", "env"), env)
    long = History(
        (
            Step(noise, hurried=True),
            Step(loud),
            Step(set_at(noise, ("replicas",), -1)),
            Step(set_at(loud, ("quality",), "Economy")),
            Step(set_at(noise, ("engine", "verification"), "Report")),
            Step(set_at(noise, ("engine", "verification"), "Report")),
        )
    )
    replay = Planted(forgets_env)
    found = await shrunk(Failure(long, CHECK, "as planted"), replay, most=400)
    assert len(found.history.steps) == 2
    assert found.history.steps[0].spec == {**BASE, "engine": {"env": env}} or uses(
        found.history, "engine.env"
    )
    assert [sorted(step.spec) for step in found.history.steps].count(["engine", "model"]) == 2
    assert not any(step.hurried for step in found.history.steps)
    assert replay.replays <= 400


async def test_the_bound_holds_and_what_was_found_until_then_counts() -> None:
    long = max(generate(20, seed_number=3), key=lambda one: len(one.steps))
    replay = Planted(lambda _: True)
    found = await shrunk(Failure(long, CHECK, ""), replay, most=10)
    assert replay.replays <= 10
    assert len(found.history.steps) < len(long.steps)


async def test_another_failure_is_not_mistaken_for_it() -> None:
    history = History((Step({**BASE, "replicas": 2}), Step(BASE)))

    async def replay(some: Sequence[History]) -> list[Failure | None]:
        return [Failure(one, "another check", "") for one in some]

    found = await shrunk(Failure(history, CHECK, ""), replay)
    assert found.history == history


def test_a_failure_is_shown_as_documents_that_can_be_applied() -> None:
    env = [{"name": "LOUD"}]
    shared = {**BASE, "engine": {"env": env, "extraArgs": ["a"]}}
    text = shown(Failure(History((Step(shared, hurried=True), Step(BASE))), CHECK, "one\ntwo"))
    assert text.startswith("broken: planted\n  one\n  two\n---\n# 1: Planned, the next one at once\n")
    documents = list(yaml.safe_load_all(text.partition("---\n")[2]))
    assert [body["spec"] for body in documents] == [shared, BASE]
    assert "&id" not in text
