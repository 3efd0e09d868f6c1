"""Where a model's files come from: a directory, a config.json, the catalogue, or the hub."""

from __future__ import annotations

import os
import os.path
from dataclasses import dataclass
from typing import Any, Final

from tonnage import catalogue
from tonnage.models import ConfigError, parse_json
from tonnage.models.fields import MAX_JSON_BYTES

_CONFIG: Final = "config.json"
_QUANTIZATION: Final = "hf_quant_config.json"
_INDEX: Final = "model.safetensors.index.json"
_SUFFIX: Final = ".safetensors"

REFUSALS: Final = frozenset({"UnknownArchitecture", "UnsupportedAttention", "UnsupportedQuantization"})
"""Reasons of `ConfigError` that mean: read and understood, but not planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """What was read of a model. `origin` is directory, file, catalogue or hub, `source` says where exactly.

    `checkpoint_bytes` are the bytes of all stored tensors, None where no file tells.
    """

    name: str
    origin: str
    source: str
    config: dict[str, Any]
    hf_quant_config: dict[str, Any] | None = None
    checkpoint_bytes: int | None = None


def read_model(name: str, *, revision: str | None = None) -> ModelFiles:
    """Read the files of the model that `name` stands for: a path first, then the catalogue, then the hub;
    with a `revision` the hub at once. Raises `ConfigError`."""
    if revision is None:
        if os.path.isdir(name):
            return _from_directory(name)
        if os.path.isfile(name):
            return _from_file(name)
        if name.endswith(".json") or name.startswith((".", "/", "~")):
            raise ConfigError("ModelPathMissing", f"there is no file or directory {name}")
        entry = catalogue.find(name)
        if entry is not None:
            return ModelFiles(
                name=entry.name,
                origin="catalogue",
                source=entry.source,
                config=entry.config,
                hf_quant_config=entry.hf_quant_config,
            )
    if "/" not in name:
        raise ConfigError("ModelUnknown", f"{name} is neither a path nor in the catalogue; {similar(name)}")
    return _from_hub(name, revision or "main")


def similar(name: str) -> str:
    """Names of the catalogue like this one, as part of a sentence."""
    found = catalogue.nearest(name)
    if not found:
        return "tonnage fit --list shows the catalogue"
    return f"the catalogue has {', '.join(found)} (tonnage fit --list shows all)"


def _from_directory(path: str) -> ModelFiles:
    config = os.path.join(path, _CONFIG)
    if not os.path.isfile(config):
        raise ConfigError("ConfigMissing", f"there is no {_CONFIG} in {path}: name the directory that has it")
    return ModelFiles(
        name=os.path.basename(os.path.abspath(path)),
        origin="directory",
        source=path,
        config=_json(config),
        hf_quant_config=_optional_json(os.path.join(path, _QUANTIZATION)),
        checkpoint_bytes=_checkpoint_bytes(path),
    )


def _from_file(path: str) -> ModelFiles:
    """A config file; NAME_hf_quant_config.json belongs to NAME_config.json."""
    name = os.path.basename(path)
    before = name.removesuffix(_CONFIG) if name.endswith(_CONFIG) else ""
    beside = os.path.join(os.path.dirname(path), f"{before}{_QUANTIZATION}")
    title = before.rstrip("_-.") or os.path.basename(os.path.dirname(os.path.abspath(path)))
    return ModelFiles(
        name=title,
        origin="file",
        source=path,
        config=_json(path),
        hf_quant_config=_optional_json(beside),
    )


def _from_hub(name: str, revision: str) -> ModelFiles:
    from tonnage.cli.hub import Hub, HubError  # noqa: PLC0415 - the network modules are slow to import

    try:
        hub = Hub(name, revision)
        config = hub.json(_CONFIG)
        if config is None:
            raise ConfigError(
                "ConfigMissing", f"the hub has no {_CONFIG} of {name} at {revision}; {similar(name)}"
            )
        index = hub.json(_INDEX)
        return ModelFiles(
            name=name,
            origin="hub",
            source=f"{hub.endpoint}/{name} at {revision}",
            config=config,
            hf_quant_config=hub.json(_QUANTIZATION),
            checkpoint_bytes=stated_bytes(index),
        )
    except HubError as error:
        raise ConfigError(error.reason, f"{error}; {similar(name)}") from None


def _checkpoint_bytes(path: str) -> int | None:
    """Bytes of the tensors in a directory: from the headers of its files, else what the index states."""
    index = _optional_json(os.path.join(path, _INDEX))
    try:
        names = [name for name in os.listdir(path) if name.endswith(_SUFFIX)]
        if not names:
            return stated_bytes(index)
        from tonnage.cli.checkpoint import tensor_bytes  # noqa: PLC0415 - most models are named without one

        return tensor_bytes(path, sorted(names), index=index)
    except OSError as error:
        raise ConfigError("WeightsUnreadable", f"{error.filename}: {error.strerror}") from None


def stated_bytes(index: dict[str, Any] | None) -> int | None:
    """`metadata.total_size` of an index; anything but a sensible number is no statement."""
    metadata = index.get("metadata") if index else None
    stated = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 < stated < 2**60:
        return None
    return int(stated)


def _optional_json(path: str) -> dict[str, Any] | None:
    return _json(path) if os.path.isfile(path) else None


def _json(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ConfigError("ConfigUnreadable", f"{path}: {error.strerror}") from None
    return parse_json(data, what=path)
