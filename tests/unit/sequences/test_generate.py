"""What is generated: from the schema, reproducible, and mixed as meant."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from sequences.fields import ALIKE, cases
from sequences.generate import broken_values, generate, pool
from sequences.ground import BASE, INVALID, PLANNED, REFUSED, verdict
from sequences.schema import ABSENT, Field, get_at, leaves, set_at, units

COUNT = 150


def test_the_same_seed_gives_the_same_histories_and_another_gives_others() -> None:
    assert generate(10, seed_number=5) == generate(10, seed_number=5) != generate(10, seed_number=6)


def test_most_objects_are_planned_and_the_last_always() -> None:
    found = generate(COUNT, seed_number=1)
    kinds = Counter(verdict(step.spec).kind for history in found for step in history.steps)
    assert kinds[PLANNED] > kinds[REFUSED] > kinds[INVALID] > COUNT / 4
    assert all(verdict(history.last).kind == PLANNED for history in found)
    assert all(not history.steps[-1].hurried for history in found)


def test_every_unit_of_the_schema_is_written_somewhere() -> None:
    specs = [step.spec for history in generate(600, seed_number=1) for step in history.steps]
    unused = {unit.name for unit in units() if all(get_at(spec, unit.path) is ABSENT for spec in specs)}
    assert unused == set()


def test_units_cover_the_leaves() -> None:
    names = [unit.name for unit in units()]
    assert [leaf.name for leaf in leaves() if not leaf.name.startswith(tuple(names))] == []


def test_a_new_field_is_covered_by_itself() -> None:
    added = {"type": "object", "properties": {"fresh": {"type": "integer", "minimum": 3, "maximum": 9}}}
    (unit,) = units(added)
    assert unit.name == "fresh"
    assert {3, 4, 8, 9} <= set(pool(unit, seed_number=1)) <= set(range(3, 10))
    assert {"1", 2, 10} == set(broken_values(unit))


@pytest.mark.parametrize("unit", list(units()), ids=lambda unit: unit.name)
def test_a_broken_value_is_refused_by_the_models(unit: Field) -> None:
    found = [value for value in broken_values(unit) if value is not ABSENT]
    assert found
    assert [value for value in found if verdict(set_at(BASE, unit.path, value)).kind != INVALID] == []


def test_members_of_a_union_come_with_their_mode_alone() -> None:
    unit = next(unit for unit in units() if unit.name == "cache.offload")
    drawn = pool(unit, seed_number=1)
    assert {value["mode"] for value in drawn} == {"Auto", "None", "Fixed"}
    assert all(("fixed" in value) == (value["mode"] == "Fixed") for value in drawn)


def test_values_are_of_the_pattern_and_the_length_that_the_schema_states() -> None:
    stated = [unit for unit in units() if "pattern" in unit.schema and "type" in unit.schema]
    assert len(stated) > 5
    for unit in stated:
        for value in pool(unit, seed_number=2):
            assert re.fullmatch(unit.schema["pattern"], value), (unit.name, value)
            assert len(value) <= unit.schema["maxLength"], (unit.name, value)


def test_every_leaf_has_a_case_that_differs_in_it_alone() -> None:
    found = cases()
    assert {leaf.name for leaf in leaves()} == {case.field.name for case in found}
    assert all(case.spec != case.other for case in found)


def test_what_is_listed_as_alike_is_a_value_that_exists() -> None:
    known = {(case.field.name, str(case.value)) for case in cases()}
    assert set(ALIKE) <= known
