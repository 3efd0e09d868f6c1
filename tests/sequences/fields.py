"""Every field does something: pairs of specs that differ in one leaf alone, derived from the schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, Final

from sequences.generate import pool
from sequences.ground import BASE, CLAIM, PLANNED, UNKNOWN, is_taken, verdict
from sequences.schema import (
    ABSENT,
    ANY_KEY,
    ITEM,
    Field,
    Path,
    Schema,
    Spec,
    get_at,
    leaves,
    set_at,
    spec_schema,
    unions,
    units,
)

SEED: Final = 1
_MOST_VALUES: Final = 1
_DRAWS: Final = 16
_MANY_DRAWS: Final = 400

ALIKE: Final[Mapping[tuple[str, str], str]] = {
    ("cache.prefixCaching", "Enabled"): "what Auto chooses for models that can",
    ("cache.eviction.mode", "None"): "Auto evicts under quality Economy alone, which is not built yet",
    ("cache.offload.mode", "None"): "Auto offloads nothing in this version",
    ("weights.quantization", "None"): "Auto quantizes nothing on CPU nodes",
    ("quality", "Economy"): "there is no rung below NearLossless on CPU nodes",
    ("scaling.mode", "External"): "requires replicas and says that others write them; what runs is the same",
    ("hardware.accelerator", "CPU"): "what the planner chooses where there are no GPUs",
}
"""Values of a choice that mean what its default means, each with the reason. A field of which no value means
anything would be inert; there is none."""
_BASES: Final[Mapping[str, Spec]] = {
    # it matters to an architecture that is not known
    "model.assumeFullAttention": {"model": {"uri": f"pvc://{CLAIM}/{UNKNOWN}"}},
    "model.revision": {"model": {"uri": "hf://org/name"}},
    "model.tokenSecret": {"model": {"uri": "hf://org/name"}},
    "cache.eviction": {**BASE, "quality": "Economy"},
    "scaling.mode=External": {**BASE, "replicas": 2},
}
"""What fields, or single values of them, need around them, by the beginning of their names."""


@dataclass(frozen=True)
class Case:
    """Two specs that differ in one leaf: `value` there, and another value or none."""

    field: Field
    value: Any
    spec: Spec
    other: Spec

    @property
    def is_choice(self) -> bool:
        """Is every value of the field named, so that each must mean something?"""
        return "enum" in self.field.schema or self.field.schema.get("type") == "boolean"

    @property
    def alike(self) -> str:
        """Why the two may lead to the same; empty where they may not."""
        return ALIKE.get((self.field.name, str(self.value)), "")


@cache
def cases() -> list[Case]:
    """For every leaf of `spec` at least one case. AssertionError names a leaf for which none is found."""
    found = []
    for leaf in leaves():
        mine = _cases(leaf)
        if not mine:
            raise AssertionError(
                f"no value of spec.{leaf.name} is known that the models take: give it a hint"
            )
        missing = [value for value in _choices(leaf) if value not in [case.value for case in mine]]
        if missing:
            raise AssertionError(f"no case of spec.{leaf.name} has {missing}: say what it needs in _BASES")
        found += mine
    return found


def _choices(leaf: Field) -> list[Any]:
    return [value for value in leaf.schema.get("enum", ()) if value != leaf.schema.get("default", ABSENT)]


def _cases(leaf: Field) -> list[Case]:
    candidates = [case for value in _values(leaf) if (case := _case(leaf, value)) is not None]
    if candidates and candidates[0].is_choice:
        return candidates
    planned = [case for case in candidates if verdict(case.spec).kind == PLANNED]
    refused = [case for case in candidates if verdict(case.spec).kind != PLANNED]
    return [*planned[:_MOST_VALUES], *refused[:1]]


def _values(leaf: Field) -> list[Any]:
    drawn = leaf.schema["enum"] if "enum" in leaf.schema else pool(leaf, seed_number=SEED, draws=_DRAWS)
    found = [value for value in drawn if leaf.required or value != leaf.schema.get("default", ABSENT)]
    # an empty text often means the same as none
    return sorted(found, key=lambda value: value == "")


def _case(leaf: Field, value: Any) -> Case | None:
    """The leaf alone; where a rule wants more beside it, inside a value of its unit that has it."""
    others = [*([] if leaf.required else [ABSENT]), *(other for other in _values(leaf) if other != value)]
    base = _base(leaf, value)
    return _differing(leaf, value, others, lambda content: _placed(leaf, content, base=base)) or _within(
        leaf, value, others
    )


def _differing(leaf: Field, value: Any, others: Sequence[Any], place: Callable[[Any], Spec]) -> Case | None:
    spec = place(value)
    if not is_taken(spec):
        return None
    beside = (place(other) for other in others)
    taken = (other for other in beside if other != spec and is_taken(other))
    found = next(taken, None)
    return None if found is None else Case(leaf, value, spec, found)


def _within(leaf: Field, value: Any, others: Sequence[Any]) -> Case | None:
    unit = next(unit for unit in units() if leaf.path[: len(unit.path)] == unit.path)
    below = leaf.path[len(unit.path) :]
    for whole in chain(pool(unit, seed_number=SEED), _many(unit)):
        if not below or not _has(whole, below):
            continue

        def place(content: Any, whole: Any = whole) -> Spec:
            return set_at(_base(leaf, value), unit.path, _changed(whole, below, content))

        found = _differing(leaf, value, others, place)
        if found is not None:
            return found
    return None


def _many(unit: Field) -> Iterator[Any]:
    """Drawn only where fewer have not sufficed."""
    yield from pool(unit, seed_number=SEED, draws=_MANY_DRAWS)


def _has(node: Any, path: Path) -> bool:
    if not path:
        return True
    inner = _inner(node, path[0])
    return inner is not ABSENT and _has(inner, path[1:])


def _inner(node: Any, step: str) -> Any:
    """What lies below the first item, the first key, or a member."""
    if step == ITEM:
        return node[0] if isinstance(node, list) and node else ABSENT
    if not isinstance(node, Mapping):
        return ABSENT
    return next(iter(node.values()), ABSENT) if step == ANY_KEY else node.get(step, ABSENT)


def _changed(node: Any, path: Path, value: Any) -> Any:
    """A copy of `node` with another value at a path that it has."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    child = _changed(_inner(node, step), rest, value)
    if step == ITEM:
        return [*([] if child is ABSENT else [child]), *node[1:]]
    name = next(iter(node)) if step == ANY_KEY else step
    kept = {key: content for key, content in node.items() if key != name}
    return kept if child is ABSENT else {**kept, name: child}


def _placed(leaf: Field, value: Any, *, base: Spec) -> Spec:
    """The base with a value at a leaf, and around it whatever must be there."""
    return _merged(base, _around(spec_schema(), (), leaf.path, value, base=base))


def _base(leaf: Field, value: Any) -> Spec:
    where = f"{leaf.name}={value}"
    return next((base for name, base in _BASES.items() if where.startswith(name)), BASE)


def _around(schema: Schema, path: Path, rest: Path, value: Any, *, base: Spec) -> Any:
    if not rest:
        return value
    step, below = rest[0], rest[1:]
    if step == ITEM:
        item = _around(schema["items"], (*path, ITEM), below, value, base=base)
        return [] if item is ABSENT else [item]
    if step == ANY_KEY:
        content = _around(schema["additionalProperties"], (*path, ANY_KEY), below, value, base=base)
        return {} if content is ABSENT else {"team": content}
    made = {} if get_at(base, path) is not ABSENT else _needed(schema, path, besides=step)
    of_mode = unions(schema)
    if step in of_mode:
        made["mode"] = of_mode[step]
    child = _around(schema["properties"][step], (*path, step), below, value, base=base)
    if child is not ABSENT:
        made[step] = child
    if step == "mode":
        made |= {
            member: _member(schema["properties"][member], path, member, mode, base=base)
            for member, mode in of_mode.items()
            if mode == value
        }
    return made


def _needed(schema: Schema, path: Path, *, besides: str) -> dict[str, Any]:
    """Required members, but for one."""
    names = [name for name in schema.get("required", ()) if name != besides and name not in unions(schema)]
    return {name: _simplest(schema["properties"][name], (*path, name)) for name in names}


def _member(schema: Schema, path: Path, member: str, mode: str, *, base: Spec) -> Any:
    """The simplest member of a union that is taken with its mode."""
    drawn = pool(Field((*path, member), schema), seed_number=SEED, draws=_DRAWS)
    unions_of = ((content, {"mode": mode, member: content}) for content in drawn)
    return next((content for content, whole in unions_of if is_taken(set_at(base, path, whole))), {})


def _simplest(schema: Schema, path: Path) -> Any:
    return pool(Field(path, schema), seed_number=SEED, draws=_DRAWS)[0]


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Spec:
    merged: Spec = json.loads(json.dumps(dict(base)))
    for name, value in over.items():
        inner = merged.get(name)
        both = isinstance(inner, dict) and isinstance(value, Mapping)
        merged[name] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return merged
