"""Objects made at random from the CRD's own schema: mostly well formed, at times wrong in one place."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from tonnage.api.crd import build_crd
from unit.api.table import ROWS, Verdict

Schema = Mapping[str, Any]
SPEC: Schema = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
_JUNK = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | _TEXT | st.just([]) | st.just({})
_KEYS = st.from_regex(r"^[a-z][a-z0-9.]{0,6}(/[A-Za-z0-9_-]{1,5})?$", fullmatch=True)


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Values of a schema, rarely others of the right type."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(0, 2**40) | _texts(schema)
    return _OF_TYPE[schema["type"]](schema)


def _texts(schema: Schema) -> st.SearchStrategy[Any]:
    if "pattern" not in schema:
        return _TEXT
    return st.from_regex(schema["pattern"], fullmatch=True).filter(lambda t: len(t) <= schema["maxLength"])


def _integers(schema: Schema) -> st.SearchStrategy[Any]:
    low, high = schema.get("minimum", 0), schema["maximum"]
    return st.sampled_from([low, high, float(low)]) | st.integers(low, min(high, low + 9))


def _objects(schema: Schema) -> st.SearchStrategy[Any]:
    if "additionalProperties" in schema:
        return st.dictionaries(_KEYS, values(schema["additionalProperties"]), max_size=2)
    required = schema.get("required", ())
    parts = {name: values(part) for name, part in schema["properties"].items()}
    optional = sorted(set(parts) - set(required))

    def some(chosen: list[str]) -> st.SearchStrategy[Any]:
        return st.fixed_dictionaries({name: parts[name] for name in [*required, *chosen]})

    chosen = st.lists(st.sampled_from(optional), max_size=3, unique=True) if optional else st.just([])
    return chosen.flatmap(some)


_OF_TYPE = {
    "string": _texts,
    "integer": _integers,
    "boolean": lambda _schema: st.booleans(),
    "array": lambda schema: st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=2),
    "object": _objects,
}

specs = values(SPEC)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        found += [p for name, child in value.items() for p in _paths(child, (*path, name))]
    if isinstance(value, list):
        found += [p for i, child in enumerate(value) for p in _paths(child, (*path, i))]
    return found


@st.composite
def edited(draw: st.DrawFn) -> Any:
    """A good object with one or two places replaced, by values of the schema or by junk."""
    rows = [row for row in ROWS if row.verdict in (Verdict.GOOD, Verdict.OPERATOR)]
    spec = copy.deepcopy(dict(draw(st.sampled_from(rows)).spec))
    for _ in range(draw(st.integers(1, 2))):
        places = [path for path in _paths(spec) if path]
        path = draw(st.sampled_from(places))
        place: Any = spec
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = draw(_replacement(path))
    return spec


def _replacement(path: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    schema: Schema = SPEC
    for part in path:
        step = schema.get("items") or schema.get("additionalProperties")
        schema = step or schema.get("properties", {}).get(part, {})
        if not schema:
            return _JUNK
    return values(schema) | values(schema) | _JUNK
