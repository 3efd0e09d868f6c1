"""Scalars as kubectl reads them; tests/cluster/test_cli_alone.py asks kubectl about the same."""

from __future__ import annotations

from typing import Any

import pytest

from tonnage.cli.kube_yaml import UnreadableError, read_documents

SCALARS: dict[str, Any] = {
    "1:30": "1:30",
    "1:30.5": "1:30.5",
    "1e5": 100000.0,
    "1.5e3": 1500.0,
    "1e-2": 0.01,
    ".5": 0.5,
    "1.": 1.0,
    "0.0": 0.0,
    "y": True,
    "Yes": True,
    "on": True,
    "TRUE": True,
    "n": False,
    "Off": False,
    "yEs": "yEs",
    "truth": "truth",
    "0o17": 15,
    "017": 15,
    "08": 8.0,
    "1_000": 1000,
    "0x1F": 31,
    "0b11": 3,
    "+5": 5,
    "-0": 0,
    "-12": -12,
    "~": None,
    "null": None,
    "": None,
    "2026-01-01": "2026-01-01",
    "2026-01-01T00:00:00Z": "2026-01-01T00:00:00Z",
    "'1'": "1",
    "=": "=",
    "<<x": "<<x",
    "64Gi": "64Gi",
    "500m": "500m",
    "1e": "1e",
}


@pytest.mark.parametrize("text", SCALARS)
def test_scalars(text: str) -> None:
    read = read_documents(f"a: {text}\n")[0]["a"]
    assert (read, type(read)) == (SCALARS[text], type(SCALARS[text]))


def test_keys_are_text() -> None:
    assert read_documents("1: a\nn: b\n1.5: c\nx: d\n") == [{"1": "a", "false": "b", "1.5": "c", "x": "d"}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: !!int many", "'many' is not tag:yaml.org,2002:int"),
        ("a: .inf", "a value that JSON has not: inf"),
        ("a: " + "9" * 5000, "a number that is too large"),
        ('{"a": 1, "a": 2}', "the key 'a' comes twice"),
        ('{"a": NaN}', "a value that JSON has not: nan"),
        ('{"a": [' * 3000, "nested too deeply"),
        ("a: !!set {x}", "a value that JSON has not"),
        ("a\x00b", "is no valid YAML"),
    ],
)
def test_what_json_has_not_is_refused(text: str, words: str) -> None:
    with pytest.raises(UnreadableError) as refused:
        read_documents(text)
    assert words in str(refused.value)


def test_merge_keys_and_aliases_are_unfolded() -> None:
    assert read_documents("a: &x {q: 1}\nb: {<<: *x, q: 2, r: 3}\nc: *x\n") == [
        {"a": {"q": 1}, "b": {"q": 2, "r": 3}, "c": {"q": 1}}
    ]
