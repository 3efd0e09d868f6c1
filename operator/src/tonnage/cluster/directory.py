"""A model in a directory: a claim that is mounted into the inspection's pod."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from tonnage.cluster.checkpoint import CONFIG, INDEX, Header, read_profile
from tonnage.models import ConfigError, ResolvedModel
from tonnage.models.fields import MAX_JSON_BYTES
from tonnage.models.safetensors import LENGTH_BYTES, header_length

_READABLE = "the files must be readable for every user"


class Directory:
    """The files of a model in a directory (see `checkpoint.Files`).

    `revision` changes whenever a file is replaced that was read: by content, for weights by header, size and
    time of change.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise ConfigError("ModelPathMissing", _missing(path))
        self._path = path
        self._digest = hashlib.sha256()

    @property
    def where(self) -> str:
        """The directory's path."""
        return str(self._path)

    @property
    def revision(self) -> str:
        """Identity of all that was read so far."""
        return f"files-{self._digest.hexdigest()[:12]}"

    def names(self) -> frozenset[str]:
        """Names of the files in the directory."""
        try:
            return frozenset(entry.name for entry in self._path.iterdir())
        except OSError as error:
            raise ConfigError("ModelUnreadable", f"{self._path}: {error.strerror}; {_READABLE}") from None

    def read(self, name: str) -> bytes:
        """A small file, whole."""
        try:
            with (self._path / name).open("rb") as file:
                data = file.read(MAX_JSON_BYTES + 1)
        except FileNotFoundError:
            raise ConfigError(
                "ConfigMissing",
                f"there is no {name} in {self._path}: name the directory that holds the model",
            ) from None
        except OSError as error:
            reason = "ConfigUnreadable" if name in (CONFIG, INDEX) else "ModelUnreadable"
            raise ConfigError(reason, f"{self._path / name}: {error.strerror}; {_READABLE}") from None
        self._note(name, data)
        return data

    def headers(self, names: Sequence[str]) -> Iterable[Header]:
        """The headers of safetensors files."""
        return (self._header(name) for name in names)

    def _header(self, name: str) -> Header:
        path = self._path / name
        try:
            with path.open("rb") as file:
                data = file.read(header_length(file.read(LENGTH_BYTES), what=name))
            stat = path.stat()
        except OSError as error:
            raise ConfigError("WeightsUnreadable", f"{path}: {error.strerror}; {_READABLE}") from None
        self._note(name, data, stat.st_size, stat.st_mtime_ns)
        return Header(name=name, json=data, file_bytes=stat.st_size)

    def _note(self, name: str, data: bytes, *figures: int) -> None:
        self._digest.update(repr((name, len(data), figures)).encode())
        self._digest.update(data)


def inspect_directory(path: Path, *, assume_full_attention: bool = False) -> ResolvedModel:
    """The model in a directory; ConfigError says what is wrong, where, and what to do."""
    files = Directory(path)
    profile = read_profile(files, assume_full_attention=assume_full_attention)
    return ResolvedModel(profile=profile, revision=files.revision)


def _missing(path: Path) -> str:
    parent = path
    while not parent.is_dir():
        parent = parent.parent
    try:
        found = sorted(entry.name for entry in parent.iterdir())[:8]
    except OSError:
        found = []
    return f"there is no directory {path}; {parent} holds: {', '.join(found) or 'nothing'}"
