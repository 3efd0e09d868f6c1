"""The structural schema of `spec`, as what may be written: units, leaves, values that it takes and refuses.

Everything here is derived from the CustomResourceDefinition, so that a new field is covered by itself.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tonnage.api.crd import build_crd

Schema = Mapping[str, Any]
Path = tuple[str, ...]
Spec = dict[str, Any]
Strategy = st.SearchStrategy[Any]
Hint = Callable[[Path], Strategy | None]
"""What a field takes beyond its schema: a strategy for the values that mean something, or None."""

ITEM, ANY_KEY = "[]", "*"
ABSENT = object()
OPAQUE = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"
_UNION = re.compile(r"\(self\.mode == '(\w+)'\) == has\(self\.(\w+)\)")
_TEXT = st.characters(min_codepoint=32, max_codepoint=126)
_LONGEST = 24
_TEXTS = 24


@cache
def spec_schema() -> Schema:
    """The schema of `spec`."""
    version = build_crd()["spec"]["versions"][0]
    found: Schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


@dataclass(frozen=True)
class Field:
    """A place in the schema; `[]` in the path is an item of a list, `*` a value of a map."""

    path: Path
    schema: Schema
    required: bool = False

    @property
    def name(self) -> str:
        """The path as people write it."""
        return name_of(self.path)


def name_of(path: Path) -> str:
    """`workload.concurrency`, `engine.env[].name`, `template.labels.*`."""
    return ".".join(path).replace(f".{ITEM}", ITEM)


def leaves(schema: Schema | None = None, path: Path = (), *, required: bool = False) -> Iterator[Field]:
    """Every place that holds a value: scalars, values of maps, objects of unknown shape."""
    schema = spec_schema() if schema is None else schema
    if "properties" in schema:
        needed = schema.get("required", ())
        for name, child in schema["properties"].items():
            yield from leaves(child, (*path, name), required=name in needed)
    elif "items" in schema:
        yield from leaves(schema["items"], (*path, ITEM))
    elif "additionalProperties" in schema:
        yield from leaves(schema["additionalProperties"], (*path, ANY_KEY))
    else:
        yield Field(path, schema, required)


def units(schema: Schema | None = None, path: Path = (), *, required: bool = True) -> Iterator[Field]:
    """The smallest places that can be set alone: scalars, whole lists and maps, whole unions, and objects
    that have required members."""
    schema = spec_schema() if schema is None else schema
    if "properties" in schema and not unions(schema) and (required or not schema.get("required")):
        needed = schema.get("required", ())
        for name, child in schema["properties"].items():
            yield from units(child, (*path, name), required=name in needed)
    else:
        yield Field(path, schema, required)


def unions(schema: Schema) -> dict[str, str]:
    """Member -> the mode that it belongs to, read from the rules of a discriminated union."""
    rules = (rule["rule"] for rule in schema.get("x-kubernetes-validations", ()))
    return {found[2]: found[1] for rule in rules if (found := _UNION.search(rule))}


# values that the schema takes


def values(schema: Schema, path: Path, *, hint: Hint) -> Strategy:
    """Values that the schema takes, edges of bounds among them; `hint` decides where it knows more."""
    known = hint(path)
    if known is not None:
        return known
    if schema.get(INT_OR_STRING):
        return st.one_of(st.integers(1, 2**33), st.integers(1, 100).map(str))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get(OPAQUE):
        return st.just({"name": "x"})
    kinds: dict[str, Callable[[], Strategy]] = {
        "boolean": st.booleans,
        "integer": lambda: _integers(schema),
        "string": lambda: _strings(schema),
        "array": lambda: _arrays(schema, path, hint),
        "object": lambda: _objects(schema, path, hint),
    }
    return kinds[schema["type"]]()


def _integers(schema: Schema) -> Strategy:
    least, most = _bounds(schema)
    edges = sorted({least, min(least + 1, most), max(most - 1, least), most})
    return st.one_of(st.sampled_from(edges), st.integers(least, most))


def _bounds(schema: Schema) -> tuple[int, int]:
    least, most = schema.get("minimum", -(2**31)), schema.get("maximum", 2**31 - 1)
    return least + bool(schema.get("exclusiveMinimum")), most - bool(schema.get("exclusiveMaximum"))


def _strings(schema: Schema) -> Strategy:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 256)
    if "pattern" in schema:
        return st.sampled_from(texts_of(schema["pattern"], least, most))
    longest = min(most, max(least, _LONGEST))
    return st.one_of(st.text(_TEXT, min_size=least, max_size=longest), st.just("e" * min(most, 300)))


@cache
def texts_of(pattern: str, least: int, most: int) -> tuple[str, ...]:
    """Different texts of a pattern, the simplest first; drawn once, since drawing them takes most of the
    time."""
    matching = st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True)
    return tuple(drawn(matching.filter(lambda text: least <= len(text) <= most), _TEXTS, seed_number=1))


def drawn(strategy: Strategy, count: int, *, seed_number: int) -> list[Any]:
    """Different values among `count` draws; the same for the same seed."""
    found: dict[str, Any] = {}

    @seed(seed_number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        found.setdefault(json.dumps(value, sort_keys=True), value)

    collect()
    return list(found.values())


def _arrays(schema: Schema, path: Path, hint: Hint) -> Strategy:
    item = values(schema["items"], (*path, ITEM), hint=hint)
    keys = schema.get("x-kubernetes-list-map-keys")
    unique: Callable[[Any], Any] | None = None
    if keys:
        unique = lambda one: tuple(one.get(key) for key in keys)  # noqa: E731
    elif schema.get("x-kubernetes-list-type") == "set":
        unique = lambda one: one  # noqa: E731
    least, most = schema.get("minItems", 0), min(schema.get("maxItems", 3), 3)
    return st.lists(item, min_size=max(1, least), max_size=most, unique_by=unique)


def _objects(schema: Schema, path: Path, hint: Hint) -> Strategy:
    if "additionalProperties" in schema:
        names = hint((*path, ANY_KEY, "key")) or st.sampled_from(("team", "example.com/part"))
        content = values(schema["additionalProperties"], (*path, ANY_KEY), hint=hint)
        return st.dictionaries(names, content, min_size=1, max_size=2)
    needed, of_mode = schema.get("required", ()), unions(schema)
    parts = {name: values(child, (*path, name), hint=hint) for name, child in schema["properties"].items()}

    @st.composite
    def build(draw: st.DrawFn) -> Spec:
        mode = draw(parts["mode"]) if of_mode else None
        made: Spec = {"mode": mode} if of_mode else {}
        for name, part in parts.items():
            if name in made:
                continue
            wanted = of_mode[name] == mode if name in of_mode else name in needed or draw(st.booleans())
            if wanted:
                made[name] = draw(part)
        return made

    return build()


# values that the schema refuses


def refused_values(schema: Schema) -> list[Any]:
    """Values that the API server must refuse, one for each constraint that the schema states."""
    found: list[Any] = []
    kind = schema.get("type")
    wrong = {"boolean": "true", "integer": "1", "string": 1, "array": "x", "object": "x"}
    if kind in wrong and not schema.get(INT_OR_STRING):
        found.append(wrong[kind])
    if "enum" in schema:
        found += ["NoSuchValue", ""] if "" not in schema["enum"] else ["NoSuchValue"]
    if "minimum" in schema:
        found.append(_bounds(schema)[0] - 1)
    if "maximum" in schema:
        found.append(_bounds(schema)[1] + 1)
    if schema.get("minLength"):
        found.append("")
    if "pattern" in schema:
        found += [text for text in ("\n", " ", "/", "é", "a b") if not re.search(schema["pattern"], text)]
    if "maxLength" in schema and "pattern" not in schema and "enum" not in schema:
        found.append("e" * (schema["maxLength"] + 1))
    if "maxItems" in schema and schema["items"].get("type") == "string":
        found.append([f"e{number}" for number in range(schema["maxItems"] + 1)])
    if schema.get("properties"):
        found.append({"noSuchField": 1})
    return found


# reading and writing by path


def get_at(spec: Mapping[str, Any], path: Path) -> Any:
    """The value at a path of plain members; ABSENT if there is none."""
    node: Any = spec
    for name in path:
        if not isinstance(node, Mapping) or name not in node:
            return ABSENT
        node = node[name]
    return node


def set_at(spec: Mapping[str, Any], path: Path, value: Any) -> Spec:
    """A copy with the value at a path; ABSENT removes it, and objects that it leaves empty."""
    changed: Spec = dict(spec)
    name, rest = path[0], path[1:]
    if rest:
        inner = changed.get(name)
        child = set_at(inner if isinstance(inner, Mapping) else {}, rest, value)
        if child or value is not ABSENT:
            changed[name] = child
        else:
            changed.pop(name, None)
    elif value is ABSENT:
        changed.pop(name, None)
    else:
        changed[name] = copy.deepcopy(value)
    return changed
