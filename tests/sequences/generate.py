"""Histories: the specs that one user applies to one object, each a few fields away from the one before.

Most are planned, some are refused by the operator, some are not even taken by the API server.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sequences.ground import (
    BASE,
    BROKEN,
    CLAIM,
    INVALID,
    NOWHERE,
    PLANNED,
    REFUSED,
    SCHEDULER,
    hint,
    is_taken,
    verdict,
)
from sequences.schema import (
    ABSENT,
    Field,
    Path,
    Spec,
    drawn,
    get_at,
    refused_values,
    set_at,
    unions,
    units,
    values,
)

_ATTEMPTS: Final = 5
_DRAWS: Final = 24
_FIELDS: Final = tuple(units())
# of eight objects that follow another
_KINDS: Final = (PLANNED,) * 5 + (REFUSED,) * 2 + (INVALID,)
# one field that makes an object refused, for each step of the operator that may refuse
_REFUSED: Final[Sequence[tuple[str, Any]]] = (
    ("cache.offload", {"mode": "Fixed", "fixed": {"hostMemory": "1Gi"}}),
    ("engine.extraArgs", ["--max-model-len=9"]),
    ("engine.env", [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "4"}]),
    ("engine.version", "0.1.0"),
    ("model.uri", f"pvc://{CLAIM}/{BROKEN}"),
    ("model.uri", f"pvc://{NOWHERE}/model"),
    ("workload.contextLength", 2**31 - 1),
    ("cache.dtype", "nvfp4"),
    ("template.resources.memory", "1Gi"),
    ("template.nodeSelector", {"pool": "tiny"}),
    ("template.nodeSelector", {"no": "such"}),
)


@dataclass(frozen=True)
class Step:
    """One object that a user applies. `hurried`: the next one comes before this one is at rest."""

    spec: Spec
    hurried: bool = False


@dataclass(frozen=True)
class History:
    """What a user applies under one name, one after the other."""

    steps: tuple[Step, ...]

    @property
    def last(self) -> Spec:
        """The spec that counts in the end: the last one that the API server takes."""
        return next(step.spec for step in reversed(self.steps) if verdict(step.spec).kind != INVALID)


def generate(count: int, *, seed_number: int) -> list[History]:
    """`count` different histories; the same for the same seed and schema."""
    chance = random.Random(seed_number)
    pools = {field.name: _taken(field, seed_number) for field in _FIELDS}
    found: dict[str, History] = {}
    while len(found) < count:
        history = _history(chance, pools)
        found.setdefault(json.dumps([step.spec for step in history.steps], sort_keys=True), history)
    return list(found.values())


def _taken(field: Field, seed_number: int) -> list[Any]:
    """Values that can be written without anything else; where no draw is one of them, all draws."""
    drawn = pool(field, seed_number=seed_number)
    return [value for value in drawn if is_taken(set_at(BASE, field.path, value))] or drawn


def pool(field: Field, *, seed_number: int, draws: int = _DRAWS) -> list[Any]:
    """Different values of a field, as hypothesis draws them with its love of edges.

    It draws the values alone: left to compose whole histories, it would dwell on a few.
    """
    return list(_pool(field.path, json.dumps(field.schema), seed_number, draws))


@cache
def _pool(path: Path, schema: str, seed_number: int, draws: int) -> tuple[Any, ...]:
    return tuple(drawn(values(json.loads(schema), path, hint=hint), draws, seed_number=seed_number))


def _history(chance: random.Random, pools: Mapping[str, Sequence[Any]]) -> History:
    """Three to six objects; the last is planned."""
    good: list[Spec] = []
    steps: list[Step] = []
    for kind in [*chance.choices(_KINDS, k=chance.randint(2, 5)), PLANNED]:
        spec = _next_spec(chance, pools, good=good, kind=kind)
        if kind == PLANNED:
            good.append(spec)
        steps.append(Step(spec, hurried=chance.random() < 0.25))
    return History((*steps[:-1], Step(steps[-1].spec)))


def _next_spec(
    chance: random.Random, pools: Mapping[str, Sequence[Any]], *, good: Sequence[Spec], kind: str
) -> Spec:
    """A spec of this kind, near the last good one; a good one may be an earlier one again."""
    if kind == PLANNED and len(good) > 1 and chance.random() < 0.15:
        return chance.choice(good)
    near: Spec = good[-1] if good else BASE
    if kind == REFUSED and chance.random() < 0.5:
        spec = _with(near, *chance.choice(_REFUSED))
        if is_readable(spec):
            return spec
    for _ in range(_ATTEMPTS):
        spec = _broken(chance, near) if kind == INVALID else _changed(chance, pools, near)
        if verdict(spec).kind == kind and (kind == INVALID or is_readable(spec)):
            return spec
    certain = {PLANNED: ("replicas", 1), REFUSED: _REFUSED[0], INVALID: ("replicas", -1)}
    return _with(near, *certain[kind])


def is_readable(spec: Spec) -> bool:
    """Can the model be read? A pod that nothing admits or places reads none, but the base's is known."""
    template = spec.get("template", {})
    admitted = template.get("priorityClassName") != NOWHERE
    placed = template.get("schedulerName", SCHEDULER) == SCHEDULER
    return bool(spec["model"] == BASE["model"]) or (admitted and placed)


def _with(spec: Spec, name: str, value: Any) -> Spec:
    return set_at(spec, tuple(name.split(".")), value)


def _changed(chance: random.Random, pools: Mapping[str, Sequence[Any]], spec: Spec) -> Spec:
    """One to three fields set or left out."""
    for field in chance.sample(_FIELDS, k=chance.randint(1, 3)):
        present = get_at(spec, field.path) is not ABSENT
        leave_out = present and not field.required and chance.random() < 0.5
        spec = set_at(spec, field.path, ABSENT if leave_out else chance.choice(pools[field.name]))
    return spec


def _broken(chance: random.Random, spec: Spec) -> Spec:
    """One field that the schema or a rule of it refuses."""
    field = chance.choice(_FIELDS)
    return set_at(spec, field.path, chance.choice(broken_values(field)))


def broken_values(field: Field) -> list[Any]:
    """What a unit must not hold: a wrong value, a wrong item, a union whose member and mode disagree."""
    found = refused_values(field.schema)
    if "items" in field.schema:
        found += [[wrong] for wrong in refused_values(field.schema["items"])]
    for member, mode in unions(field.schema).items():
        others = [one for one in field.schema["properties"]["mode"]["enum"] if one != mode]
        found += [{"mode": mode}, {"mode": others[0], member: {}}]
    if field.required and field.schema.get("type") == "string":
        found.append(ABSENT)
    return found
