"""What is read of a model, wherever its files are: config.json and its like, safetensors headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tonnage.models import ConfigError, ModelProfile, Weights, parse_config, parse_json
from tonnage.models.safetensors import files_of_index, read_header, sum_weights

CONFIG: Final = "config.json"
QUANTIZATION: Final = "hf_quant_config.json"
INDEX: Final = "model.safetensors.index.json"
SUFFIX: Final = ".safetensors"
MAX_FILES: Final = 1024
_CONSOLIDATED: Final = "consolidated"
_SHARD: Final = re.compile(r".+-[0-9]{5}-of-[0-9]{5}\.safetensors", re.ASCII)
_OTHER_FORMATS: Final = (".bin", ".gguf", ".pt", ".pth", ".onnx", ".h5", ".msgpack")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The JSON header of one safetensors file, and the size of the whole file."""

    name: str
    json: bytes
    file_bytes: int


class Files(Protocol):
    """The files of one model: a directory or a repository. Every method raises `ConfigError` alone."""

    @property
    def where(self) -> str:
        """What to call the place in a message."""
        ...

    def names(self) -> frozenset[str]:
        """Names of the files at the top."""
        ...

    def read(self, name: str) -> bytes:
        """A small file, whole."""
        ...

    def headers(self, names: Sequence[str]) -> Iterable[Header]:
        """The headers of safetensors files; of the tensors no byte is read."""
        ...


def read_profile(files: Files, *, assume_full_attention: bool) -> ModelProfile:
    """The profile of a model. Raises `ConfigError`: what is wrong, where, and what to do."""
    config = parse_json(files.read(CONFIG), what=CONFIG)
    names = files.names()
    quantization = parse_json(files.read(QUANTIZATION), what=QUANTIZATION) if QUANTIZATION in names else None
    shape = parse_config(config, hf_quant_config=quantization, assume_full_attention=assume_full_attention)
    wanted = weight_files(files, names)
    return ModelProfile(shape=shape, weights=_weights(files.headers(wanted)))


def weight_files(files: Files, names: frozenset[str]) -> tuple[str, ...]:
    """The safetensors files that hold the model's weights: those of the index, else all there are.

    Beside files of the usual names, `consolidated*.safetensors` holds the same weights once more.
    """
    if INDEX in names:
        wanted = files_of_index(parse_json(files.read(INDEX), what=INDEX))
    else:
        found = sorted(name for name in names if name.endswith(SUFFIX))
        wanted = tuple(name for name in found if not name.startswith(_CONSOLIDATED)) or tuple(found)
    _check(wanted, names=names, where=files.where)
    return wanted


def _check(wanted: Sequence[str], *, names: frozenset[str], where: str) -> None:
    if not wanted:
        others = sorted({f"*{end}" for end in _OTHER_FORMATS for name in names if name.endswith(end)})
        only = f", only {', '.join(others)}" if others else ""
        raise ConfigError(
            "WeightsMissing",
            f"{where} holds no *{SUFFIX} files{only}: convert the checkpoint, or name one that has them",
        )
    if len(wanted) > MAX_FILES:
        raise ConfigError("WeightsUnreadable", f"{where} has more than {MAX_FILES} safetensors files")
    if INDEX not in names and any(_SHARD.fullmatch(name) for name in wanted):
        raise ConfigError(
            "IndexMissing",
            f"{where} holds {wanted[0]}, one part of several, but no {INDEX}: add it, it says which files "
            "belong together",
        )
    missing = sorted(set(wanted) - names)
    if missing:
        raise ConfigError(
            "WeightsMissing",
            f"{INDEX} names {missing[0]}, which is not in {where}"
            f"{f' ({len(missing)} files are missing)' if len(missing) > 1 else ''}: copy the model again",
        )


def _weights(headers: Iterable[Header]) -> Weights:
    return sum_weights(read_header(one.json, file_bytes=one.file_bytes, what=one.name) for one in headers)
