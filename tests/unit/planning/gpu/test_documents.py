"""Figures and lists of docs/planning.md and docs/quality.md are what the planner computes."""

from __future__ import annotations

import re
from pathlib import Path

from tonnage.planning.gpu.ladder import LADDER
from tonnage.planning.plan import Quality
from tonnage.planning.words import gib
from unit.planning.gpu.samples import GIB, LLAMA_70B, LOSSLESS, node, plan, pool, rejection

DOCS = Path(__file__).parents[4] / "docs"
FOUR = pool("L40S", node(devices=4))


def text(name: str) -> str:
    """A document with its line breaks as spaces."""
    return re.sub(r"\s+", " ", (DOCS / name).read_text())


def test_the_worked_example() -> None:
    found = plan(FOUR, profile=LLAMA_70B, context_length=32768)
    shown, memory, needed = text("planning.md"), found.memory, 8194 * found.bytes_per_block
    assert found.gpu is not None
    assert found.alternatives[0].why.startswith("each of 4x L40S has 7.38 GiB")
    for figure in (
        f"{16 * 8192 // 16} blocks of 16",
        f"{131.4165 / 4:.2f} GiB on each of four ranks, {gib(memory.weights)} with slack",
        f"context {memory.context / GIB:.2f}, non-torch {memory.non_torch / GIB:.2f}",
        f"activation {memory.activation / GIB:.2f}, burst margin {memory.burst_margin / GIB:.2f}",
        f"CUDA graphs {gib(memory.graphs)}",
        f"{80 * 16 * 2 * 512:,} bytes a block: 10.00 GiB needed, 7.38 GiB left",
        f"{found.bytes_per_block:,} a block, {gib(needed)} needed, and {gib(memory.kv)}",
        f"{found.blocks:,} blocks in {gib(memory.kv)}, {found.concurrency_at_typical:.2f} requests of 8192",
        f"{found.concurrency_at_context:.2f} of 32768; all of the {gib(found.gpu.device_bytes)}",
    ):
        assert figure in shown, figure
    assert memory.total > found.gpu.device_bytes - found.bytes_per_block


def test_the_rejection_of_the_example() -> None:
    found = rejection(FOUR, profile=LLAMA_70B, context_length=32768, quality=LOSSLESS)
    assert f'"{found.message}"' in text("planning.md")


def test_the_ladder_is_written_down_in_its_order() -> None:
    shown = text("quality.md")
    assert {quality.value for quality in Quality} <= set(re.findall(r"\| `(\w+)` \|", shown))
    kv_dtypes = list(dict.fromkeys(step.kv_dtype for step in LADDER if step.kv_dtype != "auto"))
    table = shown[shown.index("what was seen of its loss") : shown.index("Each step of")]
    places = [table.index(f"`{kv_dtype}`") for kv_dtype in kv_dtypes]
    assert places == sorted(places)
    assert table.index("`fp8`") < table.index("weights in fp8") < table.index("`turboquant_k8v4`")
