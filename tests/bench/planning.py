"""`make bench-planning`: how long a plan on GPUs takes over ten pools, and how much of a GPU plans leave
unused.

Ten pools of cards that clusters have, 8 devices a node. Questions from the simplest, where the first pool
fits, to those that have no answer, whose rejections search for the nearest plans that would fit. Every
question is asked anew: nothing is kept between two plans.

Beside the time stands a ratio to a control measured in the same minute: Python counting 100,000 short texts
in a dictionary. All times are of the processor.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from bench.processor import beside_control, heading
from tonnage.planning.plan import Plan, Quality, Rejection
from unit.planning.gpu.samples import answer, model, node, pool
from unit.planning.starts import GIB, Start, logged, on_cards

ROUNDS: Final = 60
TARGET: Final = "target < 20 ms"
CARDS: Final = (
    "T4", "A10", "L4", "A100-40GB", "A100-80GB", "L40S", "RTX-PRO-6000", "H100-80GB", "H200", "B200",
)  # fmt: skip
_POOLS: Final = tuple(pool(card, *(node(f"{card}-{n}") for n in range(4))) for card in CARDS)
_SMALL: Final = tuple(pool(card, node(card, devices=1)) for card in CARDS[:5])
_TAKEN: Final = tuple(pool(card, node(card, free=0)) for card in CARDS)
_BUSY: Final = tuple(pool(card, *(node(f"{card}-{n}", free=1) for n in range(4))) for card in CARDS)
_LOSSLESS: Final[dict[str, Any]] = {"quality": Quality.LOSSLESS, "context_length": 32768}

PLANS: Final[dict[str, Callable[[], Plan | Rejection]]] = {
    "Llama-3.1-8B": partial(
        answer, *_POOLS, profile=model("meta-llama--Meta-Llama-3.1-8B"), context_length=8192
    ),
    "Llama-3.1-70B": partial(
        answer, *_POOLS, profile=model("meta-llama--Meta-Llama-3.1-70B"), context_length=32768
    ),
    "gpt-oss-120b": partial(answer, *_POOLS, profile=model("openai--gpt-oss-120b"), context_length=131072),
    "DeepSeek-V3": partial(answer, *_POOLS, profile=model("deepseek-ai--DeepSeek-V3"), context_length=32768),
    "Qwen3.5-397B-A17B": partial(
        answer, *_POOLS, profile=model("Qwen--Qwen3.5-397B-A17B"), context_length=32768
    ),
    "Nemotron-3-Ultra-550B": partial(
        answer,
        *_POOLS,
        profile=model("nvidia--NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16"),
        context_length=32768,
    ),
}
REJECTIONS: Final[dict[str, Callable[[], Plan | Rejection]]] = {
    "70B, nothing free": partial(
        answer, *_TAKEN, profile=model("meta-llama--Meta-Llama-3.1-70B"), **_LOSSLESS
    ),
    "70B, five small pools": partial(
        answer, *_SMALL, profile=model("meta-llama--Meta-Llama-3.1-70B"), **_LOSSLESS
    ),
    "DeepSeek-V3, 1 free each": partial(
        answer, *_BUSY, profile=model("deepseek-ai--DeepSeek-V3"), context_length=32768
    ),
}


def main() -> None:
    """Print every arm."""
    print(heading("make bench-planning"))
    print(f"{len(CARDS)} pools; processor time, medians of {ROUNDS} rounds")
    gc.collect()
    gc.freeze()
    for name, once in PLANS.items():
        _print(name, once, rounds=ROUNDS, target=f"; {TARGET}")
    print("rejections, with the search for what would fit")
    for name, once in REJECTIONS.items():
        _print(name, once, rounds=ROUNDS // 3, target="")
    print("\nunused beside the KV cache if it had been planned, GiB of each device")
    _print_unused("one H200 or H100, vLLM 0.26", on_cards())
    _print_unused("by logs, most of them H100, vLLM 0.19", logged())


def _print(name: str, once: Callable[[], Any], *, rounds: int, target: str) -> None:
    print(f"  {name:24} {beside_control(once, rounds=rounds)}{target}; {_found(once())}")


def _found(found: Plan | Rejection) -> str:
    if isinstance(found, Rejection):
        return found.reason
    return f"{found.gpus_per_replica}x {found.product}, {found.quality}"


def _print_unused(name: str, starts: Sequence[Start]) -> None:
    unused = sorted(start.unused_bytes / GIB for start in starts if start.other_bytes is not None)
    over = [
        start.id for start in starts if start.kv_bytes is not None and start.promised_bytes > start.kv_bytes
    ]
    median = statistics.median(unused)
    print(
        f"  {name:40} {len(unused)} starts: least {unused[0]:.2f}, median {median:.2f}, most "
        f"{unused[-1]:.2f}; promised more at the same share than there was: {', '.join(over) or 'none'}"
    )


if __name__ == "__main__":
    main()
