"""Runs under llm-d-planner's own interpreter: cases on stdin, answers as the last line on stdout
(see packages.py).

The config goes through transformers as in the tool, from a folder instead of the hub.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer every case."""
    warnings.simplefilter("ignore")
    module = importlib.import_module("planner.capacity_planner")
    answers = [_answer(module, case) for case in json.load(sys.stdin)]
    print("\n" + json.dumps(answers))


def _answer(module: Any, case: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(case["config"]))
        try:
            config = module.AutoConfig.from_pretrained(folder)
            detail = module.KVCacheDetail(case["model"], config)
        except Exception as error:
            return {
                "reason": f"{type(error).__name__}: {str(error).replace(folder, case['model'])[:60].strip()}"
            }
    tokens = case["kv_bytes"] * case["ranks"] / detail.per_token_memory_bytes
    return {"tokens": tokens, "blocks": tokens * case["ranks"]}


if __name__ == "__main__":
    main()
