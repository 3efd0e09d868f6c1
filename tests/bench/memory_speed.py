"""How long planning takes: `tonnage.planning.memory` alone, and `fit` from a profile to its answer."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from bench.memory_rows import Row
from bench.memory_tables import ninth_tenth
from tonnage.models import ModelShape, parse_config
from tonnage.planning.fit import Device, EngineOptions, LaidOut, fit, lay_out
from tonnage.planning.memory import blocks_in, concurrency, engine_tokens, kv_layout, longest_context
from unit.planning.oracle_rows import CARD_BYTES, GIB, device_of, options_of

ROUNDS: Final = 300
KV_BYTES: Final = 40 * GIB
CARD: Final = "NVIDIA H100 80GB HBM3"
DEVICE: Final = Device(compute_capability=(9, 0), name=CARD, memory_bytes=CARD_BYTES[CARD])
OPTIONS: Final = EngineOptions(tensor_parallel=4, context_tokens=32768)
_COMMON: Final = {
    "dtype": "bfloat16",
    "vocab_size": 128256,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 60,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
}
SIXTY_LAYERS: Final[dict[str, dict[str, Any]]] = {
    "full attention": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **_COMMON},
    "5 of 6 windows": {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "sliding_window": 1024,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 10,
        **_COMMON,
    },
}


def print_speed(rows: Sequence[Row]) -> None:
    """Medians on one core; nothing is read from files or kept between evaluations."""
    gc.collect()
    gc.freeze()  # The bench's own rows and answers are not what the collector would walk elsewhere.
    print("\nSpeed on one core, the model's profile given")
    for name, config in SIXTY_LAYERS.items():
        laid = lay_out(parse_config(config), device=DEVICE, options=OPTIONS)
        _print(f"planning.memory, 60 layers, {name}", partial(_core_speed, laid), "target < 1 ms")
    for name, config in SIXTY_LAYERS.items():
        _print(f"fit, 60 layers, {name}", partial(_fit, parse_config(config)), "target >= 5,000/s")
    _print_all(rows)


def _core_speed(laid: LaidOut) -> None:
    """`tonnage.planning.memory` alone: from paged layers to the layout and every figure."""
    context = laid.settled.context_tokens
    layout = kv_layout(
        laid.paging.runs, request=laid.layout.request, block_outermost=laid.paging.block_outermost
    )
    blocks = blocks_in(layout, kv_bytes=KV_BYTES)
    engine_tokens(layout, blocks=blocks, context_tokens=context)
    concurrency(layout, blocks=blocks, length_tokens=context)
    longest_context(layout, kv_bytes=KV_BYTES, limit_tokens=context)


def _fit(shape: ModelShape) -> None:
    answer = fit(shape, device=DEVICE, options=OPTIONS, kv_bytes=KV_BYTES)
    if not answer.fits:
        raise RuntimeError(f"the model of the speed arm does not fit: {answer.reason}")


def _print(name: str, once: Callable[[], None], target: str) -> None:
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        once()
        times.append(time.perf_counter() - begun)
    median, slow = statistics.median(times), ninth_tenth(sorted(times))
    print(
        f"  {name:46} median {median * 1e3:.3f} ms, 90 % {slow * 1e3:.3f} ms, {1 / median:>8,.0f}/s; {target}"
    )


def _print_all(rows: Sequence[Row]) -> None:
    begun, count = time.perf_counter(), 0
    for row in rows:
        if row.shape:
            fit(
                row.shape,
                device=device_of(row.engine),
                options=options_of(row.engine),
                kv_bytes=row.question.kv_bytes,
            )
            count += 1
    took = time.perf_counter() - begun
    print(f"  {f'fit, the {count} rows above':46} mean   {took / count * 1e3:.3f} ms, {count / took:,.0f}/s")
