"""Sizes of a checkpoint from the headers of its safetensors files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from tonnage.cli.model import stated_bytes
from tonnage.models import ConfigError
from tonnage.models.safetensors import files_of_index, header_length, read_header

_MAX_FILES: Final = 4096


def tensor_bytes(path: str, names: Sequence[str], *, index: dict[str, Any] | None) -> int | None:
    """Bytes of all tensors in the files of a directory: those that its index names, if it has one. Where
    some are missing, what the index states. Raises `ConfigError` and `OSError`."""
    wanted = names if index is None else files_of_index(index)
    if len(wanted) > _MAX_FILES:
        raise ConfigError("WeightsUnreadable", f"{path} has more than {_MAX_FILES} safetensors files")
    if not set(wanted) <= set(names):
        return stated_bytes(index)
    return sum(_file_bytes(os.path.join(path, name)) for name in wanted)


def _file_bytes(path: str) -> int:
    name = os.path.basename(path)
    with open(path, "rb") as file:
        header = file.read(header_length(file.read(8), what=name))
        return read_header(header, file_bytes=os.fstat(file.fileno()).st_size, what=name).total_bytes
