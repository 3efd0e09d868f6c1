"""Runs under hf-mem's own interpreter: cases on stdin, answers as the last line on stdout
(see packages.py).

What `arun` downloads is given: `config` is the part of config.json that it selects, and the checkpoint is
said to hold E4M3 tensors, which it looks for where weights are quantized.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from types import SimpleNamespace
from typing import Any


def main() -> None:
    """Answer every case."""
    warnings.simplefilter("ignore")
    module = importlib.import_module("hf_mem.safetensors.kv_cache")
    answers = [_answer(module, case) for case in json.load(sys.stdin)]
    print("\n" + json.dumps(answers))


def _answer(module: Any, case: dict[str, Any]) -> dict[str, Any]:
    component = SimpleNamespace(dtypes={"F8_E4M3": None})
    metadata = SimpleNamespace(components={"Transformer": component})
    try:
        dtype = module.resolve_kv_cache_dtype(case["config"], case["kv_dtype"], metadata, case["model"])
        size = module.compute_safetensors_kv_cache_size(case["config"], dtype, case["context_tokens"])
    except Exception as error:
        return {"reason": f"{type(error).__name__}: {str(error)[:60].strip()}"}
    return {"tokens": case["kv_bytes"] * case["ranks"] * case["context_tokens"] / size}


if __name__ == "__main__":
    main()
