"""The machine form of `tonnage fit`: keys, values and exit codes that programs rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tonnage.cli.document import document
from unit.cli.samples import GIB, LLAMA, Run, answer, model_directory, question, safetensors

DOCUMENTED = (Path(__file__).parents[3] / "docs" / "machine-output.md").read_text()
KEYS = {
    "model",
    "supported",
    "fits",
    "reason",
    "message",
    "bytes_per_block",
    "num_blocks",
    "kv_tokens",
    "max_concurrency",
    "groups",
    "weights_bytes_per_rank",
    "weights_bytes_by_stage",
    "available_kv_bytes",
    "kv_bytes",
    "estimated_max_context",
    "block_size",
    "context",
    "kv_dtype",
    "attention_backends",
    "max_num_seqs",
    "max_num_batched_tokens",
    "engine_version",
    "engine_rules",
    "assumed",
    "gpu",
    "gpu_memory_bytes",
    "gpu_memory_utilization",
    "compute_capability",
}


def told(fit: Run, *arguments: str) -> tuple[int, dict[str, Any]]:
    code, output, _ = fit(*arguments, "-o", "json")
    document: dict[str, Any] = json.loads(output)
    return code, document


def test_keys_are_those_documented(fit: Run, tmp_path: Path) -> None:
    _, given = told(fit, str(model_directory(tmp_path)), "--kv-bytes", "1GiB")
    assert set(given) == KEYS | {"saved"}
    for key in [*given, *given["saved"], *given["groups"][0], *given["available_kv_bytes"], *given["model"]]:
        assert f"`{key}`" in DOCUMENTED, key


def test_document_of_an_answer_made_by_hand() -> None:
    shown = document(question(), answer())
    assert set(shown) == KEYS
    assert shown["num_blocks"] == 1000
    assert shown["kv_tokens"] == 16000
    assert shown["max_concurrency"] == 3.90625
    assert shown["bytes_per_block"] == 65536
    assert shown["weights_bytes_per_rank"] == 10 * GIB
    assert shown["weights_bytes_by_stage"] == [10 * GIB, 11 * GIB]
    assert shown["available_kv_bytes"] == {"estimate": 65_536_000, "lower": 65_536_000, "upper": 65_536_000}
    assert shown["groups"] == [
        {"kind": "full", "layers": 4, "block_tokens": 16, "page_bytes": 16384, "blocks_per_request": 256}
    ]
    assert (shown["engine_version"], shown["engine_rules"], shown["assumed"]) == ("0.32.0", "0.32.0", False)


def test_upper_bounds_are_told_apart_from_estimates() -> None:
    shown = document(question(), answer(exact=False, card="H100-80GB"))
    assert shown["available_kv_bytes"] == {"estimate": None, "lower": None, "upper": 65_536_000}
    assert (shown["gpu"], shown["gpu_memory_bytes"], shown["gpu_memory_utilization"]) == (
        "H100-80GB",
        80 * GIB,
        0.9,
    )
    assert shown["compute_capability"] == "9.0"


def test_refusal_by_the_engine_has_no_figures() -> None:
    refused = answer(
        fits=False, supported=False, reason="tp_not_divisible", message="no", weights_bytes_by_stage=None
    )
    shown = document(question(), refused)
    assert (shown["supported"], shown["fits"], shown["reason"]) == (False, False, "tp_not_divisible")
    assert shown["kv_bytes"] is None
    assert shown["weights_bytes_per_rank"] is None


def test_figures_follow_from_the_bytes_given(fit: Run, tmp_path: Path) -> None:
    code, given = told(fit, str(model_directory(tmp_path)), "--kv-bytes", str(2**30), "--context", "2048")
    assert code == 0
    assert given["fits"]
    page = 16 * 2 * (64 + 64) * 2
    assert given["bytes_per_block"] == 4 * page
    assert given["num_blocks"] == 2**30 // (4 * page)
    assert given["context"] == 2048
    assert given["max_concurrency"] == given["num_blocks"] / 128
    assert given["kv_dtype"] == "auto"
    assert given["saved"]["factor"] == 4.0


def test_too_few_bytes_end_in_one(fit: Run, tmp_path: Path) -> None:
    code, given = told(fit, str(model_directory(tmp_path)), "--kv-bytes", "1MiB")
    assert code == 1
    assert (given["supported"], given["fits"], given["reason"]) == (True, False, "kv_cache_too_small")
    assert given["estimated_max_context"] < given["context"]


def test_unknown_architecture_ends_in_three_and_names_it(fit: Run, tmp_path: Path) -> None:
    path = model_directory(tmp_path, {**LLAMA, "architectures": ["MadeUpForCausalLM"]})
    code, given = told(fit, str(path), "--kv-bytes", "1GiB")
    assert code == 3
    assert set(given) >= KEYS - {"gpu", "gpu_memory_bytes", "gpu_memory_utilization", "compute_capability"}
    assert (given["supported"], given["reason"]) == (False, "UnknownArchitecture")
    assert "MadeUpForCausalLM" in given["message"]
    assert given["num_blocks"] is None


def test_unreadable_model_ends_in_two(fit: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    code, given = told(fit, str(tmp_path), "--kv-bytes", "1GiB")
    assert (code, given["reason"]) == (2, "ConfigUnreadable")


def test_engine_refusal_ends_in_three(fit: Run, tmp_path: Path) -> None:
    path = str(model_directory(tmp_path))
    code, given = told(fit, path, "--kv-bytes", "1GiB", "--tensor-parallel", "3")
    assert (code, given["reason"]) == (3, "tp_not_divisible")
    code, given = told(fit, path, "--kv-bytes", "1GiB", "--context", "8192")
    assert (code, given["reason"]) == (3, "len_over_derived_max")


def test_card_gives_an_upper_bound(fit: Run, tmp_path: Path) -> None:
    code, given = told(
        fit, str(model_directory(tmp_path)), "--gpu", "H100", "--gpu-memory-utilization", "0.5"
    )
    assert code == 0
    assert given["gpu"] == "H100-80GB"
    available = given["available_kv_bytes"]
    assert available["estimate"] is None
    assert available["lower"] is None
    assert available["upper"] == int(given["gpu_memory_bytes"] * 0.5) - given["weights_bytes_per_rank"]
    assert given["kv_bytes"] == available["upper"]


def test_weights_larger_than_the_share_are_named(fit: Run) -> None:
    code, given = told(fit, "Qwen/Qwen3-32B", "--gpu", "L4")
    assert code == 1
    assert (given["supported"], given["fits"], given["reason"]) == (True, False, "weights_too_large")
    assert given["available_kv_bytes"]["upper"] == 0
    assert "quantized" in given["message"]


def test_several_cards_make_a_list(fit: Run, tmp_path: Path) -> None:
    path = str(model_directory(tmp_path))
    _, named = told(fit, path, "--gpu", "L4", "--gpu", "H200")
    assert {each["gpu"] for each in named["cards"]} == {"L4", "H200"}
    assert {each["kv_dtype"] for each in named["cards"]} >= {"auto"}
    _, common = told(fit, path)
    assert len({each["gpu"] for each in common["cards"]}) >= 8


def test_card_of_ones_own(fit: Run, tmp_path: Path) -> None:
    _, given = told(
        fit,
        str(model_directory(tmp_path)),
        "--device-memory",
        "48GiB",
        "--device-name",
        "NVIDIA L20",
        "--compute-capability",
        "8.9",
        "--kv-dtype",
        "auto",
    )
    assert given["cards"][0]["gpu"] == "NVIDIA L20"
    assert given["cards"][0]["gpu_memory_bytes"] == 48 * GIB


def test_batch_defaults_follow_the_card(fit: Run, tmp_path: Path) -> None:
    path = str(model_directory(tmp_path))
    sizes = {}
    for capability in ("8.0", "9.0", "10.0"):
        _, given = told(fit, path, "--kv-bytes", "1GiB", "--compute-capability", capability)
        sizes[capability] = (given["max_num_batched_tokens"], given["max_num_seqs"])
    assert sizes == {"8.0": (2048, 256), "9.0": (8192, 1024), "10.0": (16384, 1024)}
    _, given = told(fit, path, "--kv-bytes", "1GiB", "--cpu")
    assert (given["max_num_batched_tokens"], given["compute_capability"]) == (2048, None)
    assert given["block_size"] == 128


def test_newer_engine_is_planned_by_known_rules_and_says_so(fit: Run, tmp_path: Path) -> None:
    path = str(model_directory(tmp_path))
    _, given = told(fit, path, "--kv-bytes", "1GiB", "--engine-version", "0.99.0")
    assert (given["engine_version"], given["assumed"]) == ("0.99.0", True)
    assert given["engine_rules"] != "0.99.0"


def test_options_reach_the_engine_rules(fit: Run, tmp_path: Path) -> None:
    path = str(model_directory(tmp_path))
    _, given = told(
        fit,
        path,
        *(
            "--kv-bytes",
            "1GiB",
            "--block-size",
            "64",
            "--max-num-seqs",
            "7",
            "--max-num-batched-tokens",
            "512",
        ),
        *("--kv-dtype", "fp8", "--enforce-eager", "--no-prefix-caching", "--dtype", "float16"),
        *("--tensor-parallel", "2", "--context", "auto", "--compute-capability", "9.0"),
    )
    assert given["block_size"] == 64
    assert (given["max_num_seqs"], given["max_num_batched_tokens"]) == (7, 512)
    assert given["kv_dtype"] == "fp8"
    assert given["bytes_per_block"] == 4 * 64 * 1 * (64 + 64)


def test_changed_models_are_compared(fit: Run, tmp_path: Path) -> None:
    path = str(model_directory(tmp_path))
    _, given = told(fit, path, "--kv-bytes", "1GiB", "--what-if", "kv_heads=1", "--what-if", "mla=64+16")
    first, second = given["what_if"]
    assert first["change"] == "kv_heads=1"
    assert first["saved"]["factor"] == 8.0
    assert first["kv_tokens"] == pytest.approx(2 * given["kv_tokens"], rel=0.01)
    assert second["saved"]["bytes_per_token"] == 4 * 80 * 2


def test_yaml_says_the_same(fit: Run, tmp_path: Path) -> None:
    path = str(model_directory(tmp_path))
    _, output, _ = fit(path, "--kv-bytes", "1GiB", "-o", "yaml")
    assert yaml.safe_load(output) == told(fit, path, "--kv-bytes", "1GiB")[1]


def test_checkpoint_bytes_come_from_headers(fit: Run, tmp_path: Path) -> None:
    path = model_directory(tmp_path)
    (path / "model-1.safetensors").write_bytes(safetensors(elements=100))
    (path / "model-2.safetensors").write_bytes(safetensors(elements=50))
    _, given = told(fit, str(path), "--kv-bytes", "1GiB")
    assert given["model"]["checkpoint_bytes"] == 300
