"""Kubernetes objects from files: documents and Lists."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tonnage.cli.errors import UsageError
from tonnage.cli.kube_yaml import UnreadableError, read_documents

MAX_FILE_BYTES: Final = 256 * 2**20


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
    try:
        documents = read_documents(_text(file, name))
    except UnreadableError as error:
        raise UsageError(f"{name}{error}") from None
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
