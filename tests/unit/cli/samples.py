"""Model directories and ready-made answers for the tests of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tonnage.cli.answers import Answer, Place, Question
from tonnage.cli.main import main
from tonnage.cli.model import ModelFiles
from tonnage.models import parse_config
from tonnage.planning.fit import Device, EngineOptions, Fit, GroupFit
from unit.models.samples import llama_config

GIB = 2**30
LLAMA = llama_config()

Run = Callable[..., tuple[int, str, str]]


def runner(capsys: pytest.CaptureFixture[str], *before: str) -> Run:
    """Runs the command line in this process, `before` first: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([*before, *arguments])
        captured = capsys.readouterr()
        return int(str(stopped.value.code or 0)), captured.out, captured.err

    return run


def model_directory(path: Path, config: dict[str, Any] | None = None) -> Path:
    """A directory with a config.json."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config or LLAMA))
    return path


def safetensors(*, elements: int) -> bytes:
    """A safetensors file with one bfloat16 tensor."""
    header = json.dumps(
        {"weight": {"dtype": "BF16", "shape": [elements], "data_offsets": [0, 2 * elements]}}
    ).encode()
    return len(header).to_bytes(8, "little") + header + bytes(2 * elements)


def question(**options: Any) -> Question:
    """A question about the Llama above."""
    files = ModelFiles(name="org/model", origin="catalogue", source="org/repo@12345678 a/b", config=LLAMA)
    return Question(
        files=files,
        shape=parse_config(LLAMA),
        options=EngineOptions(**options),
        engine_version="0.32.0",
    )


def answer(*, fits: bool = True, exact: bool = True, card: str | None = None, **changes: Any) -> Answer:
    """An answer made by hand, as for a card of 80 GiB; `changes` are fields of `Fit`."""
    figures: dict[str, Any] = {
        "supported": True,
        "fits": fits,
        "reason": None if fits else "kv_cache_too_small",
        "message": None if fits else "too small",
        "context_tokens": 4096,
        "block_tokens": 16,
        "kv_dtype": "auto",
        "attention_backends": ("FLASH_ATTN",),
        "max_num_seqs": 1024,
        "max_num_batched_tokens": 8192,
        "bytes_per_block": 65536,
        "weights_bytes_by_stage": (10 * GIB, 11 * GIB),
        "estimated_max_context": 4096 if fits else 128,
        "engine_rules": "0.32.0",
        "assumed": False,
    }
    if fits:
        figures |= {"num_blocks": 1000, "kv_tokens": 16000, "max_concurrency": 3.90625}
        figures["groups"] = (
            GroupFit(kind="full", layers=4, block_tokens=16, page_bytes=16384, blocks_per_request=256),
        )
    place = Place(
        device=Device(compute_capability=(9, 0), name="NVIDIA H100 80GB HBM3", memory_bytes=80 * GIB),
        card=card,
        memory_bytes=80 * GIB if card else 0,
        share_bytes=72 * GIB if card else 0,
        utilization=0.9 if card else None,
    )
    return Answer(
        place=place,
        kv_dtype="auto",
        kv_bytes=1000 * 65536,
        exact=exact,
        fit=Fit(**(figures | changes)),
        weights_bytes=11 * GIB,
    )
