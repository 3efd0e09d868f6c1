"""What a field must hold, said twice: in CEL for the API server, in Python for everybody else.

Both sides stand next to each other, so that whoever changes one sees the other; tests/cluster compares
their verdicts on a real API server. Patterns are read by RE2 there and by `re` here: no lookaround.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_snake
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Rule:
    """One validation. `message` says what to write instead.

    `expression` is CEL for a message with the object's own figures, `told` the same in Python.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    expression: str = ""
    told: Callable[[Any], str] | None = None

    def as_schema(self) -> dict[str, str]:
        """The rule as the CRD spells it."""
        schema = {"rule": self.cel, "message": self.message}
        return {**schema, "messageExpression": self.expression} if self.expression else schema

    def check(self, value: Any) -> None:
        """Raise ValueError with the message where `value` breaks the rule."""
        if not self.holds(value):
            raise ValueError(self.message if self.told is None else self.told(value))


def fits(pattern: str, text: str) -> bool:
    """Whether the whole text is of the pattern (`$` alone would let a last line feed pass)."""
    return re.fullmatch(pattern, text) is not None


def only_with_mode(member: str, mode: str) -> Rule:
    """The rule of a discriminated union: `member` is set if and only if `mode` names it."""
    attribute = to_snake(member)
    return Rule(
        f"(self.mode == '{mode}') == has(self.{member})",
        f"write {member} together with mode {mode}, and leave it out with any other mode",
        lambda value: (value.mode == mode) == (getattr(value, attribute) is not None),
    )


class Checked:
    """Base of annotations that check a value after its type and add keys to its schema."""

    __slots__ = ()

    def check(self, value: Any) -> Any:
        """Return `value` or raise ValueError."""
        raise NotImplementedError

    def extend(self, schema: JsonSchemaValue) -> None:
        """Add what the API server has to check."""
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        out = handler(schema)
        self.extend(out)
        return out


@dataclass(frozen=True, slots=True)
class Obeys(Checked):
    """A field's value obeys a rule."""

    rule: Rule

    def check(self, value: Any) -> Any:
        """Return `value` or raise ValueError."""
        self.rule.check(value)
        return value

    def extend(self, schema: JsonSchemaValue) -> None:
        """Add the rule."""
        schema.setdefault(VALIDATIONS, []).append(self.rule.as_schema())


@dataclass(frozen=True, slots=True)
class Form(Checked):
    """A text of this pattern (written with ^ and $); `message` says what to write instead."""

    pattern: str
    message: str

    def check(self, value: str) -> str:
        """Return `value` or raise ValueError."""
        if not fits(self.pattern, value):
            raise ValueError(self.message)
        return value

    def extend(self, schema: JsonSchemaValue) -> None:
        """Add the pattern for tools, and the rule for its message."""
        schema["pattern"] = self.pattern
        rule = {"rule": f"self.matches(r'{self.pattern}')", "message": self.message}
        schema.setdefault(VALIDATIONS, []).append(rule)


@dataclass(frozen=True, slots=True)
class ListMap(Checked):
    """A list whose elements are told apart by `keys`: server-side apply merges element by element."""

    keys: tuple[str, ...]

    def check(self, value: list[Any]) -> list[Any]:
        """Return `value` or raise ValueError."""
        attributes = [to_snake(key) for key in self.keys]
        _refuse_twins(tuple(getattr(one, name) for name in attributes) for one in value)
        return value

    def extend(self, schema: JsonSchemaValue) -> None:
        """Name the keys."""
        schema["x-kubernetes-list-type"] = "map"
        schema["x-kubernetes-list-map-keys"] = list(self.keys)


@dataclass(frozen=True, slots=True)
class ListSet(Checked):
    """A list of scalars without repetition: server-side apply merges them."""

    def check(self, value: list[Any]) -> list[Any]:
        """Return `value` or raise ValueError."""
        _refuse_twins((one,) for one in value)
        return value

    def extend(self, schema: JsonSchemaValue) -> None:
        """Say that it is a set."""
        schema["x-kubernetes-list-type"] = "set"


def _refuse_twins(identities: Iterable[tuple[Hashable, ...]]) -> None:
    seen: set[tuple[Hashable, ...]] = set()
    for identity in identities:
        if identity in seen:
            raise ValueError(f"Duplicate value: {', '.join(map(str, identity))}: write it once")
        seen.add(identity)
