"""Read a model's facts where the model is: config.json and safetensors headers, never a weight.

Runs in the inspection Job (`python -m tonnage.cluster.inspection --path DIR`). The result is one line of JSON
in the pod's termination message: {"model": "<profile as in models.wire>"} or
{"error": {"reason": ..., "message": ...}}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tonnage.models import ConfigError, ModelProfile, Weights, parse_config, parse_json
from tonnage.models.safetensors import files_of_index, header_length, read_header, sum_weights
from tonnage.models.wire import decode_wire, encode_wire

TERMINATION_LOG = Path("/dev/termination-log")
MAX_JSON_BYTES = 16 * 2**20
MAX_FILES = 1024
_ERROR_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a model could not be read: `reason` for programs, `message` with the remedy for people."""

    reason: str
    message: str


def inspect(path: Path, *, assume_full_attention: bool = False) -> ModelProfile:
    """The profile of the model in a directory; ConfigError says what is wrong, where, and what to do."""
    if not path.is_dir():
        raise ConfigError("ModelPathMissing", _missing(path))
    config = parse_json(_read(path / "config.json"), what="config.json")
    shape = parse_config(config, assume_full_attention=assume_full_attention)
    return ModelProfile(shape=shape, weights=_weights(path))


def _missing(path: Path) -> str:
    parent = path
    while not parent.is_dir():
        parent = parent.parent
    try:
        found = sorted(entry.name for entry in parent.iterdir())[:8]
    except OSError:
        found = []
    return f"there is no directory {path}; {parent} holds: {', '.join(found) or 'nothing'}"


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ConfigError(
                "ConfigUnreadable", f"{path} is larger than {MAX_JSON_BYTES} bytes: not a config"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            "ConfigMissing",
            f"there is no {path.name} in {path.parent}: name the directory that holds the model",
        ) from None
    except OSError as error:
        raise ConfigError(
            "ConfigUnreadable", f"{path}: {error.strerror}; the files must be readable for every user"
        ) from None


def _weights(path: Path) -> Weights:
    index = path / "model.safetensors.index.json"
    if index.exists():
        names = files_of_index(parse_json(_read(index), what=index.name))
    else:
        names = tuple(sorted(file.name for file in path.glob("*.safetensors")))
    if not names:
        raise ConfigError("WeightsMissing", f"{path} holds no *.safetensors files: convert the checkpoint")
    if len(names) > MAX_FILES:
        raise ConfigError("WeightsUnreadable", f"{path}: more than {MAX_FILES} safetensors files")
    return sum_weights(_file_weights(path / name) for name in names)


def _file_weights(path: Path) -> Weights:
    try:
        with path.open("rb") as file:
            header = _header(file, what=path.name)
        return read_header(header, file_bytes=path.stat().st_size, what=path.name)
    except FileNotFoundError:
        raise ConfigError(
            "WeightsMissing", f"the index names {path.name}, which is not in {path.parent}: copy it again"
        ) from None
    except OSError as error:
        raise ConfigError(
            "WeightsUnreadable", f"{path}: {error.strerror}; the files must be readable for every user"
        ) from None


def _header(file: BinaryIO, *, what: str) -> bytes:
    return file.read(header_length(file.read(8), what=what))


def encode(result: ModelProfile | Failure) -> str:
    """The termination message of a result, at most 4,096 bytes."""
    if isinstance(result, Failure):
        text = result.message.encode()[:_ERROR_BYTES].decode(errors="ignore")
        return json.dumps({"error": {"reason": result.reason, "message": text}})
    try:
        return json.dumps({"model": encode_wire(result)}, separators=(",", ":"))
    except ConfigError:
        return encode(
            Failure(reason="ModelTooIrregular", message="the layers differ too much to be described in 4 KiB")
        )


def decode(message: str) -> ModelProfile | Failure:
    """The result in a termination message; anything unreadable is a failure too."""
    try:
        data: Any = json.loads(message)
        if "error" in data:
            return Failure(reason=str(data["error"]["reason"]), message=str(data["error"]["message"]))
        return decode_wire(str(data["model"]))
    except ConfigError as error:
        return Failure(reason=error.reason, message=error.message)
    except (KeyError, TypeError, ValueError):
        text = message[:200] or "nothing"
        return Failure(
            reason="InspectionUnreadable", message=f"the inspection wrote {text!r} instead of a result"
        )


def main(arguments: list[str] | None = None) -> int:
    """Inspect, and write the result to the termination log (stdout where there is none)."""
    parser = argparse.ArgumentParser(prog="tonnage.cluster.inspection", description=__doc__)
    parser.add_argument("--path", type=Path, required=True, help="directory of the model")
    parser.add_argument("--assume-full-attention", action="store_true")
    options = parser.parse_args(arguments)
    result: ModelProfile | Failure
    try:
        result = inspect(options.path, assume_full_attention=options.assume_full_attention)
    except ConfigError as error:
        result = Failure(reason=error.reason, message=error.message)
    except OSError as error:
        text = f"{error.filename}: {error.strerror}; files and directories must be readable for every user"
        result = Failure(reason="ModelUnreadable", message=text)
    message = encode(result)
    sys.stdout.write(message + "\n")
    if os.access(TERMINATION_LOG, os.W_OK):
        TERMINATION_LOG.write_text(message)
    return 0


if __name__ == "__main__":
    sys.exit(main())
