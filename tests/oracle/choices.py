"""`make golden-choices`: the table of choices (`choices.txt`), a line for each model, kind of nodes and
workload, one column a quality; "=" is the plan of the column before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from oracle import grid
from tonnage.gpus.cards import accelerator_named
from tonnage.planning.plan import Plan, Rejection

TABLE: Final = Path(__file__).with_name("choices.txt")
_FIRST_WORDS: Final = 48
_HEAD: Final = """\
What is planned for vLLM 0.32: model, kind of nodes, workload: Lossless | NearLossless | Economy
made by `make golden-choices`; nodes, models and workloads are those of tests/oracle/grid.py
`2xH100-80GB`: GPUs of a replica, `8x2` ranks of 2 stages; KV dtype where it is not the model's own; `w:fp8`:
weights stored in fp8; `eager`: without CUDA graphs; tokens of one step. "=": as the column before.
"""


def main() -> None:
    """Write the table."""
    TABLE.write_text(_HEAD + "".join(f"{line}\n" for model in grid.MODELS for line in section(model)))


def section(model: str) -> Iterator[str]:
    """The lines of one model."""
    yield ""
    yield f"# {model}"
    for nodes in grid.NODES:
        for workload in grid.WORKLOADS:
            yield line(model, nodes, workload)


def line(model: str, nodes: str, workload: str) -> str:
    """The choices of one workload."""
    answers = [
        in_words(grid.answer(grid.Scenario(model, nodes, workload, quality))) for quality in grid.QUALITIES
    ]
    columns = ["=" if number and text == answers[number - 1] else text for number, text in enumerate(answers)]
    return f"{nodes:8} {workload:10} {' | '.join(columns)}"


def in_words(answer: Plan | Rejection) -> str:
    """A plan in a few words, or why there is none."""
    if isinstance(answer, Rejection):
        # Without bytes, which every change of the budget moves.
        first = re.sub(r"[0-9.]+ GiB", "x GiB", answer.message)[:_FIRST_WORDS].strip()
        return f"no: {answer.reason}: {first}"
    words = [_where(answer)]
    if answer.kv_dtype != "auto":
        words.append(answer.kv_dtype)
    if answer.gpu is not None and answer.gpu.quantization:
        words.append("w:fp8")
    if answer.gpu is not None and answer.gpu.enforce_eager:
        words.append("eager")
    return " ".join([*words, str(answer.max_num_batched_tokens)])


def _where(plan: Plan) -> str:
    if plan.gpu is None:
        return plan.product
    known = accelerator_named(plan.product)
    name = plan.product if known is None else known.name
    stages = plan.gpu.pipeline_parallel
    ranks = f"{plan.tensor_parallel}x{stages}" if stages > 1 else str(plan.gpus_per_replica)
    pool = f" ({plan.pool})" if plan.gpu.sharing != "None" else ""
    return f"{ranks}x{name}{pool}"


if __name__ == "__main__":
    main()
