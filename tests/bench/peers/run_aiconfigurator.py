"""Runs under aiconfigurator's own interpreter: cases on stdin, answers as the last line on stdout
(see packages.py).

The native model is built as in `KVCacheEstimator.from_request`, without the performance tables, which only
its overheads need; where that fails the naive estimator answers, as in the tool. A config that the package
ships under the model's name is preferred to ours.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

SDK = "aiconfigurator_core.sdk"


def main() -> None:
    """Answer every case."""
    logging.disable(logging.CRITICAL)
    built: dict[str, Any] = {}
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(json.load(sys.stdin)):
            key = json.dumps([case[name] for name in ("model", "config", "tp", "pp", "kv_dtype")])
            if key not in built:
                built[key] = _estimator(case, Path(folder, str(number)))
            answers.append(_answer(built[key], case))
    print("\n" + json.dumps(answers))


def _estimator(case: dict[str, Any], folder: Path) -> Any:
    """(longest sequence for bytes, bytes of a sequence, weight bytes of a rank), or why there is none."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(case["config"]))
    if case["hf_quant_config"]:
        (folder / "hf_quant_config.json").write_text(json.dumps(case["hf_quant_config"]))
    shipped = importlib.import_module(f"{SDK}.common").DefaultHFModels
    path = case["model"] if case["model"] in shipped else str(folder)
    try:
        return _native(case, path)
    except Exception:
        try:
            return _naive(case, str(folder))
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:60].strip()}"


def _native(case: dict[str, Any], path: str) -> Any:
    asked = case["kv_dtype"]
    config = importlib.import_module(f"{SDK}.config_builders").build_model_config(
        tp_size=case["tp"],
        pp_size=case["pp"],
        attention_dp_size=1,
        moe_tp_size=case["tp"],
        moe_ep_size=1,
        kvcache_quant_mode=None if asked == "auto" else "fp8" if asked.startswith("fp8") else asked,
    )
    model = importlib.import_module(f"{SDK}.models").get_model(path, config, "vllm")
    weights = sum(operation.get_weights() for operation in model.context_ops) / case["pp"]
    return model.get_kvcache_max_tokens, model.get_kvcache_bytes_per_sequence, weights


def _naive(case: dict[str, Any], path: str) -> Any:
    naive = importlib.import_module(f"{SDK}.memory").NaiveKVCacheEstimator.from_model_path(
        path,
        tp_size=case["tp"],
        pp_size=case["pp"],
        allow_hf_config_download=False,
        moe_tp_size=case["tp"],
    )
    return naive.get_kvcache_max_tokens, None, naive.weight_bytes()


def _answer(estimator: Any, case: dict[str, Any]) -> dict[str, Any]:
    if isinstance(estimator, str):
        return {"reason": estimator}
    longest, bytes_of, weights = estimator
    tokens = longest(case["kv_bytes"])
    if not tokens:
        return {"reason": "finds no token", "weights": weights}
    answer = {"tokens": tokens, "weights": weights, "reason": "the naive estimator has the inverse only"}
    if bytes_of is not None:
        length = case["context_tokens"]
        answer["requests"] = case["kv_bytes"] * length / bytes_of(length)
    return answer


if __name__ == "__main__":
    main()
