"""Real engines on a GPU against their plans: `make bench-gpu` runs the rows of `gpu_rows` and prints what a
plan gains, `make bench-gpu-table` the same from the rows recorded in tests/data/gpu_rows.jsonl.

    python -m bench.gpu [--python PATH] [--out DIR] [--only REGEX] | --recorded

Needs vLLM, aiohttp and tonnage_worker in the interpreter at PATH, and a free GPU like the one of the rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.gpu_fixtures import fixture, read_rows
from bench.gpu_specs import Bench, write_specs

HERE: Final = Path(__file__).parent
RECORDED: Final = HERE.parent / "data/gpu_rows.jsonl"
_GIB: Final = 2**30
# a pinned row has the bytes of the plan for 256 sequences, whose limits it must have (gpu_specs)
_OWN: Final = "the plan for 256 chose the same limits"
_CHECKS: Final = (
    ("import torch; print(torch.cuda.get_device_name())", "no GPU that torch can use"),
    ("import torch; print(torch.cuda.device_count())", "no GPU that torch can use"),
    ("import vllm; print(vllm.__version__)", "no vLLM"),
    ("import aiohttp, tonnage_worker", "no aiohttp or no tonnage_worker (pip install ./worker)"),
)


class LackingError(Exception):
    """The interpreter cannot run the rows; the message says what it lacks."""


def look(python: str) -> Bench:
    """The engine and the card of an interpreter. Raises LackingError."""
    card, devices, version, _ = (_asked(python, statement, lack) for statement, lack in _CHECKS)
    return Bench(version=version, card=card, devices=int(devices))


def _asked(python: str, statement: str, lack: str) -> str:
    command = [python, "-P", "-c", statement]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise LackingError(f"{python} cannot be run: {error}") from None
    if found.returncode:
        reason = (found.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LackingError(f"{python} has {lack}: {reason}")
    return (found.stdout.strip().splitlines() or [""])[-1]


def table(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: KV tokens by share of the device and by plan, for each model of the comparison.

    An engine that compiles measures itself larger than one that finds its code in a cache; what a plan gains
    is told against the better of the two.
    """
    known = {row["id"]: row for row in rows if row["id"].startswith("fill-") and row["ok"]}
    models = [name.removesuffix("-control") for name in known if name.endswith("-control")]
    lines = [
        "| model | by share 0.92: first start | with compiled code | plan, same limits | more "
        "| its burst: answered; most of the card | plan for 512 sequences |",
        "|---|---|---|---|---|---|---|",
    ]
    return lines + [_line(known, model) for model in models if f"{model}-pinned" in known]


def _line(known: dict[str, dict[str, Any]], model: str) -> str:
    tokens = {name: row["kv_cache_size_tokens"] for name, row in known.items()}
    first, warm = tokens[f"{model}-control"], tokens.get(f"{model}-control-warm")
    before, pinned = max(first, warm or 0), known[f"{model}-pinned"]
    plan = known.get(f"{model}-plan")
    own = _OWN if plan is None else f"{_gained(plan, before)}; {_burst(plan)}"
    return (
        f"| {pinned['config'].partition('--')[2]} | {first:,} | {'' if warm is None else f'{warm:,}'} "
        f"| {tokens[f'{model}-pinned']:,} | {_share(pinned, before)} | {_burst(pinned)} | {own} |"
    )


def _gained(row: dict[str, Any], before: int) -> str:
    return f"{row['kv_cache_size_tokens']:,} ({_share(row, before)})"


def _share(row: dict[str, Any], before: int) -> str:
    return f"{row['kv_cache_size_tokens'] / before - 1:+.1%}"


def _burst(row: dict[str, Any]) -> str:
    longest = max(row["bursts"], key=lambda burst: burst["prompt_tokens"])
    most = max(burst["peak_used"] for burst in row["bursts"]) / _GIB
    total = row["total_bytes"] / _GIB
    return (
        f"{longest['completed']} of {longest['requests']} × {longest['prompt_tokens']:,} tokens; "
        f"{most:.2f} of {total:.2f} GiB"
    )


def _run(options: argparse.Namespace) -> int:
    try:
        bench = look(options.python)
    except LackingError as lack:
        print(f"bench-gpu: {lack}", file=sys.stderr)
        print(
            "It needs a host with vLLM and a GPU: make bench-gpu ENGINE_PYTHON=/path/to/python",
            file=sys.stderr,
        )
        return 2
    print(f"vLLM {bench.version} on {bench.card}")
    options.out.mkdir(parents=True, exist_ok=True)
    specs, rows = options.out / "specs.json", options.out / "rows.jsonl"
    write_specs(specs, bench=bench)
    command = [options.python, str(HERE / "gpu_run.py"), str(specs), str(options.out)]
    command += ["--work", str(options.out / "work"), "--only", options.only]
    status = subprocess.run(command, check=False).returncode
    lines = [fixture(row) for row in read_rows([rows])] if rows.exists() else []
    (options.out / "gpu_rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(*table(lines), sep="\n")
    return status


def _recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDED.read_text().splitlines()]


def main(arguments: Sequence[str]) -> int:
    """Run the rows, or print the table of recorded ones."""
    parser = argparse.ArgumentParser(prog="bench.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default="python3", help="the interpreter that has vLLM (default python3)")
    parser.add_argument("--out", type=Path, default=Path("build/bench-gpu"))
    parser.add_argument("--only", default="", help="rows whose id matches this expression")
    parser.add_argument("--recorded", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    if options.recorded:
        print(*table(_recorded()), sep="\n")
        return 0
    return _run(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
