"""Where a model is read from: directory, file, catalogue, hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tonnage.cli.model import read_model
from tonnage.models import ConfigError
from unit.cli.samples import LLAMA, model_directory, safetensors

QUANTIZATION = {"quantization": {"quant_algo": "FP8"}}


def test_directory_with_everything(tmp_path: Path) -> None:
    path = model_directory(tmp_path / "my-model")
    (path / "hf_quant_config.json").write_text(json.dumps(QUANTIZATION))
    (path / "model.safetensors").write_bytes(safetensors(elements=10))
    files = read_model(str(path))
    assert (files.name, files.origin, files.source) == ("my-model", "directory", str(path))
    assert files.config == LLAMA
    assert files.hf_quant_config == QUANTIZATION
    assert files.checkpoint_bytes == 20


def test_index_stands_for_files_that_are_not_there(tmp_path: Path) -> None:
    path = model_directory(tmp_path)
    index = {"metadata": {"total_size": 1234}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_model(str(path)).checkpoint_bytes == 1234
    (path / "model-00001-of-00002.safetensors").write_bytes(safetensors(elements=7))
    assert read_model(str(path)).checkpoint_bytes == 14


@pytest.mark.parametrize("stated", [-1, True, "x", None, 2**80, {}])
def test_nonsense_in_an_index_is_no_statement(tmp_path: Path, stated: object) -> None:
    path = model_directory(tmp_path)
    index = {"metadata": {"total_size": stated}, "weight_map": {"a": "b.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_model(str(path)).checkpoint_bytes is None


def test_file_and_the_quantization_beside_it(tmp_path: Path) -> None:
    config = tmp_path / "org--model_config.json"
    config.write_text(json.dumps(LLAMA))
    assert read_model(str(config)).hf_quant_config is None
    (tmp_path / "org--model_hf_quant_config.json").write_text(json.dumps(QUANTIZATION))
    files = read_model(str(config))
    assert (files.name, files.origin) == ("org--model", "file")
    assert files.hf_quant_config == QUANTIZATION


def test_plain_config_file_is_named_after_its_directory(tmp_path: Path) -> None:
    path = model_directory(tmp_path / "nice")
    (path / "hf_quant_config.json").write_text(json.dumps(QUANTIZATION))
    files = read_model(str(path / "config.json"))
    assert (files.name, files.hf_quant_config) == ("nice", QUANTIZATION)


def test_catalogue_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    files = read_model("qwen/qwen3-32b")
    assert (files.name, files.origin) == ("Qwen/Qwen3-32B", "catalogue")
    assert "@" in files.source
    model_directory(tmp_path / "Qwen" / "Qwen3-32B")
    assert read_model("Qwen/Qwen3-32B").origin == "directory"


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = model_directory(tmp_path)
    (path / "model.safetensors").write_bytes(safetensors(elements=10)[:-1])
    with pytest.raises(ConfigError, match="truncated or damaged"):
        read_model(str(path))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    path = model_directory(tmp_path)
    (path / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError) as refused:
        read_model(str(path))
    assert refused.value.reason == "ConfigUnreadable"
    assert "config.json" in refused.value.message
