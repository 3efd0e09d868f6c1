"""Kubernetes objects from files: YAML, JSON, Lists; read as kubectl reads them, and within bounds."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from tonnage.cli.errors import UsageError

MAX_FILE_BYTES: Final = 256 * 2**20
_MAX_DEPTH: Final = 64
_SPARE_VALUES: Final = 100_000
"""Values that aliases may add to those that a file has room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One object, and where it was: `chat.yaml, document 2`."""

    body: dict[str, Any]
    where: str

    @property
    def kind(self) -> str:
        """Its kind, `apps/v1 Deployment`; what is missing is left out."""
        return f"{self.body.get('apiVersion', '')} {self.body.get('kind', '')}".strip()


def read_objects(files: Sequence[str]) -> list[Found]:
    """All objects in the files, Lists unfolded; `-` is standard input. Raises UsageError."""
    return [found for file in files for found in _objects(file)]


def _objects(file: str) -> Iterator[Found]:
    name = "standard input" if file == "-" else file
    documents = _documents(_text(file, name), name)
    filled = [(number, each) for number, each in enumerate(documents, start=1) if each is not None]
    if not filled:
        raise UsageError(f"{name} is empty: it holds no object")
    for number, document in filled:
        where = name if len(documents) == 1 else f"{name}, document {number}"
        if not isinstance(document, dict):
            raise UsageError(f"{where} is no Kubernetes object: it has no apiVersion and kind")
        yield from _unfold(document, where)


def _unfold(body: dict[str, Any], where: str) -> Iterator[Found]:
    items = body.get("items")
    if not str(body.get("kind", "")).endswith("List") or not isinstance(items, list):
        yield Found(body=body, where=where)
        return
    # the items of a typed list need not say what they are
    said = {"apiVersion": body.get("apiVersion"), "kind": str(body["kind"]).removesuffix("List")}
    for number, item in enumerate(items, start=1):
        place = f"{where}, item {number}"
        if not isinstance(item, dict):
            raise UsageError(f"{place} is no Kubernetes object")
        yield from _unfold({**said, **item} if said["kind"] else item, place)


def _text(file: str, name: str) -> str:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with open(os.path.expanduser(file), "rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{name} is larger than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{name} is no text in UTF-8") from None


def _documents(text: str, name: str) -> list[Any]:
    try:
        documents = _json(text) if text.lstrip()[:1] == "{" else None
        if documents is None:
            _check_depth(text, name)
            documents = list(yaml.load_all(text, _Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"{name}{place} is no valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{name} is no valid YAML: {str(error)[:200]}") from None
    counter = _Counter(name, most=len(text) + _SPARE_VALUES)
    return [counter.plain(document) for document in documents]


def _check_depth(text: str, name: str) -> None:
    """The loader recurses in C, without a limit of its own. Raises UsageError and YAMLError."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise UsageError(f"{name} is nested too deeply")


def _json(text: str) -> list[Any] | None:
    """The one document of a JSON file: parsed much faster than as YAML; None where it is no JSON."""
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError):
        return None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Times stay text, as JSON has none, and a key that comes twice is an error, as it is for kubectl."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the form that the base class asks for
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                problem = f"the key {key.value[:60]!r} comes twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made


class _Counter:
    """Makes what YAML allows into what JSON allows, within bounds: aliases may unfold without end."""

    def __init__(self, name: str, *, most: int) -> None:
        self._name = name
        self._left = most

    def plain(self, value: Any, depth: int = 0) -> Any:
        """The value, with text as keys. Raises UsageError."""
        self._left -= 1
        if depth > _MAX_DEPTH or self._left < 0:
            raise UsageError(f"{self._name} is nested too deeply, or its aliases unfold to too much")
        if isinstance(value, dict):
            return {self._key(key): self.plain(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list):
            return [self.plain(each, depth + 1) for each in value]
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        raise UsageError(f"{self._name} holds a value that JSON has not: {str(value)[:60]}")

    def _key(self, key: Any) -> str:
        if isinstance(key, bool):
            return str(key).lower()
        if isinstance(key, str | int | float):
            return str(key)
        raise UsageError(f"{self._name} holds a key that is no text: {str(key)[:60]}")
