"""The bundled catalogue: enough models, each with its source, found by name without parsing the rest."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest

from harness.model_catalogue import FILE, MAX_FILE_BYTES, cut, line_of, make_entry
from tonnage.catalogue import Entry, entries, find, names, nearest
from tonnage.models import ConfigError, ModelShape, parse_config
from unit.cli.samples import LLAMA, Run
from unit.models.samples import outcome


def test_at_least_sixty_models_each_with_its_source() -> None:
    every = list(entries())
    assert len(every) >= 60
    for entry in every:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.name, re.ASCII), entry.name
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.repository, re.ASCII), entry.name
        assert re.fullmatch(r"[0-9a-f]{8,40}", entry.commit), entry.name
        assert entry.path
        assert entry.config["architectures"], entry.name


def test_most_are_planned() -> None:
    answers = [outcome(partial(_shape, entry)) for entry in entries()]
    refused = [answer for answer in answers if isinstance(answer, ConfigError)]
    assert len(answers) - len(refused) >= 60
    assert {error.reason for error in refused} <= {"UnknownArchitecture", "UnsupportedAttention"}


def _shape(entry: Entry) -> ModelShape:
    return parse_config(entry.config, hf_quant_config=entry.hf_quant_config)


def test_file_is_small_sorted_and_as_the_tool_writes_it() -> None:
    lines = FILE.read_text().splitlines()
    assert FILE.stat().st_size <= MAX_FILE_BYTES
    assert [line_of(entry) for entry in entries()] == lines
    assert list(names()) == sorted(names(), key=str.lower)
    assert len(set(map(str.lower, names()))) == len(lines)


def test_names_are_found_without_case_and_owner() -> None:
    assert find("Qwen/Qwen3-32B") == find("qwen/QWEN3-32b") == find("qwen3-32b")
    assert find("no/such") is None
    assert find("") is None
    assert find('Qwen3-32B","') is None


def test_nearest_names() -> None:
    assert nearest("Qwen3-32")[0] == "Qwen/Qwen3-32B"
    assert nearest("\x00" * 50) == ()


def test_cutting_keeps_what_sizes_follow_from() -> None:
    config = {**LLAMA, "eos_token_id": [1], "text_config": {"use_cache": True, "head_dim": 4}}
    assert cut(config) == {**LLAMA, "text_config": {"head_dim": 4}}


def test_quantization_in_the_config_goes_before_the_file_beside_it() -> None:
    quantized = {**LLAMA, "quantization_config": {"quant_method": "fp8"}}
    source = ("org/repo", "path", "12345678")
    entry = make_entry("org/model", source=source, config=quantized, quantization={"quantization": {}})
    assert entry.hf_quant_config is None
    assert json.loads(line_of(entry))["name"] == "org/model"


def test_list_tells_what_is_planned(fit: Run) -> None:
    code, output, _ = fit("--list")
    assert code == 0
    assert re.search(r"^Qwen/Qwen3-32B +Qwen3ForCausalLM +planned$", output, re.MULTILINE)
    code, output, _ = fit("--list", "-o", "json")
    models = json.loads(output)["models"]
    assert len(models) == len(names())
    assert {"name", "architecture", "supported", "reason", "repository", "path", "commit"} == set(models[0])


@pytest.mark.parametrize(
    "family", ["llama", "qwen", "mistral", "gemma", "deepseek", "phi", "kimi", "glm", "gpt-oss", "nemotron"]
)
def test_families_that_people_ask_for(family: str) -> None:
    assert any(family in name.lower() for name in names())
