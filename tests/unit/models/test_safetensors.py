"""Headers and indexes of safetensors checkpoints."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonnage.models import ConfigError, Weights
from tonnage.models.safetensors import files_of_index, header_length, read_header, sum_weights
from unit.models.samples import outcome


def header_of(**tensors: Any) -> bytes:
    return json.dumps(tensors).encode()


def tensor(dtype: str, shape: list[Any], begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def read(header: bytes, data_bytes: int) -> Weights:
    return read_header(header, file_bytes=8 + len(header) + data_bytes, what="m.safetensors")


def test_bytes_by_dtype_and_parameters() -> None:
    header = header_of(
        a=tensor("BF16", [4, 8], 0, 64),
        b=tensor("F32", [], 64, 68),
        c=tensor("BF16", [2], 68, 72),
        d=tensor("F4", [3, 2], 72, 75),
        __metadata__={"format": "pt"},
    )
    weights = read(header, 75)
    assert weights == Weights(bytes_by_dtype=(("BF16", 68), ("F32", 4), ("F4", 3)), parameters=41)
    assert weights.total_bytes == 75


def test_an_empty_file_has_no_weights() -> None:
    assert read(b"{}", 0) == Weights(bytes_by_dtype=(), parameters=0)


@pytest.mark.parametrize(
    ("tensors", "data_bytes", "says"),
    [
        ({"a": tensor("BF16", [4], 0, 8)}, 6, "truncated"),
        ({"a": tensor("BF16", [4], 0, 8)}, 9, "truncated or damaged"),
        ({"a": tensor("BF16", [4], 0, 7)}, 7, "but 7 bytes"),
        ({"a": tensor("BF16", [4], 2, 10)}, 10, "gap"),
        ({"a": tensor("BF16", [4], 0, 8), "b": tensor("BF16", [4], 4, 12)}, 12, "overlap"),
        ({"a": tensor("Q9", [4], 0, 8)}, 8, "Q9"),
        ({"a": tensor("BF16", [True, 4], 0, 8)}, 8, "whole numbers"),
        ({"a": tensor("BF16", [-4], 0, 8)}, 8, "whole numbers"),
        ({"a": tensor("BF16", [2.0, 2], 0, 8)}, 8, "whole numbers"),
        ({"a": tensor("BF16", [4], 8, 0)}, 8, "begin and an end"),
        ({"a": {"dtype": "BF16", "shape": [4]}}, 8, "data_offsets"),
        ({"a": 7}, 8, "not described"),
        ({"a": tensor("BF16", [2**60], 0, 8)}, 8, "whole numbers"),
    ],
)
def test_damaged_headers_are_refused(tensors: dict[str, Any], data_bytes: int, says: str) -> None:
    with pytest.raises(ConfigError, match=r"m\.safetensors") as caught:
        read(header_of(**tensors), data_bytes)
    assert caught.value.reason == "WeightsInvalid"
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        (b"abc", "too few"),
        (b"\xff" * 8, "declares a header of"),
        (b"\x01" + b"\0" * 7, "declares a header of 1 bytes"),
    ],
)
def test_header_length_is_bounded(prefix: bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        header_length(prefix, what="m.safetensors")


def test_header_length_is_little_endian() -> None:
    assert header_length((300).to_bytes(8, "little") + b"{", what="m.safetensors") == 300


def test_index_names_each_file_once() -> None:
    index = {
        "weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}
    }
    assert files_of_index(index) == ("model-1.safetensors", "model-2.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "../x.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "x.bin",
        ".safetensors",
        "",
        3,
        None,
        "a\n.safetensors",
    ],
)
def test_index_names_that_leave_the_directory_are_refused(name: object) -> None:
    with pytest.raises(ConfigError) as caught:
        files_of_index({"weight_map": {"a": name}})
    assert caught.value.reason == "WeightsInvalid"


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": None}])
def test_index_without_a_map_is_refused(index: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="weight_map"):
        files_of_index(index)


SIZES = st.lists(st.tuples(st.sampled_from(["BF16", "F32", "I8"]), st.integers(0, 50)), max_size=8)
WIDTH = {"BF16": 2, "F32": 4, "I8": 1}


@given(SIZES, st.integers(0, 8))
def test_a_checkpoint_weighs_the_same_however_it_is_split(sizes: list[tuple[str, int]], cut: int) -> None:
    def weights(part: list[tuple[str, int]]) -> Weights:
        tensors, position = {}, 0
        for number, (dtype, elements) in enumerate(part):
            end = position + elements * WIDTH[dtype]
            tensors[f"t{number}"] = tensor(dtype, [elements], position, end)
            position = end
        return read(header_of(**tensors), position)

    assert sum_weights([weights(sizes[:cut]), weights(sizes[cut:])]) == weights(sizes)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200)
@given(
    entry=JSON | st.fixed_dictionaries({"dtype": JSON, "shape": JSON, "data_offsets": JSON}),
    data_bytes=st.integers(0, 64),
)
def test_hostile_headers_raise_nothing_but_config_error(entry: Any, data_bytes: int) -> None:
    weights = outcome(lambda: read(header_of(a=entry), data_bytes))
    if isinstance(weights, ConfigError):
        assert weights.reason in {"WeightsInvalid", "ConfigUnreadable"}
    else:
        assert weights.total_bytes == data_bytes
