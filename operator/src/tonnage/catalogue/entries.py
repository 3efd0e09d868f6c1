"""Reads the bundled models.jsonl: one model a line, so that one is found without parsing the others.

The file is kept by tests/harness/model_catalogue.py.
"""

from __future__ import annotations

import json
import os.path
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

_FILE: Final = os.path.join(os.path.dirname(__file__), "models.jsonl")
_BEFORE_NAME: Final = b'{"name":"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model of the catalogue: the fields of its config.json that sizes follow from.

    `name` is its id on the Hugging Face hub; `repository`, `path` and `commit` say where the file was
    published. `hf_quant_config` is ModelOpt's file beside it, if there is one.
    """

    name: str
    repository: str
    path: str
    commit: str
    config: dict[str, Any]
    hf_quant_config: dict[str, Any] | None

    @property
    def source(self) -> str:
        """Where the config was published, in one line."""
        return f"{self.repository}@{self.commit[:8]} {self.path}"


def find(name: str) -> Entry | None:
    """The entry with this name; case does not matter, and the owner may be left out where one model has
    the rest of the name."""
    wanted = name.lower()
    lines = {_name(line): line for line in _lines()}
    same = [known for known in lines if known.lower() == wanted]
    if not same:
        same = [known for known in lines if known.lower().rpartition("/")[2] == wanted]
    return _entry(lines[same[0]]) if len(same) == 1 else None


def names() -> tuple[str, ...]:
    """All names, sorted."""
    return tuple(_name(line) for line in _lines())


def nearest(name: str, *, most: int = 4) -> tuple[str, ...]:
    """Names like this one, the likest first."""
    from difflib import SequenceMatcher  # noqa: PLC0415 - only errors need it

    wanted = name.lower().rpartition("/")[2]
    matcher = SequenceMatcher(b=wanted)
    likeness = {}
    for known in names():
        matcher.set_seq1(known.lower().rpartition("/")[2])
        likeness[known] = matcher.ratio()
    likest = sorted(likeness, key=lambda known: (-likeness[known], known))
    return tuple(known for known in likest[:most] if likeness[known] >= 0.5)


def entries() -> Iterator[Entry]:
    """All entries, sorted by name."""
    return map(_entry, _lines())


def _lines() -> list[bytes]:
    with open(_FILE, "rb") as file:
        return file.read().splitlines()


def _name(line: bytes) -> str:
    begin = len(_BEFORE_NAME)
    return line[begin : line.index(b'"', begin)].decode()


def _entry(line: bytes) -> Entry:
    fields = json.loads(line)
    return Entry(
        name=fields["name"],
        repository=fields["repository"],
        path=fields["path"],
        commit=fields["commit"],
        config=fields["config"],
        hf_quant_config=fields.get("hf_quant_config"),
    )
