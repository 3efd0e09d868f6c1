"""What `tonnage fit` says when it is asked the wrong way: what was wrong, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.cli.samples import Run, model_directory


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name a MODEL"),
        (("Qwen/Qwen3-8B", "--gpu", "H900"), "known: V100-16GB, V100-32GB, T4"),
        (("Qwen/Qwen3-8B", "--cpu"), "--cpu needs --kv-bytes"),
        (("Qwen/Qwen3-8B", "--gpu", "H100", "--compute-capability", "8.0"), "compute capability 9.0"),
        (("Qwen/Qwen3-8B", "--kv-bytes", "1GiB", "--gpu", "L4", "--gpu", "T4"), "one --gpu at most"),
        (("Qwen/Qwen3-8B", "--gpu", "L4", "--device-memory", "1GiB"), "leave out --gpu"),
        (("Qwen/Qwen3-8B", "--what-if", "layers=3"), "kv_heads=N"),
        (("Qwen/Qwen3-8B", "--svg", "/tmp/x.svg", "--kv-bytes", "1GiB"), "--svg draws cards"),
        (("Qwen3-9000B",), "the catalogue has Qwen/"),
        (("/no/such/place",), "there is no file or directory /no/such/place"),
        (("./config.json",), "there is no file or directory"),
        (("zzz",), "tonnage fit --list"),
    ],
)
def test_wrong_usage_ends_in_two(fit: Run, arguments: tuple[str, ...], words: str) -> None:
    code, output, complaint = fit(*arguments)
    assert (code, output) == (2, "")
    assert complaint.startswith("tonnage fit: ")
    assert words in complaint


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--kv-bytes", "-1"),
        ("--kv-bytes", "many"),
        ("--kv-bytes", "nanGiB"),
        ("--kv-bytes", "9" * 30),
        ("--tensor-parallel", "0"),
        ("--context", "-2"),
        ("--context", "٣"),
        ("--gpu-memory-utilization", "1.5"),
        ("--gpu-memory-utilization", "nan"),
        ("--compute-capability", "nine"),
        ("-o", "xml"),
    ],
)
def test_values_out_of_range_are_refused(fit: Run, option: str, value: str) -> None:
    code, output, complaint = fit("Qwen/Qwen3-8B", f"{option}={value}" if option != "-o" else f"-o{value}")
    assert (code, output) == (2, "")
    assert "error: argument" in complaint


def test_directory_without_config_is_named(fit: Run, tmp_path: Path) -> None:
    code, _, complaint = fit(str(tmp_path))
    assert code == 2
    assert f"there is no config.json in {tmp_path}" in complaint


def test_picture_that_cannot_be_written_is_named(fit: Run, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "x.svg"
    code, _, complaint = fit(str(model_directory(tmp_path)), "--svg", str(path))
    assert code == 2
    assert "cannot be written" in complaint


def test_control_characters_do_not_reach_the_terminal(fit: Run) -> None:
    _, _, complaint = fit("./\x1b[31mred")
    assert "\x1b" not in complaint
