"""Sizes of a checkpoint from the headers of its safetensors files; the bytes are read elsewhere.

Format: 8 bytes little-endian header length, a JSON header, the tensor data (huggingface/safetensors,
"Format").
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from tonnage.models.errors import ConfigError
from tonnage.models.fields import MAX_JSON_BYTES, Fields, parse_json
from tonnage.models.profile import Weights

LENGTH_BYTES: Final = 8
MAX_HEADER_BYTES: Final = MAX_JSON_BYTES
_MAX_TENSOR_BYTES: Final = 2**50
_MAX_FILES: Final = 10_000
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\.safetensors", re.ASCII)

ELEMENT_BITS: Final[Mapping[str, int]] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "I8": 8,
    "U8": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits of one element by safetensors dtype name."""


def header_length(prefix: bytes, *, what: str) -> int:
    """Bytes of the JSON header, from the first 8 bytes of the file. Raises `ConfigError` (WeightsInvalid)."""
    if len(prefix) < LENGTH_BYTES:
        raise _invalid(what, f"has {len(prefix)} bytes, too few for a safetensors file")
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise _invalid(what, f"declares a header of {length} bytes, outside 2 to {MAX_HEADER_BYTES}")
    return length


def read_header(header: bytes, *, file_bytes: int, what: str) -> Weights:
    """Bytes by dtype and parameters of one file, from its JSON header and its size.

    The tensors must fill the data section without gap or overlap, as the format demands: a truncated
    download is noticed here and not by an engine minutes later. Raises `ConfigError`.
    """
    tensors = parse_json(header, what=f"{what} header", max_bytes=MAX_HEADER_BYTES)
    data_bytes = file_bytes - LENGTH_BYTES - len(header)
    bytes_by_dtype: dict[str, int] = {}
    parameters = 0
    spans: list[tuple[int, int]] = []
    for name, entry in tensors.items():
        if name == "__metadata__":
            continue
        dtype, elements, span = _tensor(entry, what=f"{what}: tensor {name[:80]!r}")
        bytes_by_dtype[dtype] = bytes_by_dtype.get(dtype, 0) + span[1] - span[0]
        parameters += elements
        spans.append(span)
    _check_spans(spans, data_bytes=data_bytes, what=what)
    return Weights(bytes_by_dtype=tuple(sorted(bytes_by_dtype.items())), parameters=parameters)


def files_of_index(index: Mapping[str, object]) -> tuple[str, ...]:
    """The file names in model.safetensors.index.json, sorted; names that leave the directory are refused."""
    weight_map = Fields(index, where="model.safetensors.index.json", reason="WeightsInvalid").optional_object(
        "weight_map"
    )
    if not weight_map:
        raise _invalid("model.safetensors.index.json", "has no weight_map")
    names: set[str] = set()
    for file in weight_map.values():
        if not isinstance(file, str) or not _FILE_NAME.fullmatch(file):
            shown = repr(file[:80]) if isinstance(file, str) else type(file).__name__
            raise _invalid(
                "model.safetensors.index.json", f"names {shown}, not a .safetensors file beside it"
            )
        names.add(file)
    if len(names) > _MAX_FILES:
        raise _invalid("model.safetensors.index.json", f"names {len(names)} files, more than {_MAX_FILES}")
    return tuple(sorted(names))


def sum_weights(parts: Iterable[Weights]) -> Weights:
    """The weights of several files together."""
    bytes_by_dtype: dict[str, int] = {}
    parameters = 0
    for part in parts:
        parameters += part.parameters
        for dtype, stored_bytes in part.bytes_by_dtype:
            bytes_by_dtype[dtype] = bytes_by_dtype.get(dtype, 0) + stored_bytes
    return Weights(bytes_by_dtype=tuple(sorted(bytes_by_dtype.items())), parameters=parameters)


def _tensor(entry: object, *, what: str) -> tuple[str, int, tuple[int, int]]:
    """(dtype, elements, (begin, end)) of one header entry."""
    if not isinstance(entry, dict):
        raise _invalid(what, "is not described by an object")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in ELEMENT_BITS:
        raise _invalid(what, f"has dtype {str(dtype)[:40]!r}, which safetensors does not define")
    shape = _naturals(entry.get("shape"), what=f"{what} shape", max_items=16)
    offsets = _naturals(entry.get("data_offsets"), what=f"{what} data_offsets", max_items=2)
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _invalid(what, "has data_offsets that are not a begin and an end")
    elements = math.prod(shape)
    if elements * ELEMENT_BITS[dtype] != (offsets[1] - offsets[0]) * 8:
        raise _invalid(what, f"has shape {list(shape)} of {dtype} but {offsets[1] - offsets[0]} bytes")
    return dtype, elements, (offsets[0], offsets[1])


def _naturals(value: object, *, what: str, max_items: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > max_items:
        raise _invalid(what, f"is not a list of at most {max_items} numbers")
    for item in value:
        if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item <= _MAX_TENSOR_BYTES:
            raise _invalid(what, "holds something else than whole numbers of a sensible size")
    return tuple(value)


def _check_spans(spans: list[tuple[int, int]], *, data_bytes: int, what: str) -> None:
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise _invalid(what, f"has tensors that overlap or leave a gap at byte {position}")
        position = end
    if position != data_bytes:
        raise _invalid(
            what,
            f"holds {max(data_bytes, 0)} bytes of tensors but describes {position}: truncated or damaged",
        )


def _invalid(where: str, problem: str) -> ConfigError:
    return ConfigError("WeightsInvalid", f"{where} {problem}")
