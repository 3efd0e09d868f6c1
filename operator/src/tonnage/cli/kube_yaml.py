"""YAML and JSON as kubectl reads them, and within bounds.

kubectl turns YAML into JSON by rules of its own (sigs.k8s.io/yaml): times and 1:30 are text, `y` is true, 1e5
a number, a key that comes twice an error. tests/cluster compares each with kubectl's answer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, Final

import yaml

_MAX_DEPTH: Final = 64
_SPARE_VALUES: Final = 100_000
"""Values that aliases may add to those that a text has room for."""
_TAG: Final = "tag:yaml.org,2002:"
_BOOL: Final = re.compile(
    r"y|Y|yes|Yes|YES|true|True|TRUE|on|On|ON|n|N|no|No|NO|false|False|FALSE|off|Off|OFF"
)
_INT: Final = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]+|0[bB][01_]+|[1-9][0-9_]*|0)")
_FLOAT: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_PREFIXES: Final = {"x": 16, "o": 8, "b": 2}


class UnreadableError(ValueError):
    """The text cannot be read; the message says where and why."""


def read_documents(text: str) -> list[Any]:
    """The documents of a text, made of what JSON has. Raises UnreadableError."""
    try:
        documents = _json(text) if text.lstrip()[:1] == "{" else None
        if documents is None:
            _check_depth(text)
            documents = list(yaml.load_all(text, _Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UnreadableError(f"{place} is no valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UnreadableError(f" is no valid YAML: {str(error)[:200]}") from None
    counter = _Counter(most=len(text) + _SPARE_VALUES)
    return [counter.plain(document) for document in documents]


def _json(text: str) -> list[Any] | None:
    """The one document of a JSON text: parsed much faster than as YAML, which tells what is wrong with it."""
    try:
        return [json.loads(text, object_pairs_hook=_distinct)]
    except (ValueError, RecursionError):
        return None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key comes twice")
    return made


def _check_depth(text: str) -> None:
    """The loader recurses in C, without a limit of its own. Raises UnreadableError and YAMLError."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise UnreadableError(" is nested too deeply")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Scalars by kubectl's rules."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the form that the base class asks for
        first: [pair for pair in pairs if pair[0] in {f"{_TAG}null", f"{_TAG}merge"}]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_TAG}merge":
                continue
            if key.value in seen:
                problem = f"the key {key.value[:60]!r} comes twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made


def _whole(text: str) -> int:
    digits = text.replace("_", "").lower()
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    base = _PREFIXES.get(digits[1:2], 8 if digits.startswith("0") else 10)
    if len(digits) > 32:
        raise UnreadableError(f" holds a number that is too large: {digits[:20]}...")
    return sign * int(digits[2:] if digits[1:2] in _PREFIXES else digits, base)


def _fraction(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _scalar(make: Callable[[str], Any], rule: re.Pattern[str]) -> Callable[[Any, Any], Any]:
    def construct(loader: Any, node: Any) -> Any:
        text = loader.construct_scalar(node)
        if not rule.fullmatch(text):  # said by a tag: !!int x
            raise yaml.constructor.ConstructorError(
                None, None, f"{text[:60]!r} is not {node.tag}", node.start_mark
            )
        return make(text)

    return construct


for _name, _rule, _first, _make in (
    ("bool", _BOOL, "yYtToOnNfF", lambda text: text[0] in "yYtT" or text.lower() == "on"),
    ("int", _INT, "-+0123456789", _whole),
    ("float", _FLOAT, "-+0123456789.", _fraction),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"(?:{_rule.pattern})\\Z"), list(_first))
    _Loader.add_constructor(f"{_TAG}{_name}", _scalar(_make, _rule))


class _Counter:
    """Makes what YAML allows into what JSON allows, within bounds: aliases may unfold without end."""

    def __init__(self, *, most: int) -> None:
        self._left = most

    def plain(self, value: Any, depth: int = 0) -> Any:
        """The value, with text as keys. Raises UnreadableError."""
        self._left -= 1
        if depth > _MAX_DEPTH or self._left < 0:
            raise UnreadableError(" is nested too deeply, or its aliases unfold to too much")
        if isinstance(value, dict):
            return {_key(key): self.plain(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list):
            return [self.plain(each, depth + 1) for each in value]
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        raise UnreadableError(f" holds a value that JSON has not: {str(value)[:60]}")


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return str(key).lower()
    if isinstance(key, str | int | float):
        return str(key)
    raise UnreadableError(f" holds a key that is no text: {str(key)[:60]}")
