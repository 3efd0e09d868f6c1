"""`make soak-hostile`: 100,000 hostile config.json files, each read and sized; nothing but a clean refusal
or a sane answer may come back, and quickly.

Each is a published config with some values removed, retyped, made absurd or nested, at any depth, from a
fixed seed; every thirtieth is random JSON. Fails on the first crash, on an answer out of range, or on one
that takes longer than five seconds.
"""

from __future__ import annotations

import copy
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tonnage.models import ConfigError, ModelShape, parse_config
from tonnage.models.profile import ModelProfile, Weights
from tonnage.models.wire import encode_wire
from tonnage.planning.fit import Device, EngineOptions, fit
from unit.models.samples import published_configs, published_quantization

RUNS = 100_000
SEED = 20261124
LIMIT_SECONDS = 5.0
ABSURD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 8, 16, 64, 127, 2**16, 2**31 - 1, 2**31, 2**63, 10**40, 0.5, -0.0,
    1e308, "", "a", "bfloat16", "*", "re:(a+)+$", "x" * 5000, [], {}, [[]], [None] * 50, [0] * 2000,
    {"a": {}}, ["full_attention"] * 5, ["linear_attention"] * 9, ["re:.*"], {"type": "linear", "factor": 1e6},
)  # fmt: skip
DEVICES = (
    Device(compute_capability=None),
    Device(compute_capability=(8, 0), name="NVIDIA A100-SXM4-80GB", memory_bytes=80 * 2**30),
    Device(compute_capability=(9, 0), name="NVIDIA H100 80GB HBM3", memory_bytes=80 * 2**30),
    Device(compute_capability=(10, 0), name="NVIDIA B200", memory_bytes=178 * 2**30),
)
KV_DTYPES = ("auto", "fp8", "fp8_e5m2", "int4_per_token_head", "nvfp4", "turboquant_4bit_nc", "fp8_ds_mla")


def hostile_configs(chance: random.Random) -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """(name, config.json, hf_quant_config.json) without end."""
    configs = sorted(published_configs().items())
    while True:
        name, config = chance.choice(configs)
        if chance.random() < 1 / 30:
            yield "random", {chance.choice(sorted(config)): _random_json(chance, 4) for _ in range(8)}, None
            continue
        quantization = copy.deepcopy(published_quantization(name))
        mutated = copy.deepcopy(config)
        for _ in range(chance.randint(1, 6)):
            _mutate(mutated, chance)
        if quantization is not None and chance.random() < 0.3:
            _mutate(quantization, chance)
        yield name, mutated, quantization


def _mutate(document: dict[str, Any], chance: random.Random) -> None:
    target: Any = document
    while True:
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(target[key], dict | list) and chance.random() < 0.7:
            target = target[key]
            continue
        break
    if isinstance(target, dict) and key != "architectures" and chance.random() < 0.2:
        del target[key]
    elif isinstance(target[key], int) and not isinstance(target[key], bool) and chance.random() < 0.5:
        target[key] = chance.choice(
            (target[key] + 1, target[key] - 1, -target[key], target[key] * 1000, 3, 1)
        )
    elif key != "architectures" or chance.random() < 0.1:
        target[key] = copy.deepcopy(chance.choice(ABSURD))


def _random_json(chance: random.Random, depth: int) -> Any:
    if depth == 0 or chance.random() < 0.5:
        return copy.deepcopy(chance.choice(ABSURD))
    if chance.random() < 0.5:
        return [_random_json(chance, depth - 1) for _ in range(chance.randint(0, 4))]
    return {f"k{number}": _random_json(chance, depth - 1) for number in range(chance.randint(0, 4))}


def try_one(
    config: dict[str, Any], quantization: dict[str, Any] | None, chance: random.Random
) -> tuple[str, str]:
    """(what the reader said, what sizing said)."""
    try:
        shape = parse_config(
            config, hf_quant_config=quantization, assume_full_attention=chance.random() < 0.1
        )
    except ConfigError as error:
        _require(len(error.message) < 2000, f"a message of {len(error.message)} characters")
        return f"refused: {error.reason}", "-"
    _check_shape(shape)
    found = fit(
        shape,
        device=chance.choice(DEVICES),
        options=EngineOptions(
            tensor_parallel=chance.choice((1, 1, 2, 3, 8)),
            pipeline_parallel=chance.choice((1, 1, 1, 2)),
            kv_dtype=chance.choice(KV_DTYPES),
            block_tokens=chance.choice((None, None, 16, 48, 256)),
            context_tokens=chance.choice((None, -1, 1, 4096)),
        ),
        kv_bytes=chance.choice((0, 1, 2**20, 2**34, 2**40)),
    )
    if not found.supported:
        return "read", f"refused: {found.reason}"
    _require(not found.fits or (found.num_blocks or 0) >= 1, f"no blocks in {found}")
    return "read", "fits" if found.fits else "too small"


def _check_shape(shape: ModelShape) -> None:
    _require(1 <= sum(run.layers for run in shape.layers) <= 1024, "absurd layers")
    _require(1 <= shape.default_context_tokens <= shape.max_context_tokens < 2**31, "absurd context")
    try:
        encode_wire(ModelProfile(shape=shape, weights=Weights(bytes_by_dtype=(), parameters=0)))
    except ConfigError as error:
        _require(error.reason == "ProfileInvalid", error.reason)  # too irregular to be sent: a clean refusal


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def main(runs: int = RUNS) -> None:
    """Run, print progress, and end with the outcomes."""
    chance = random.Random(SEED)
    outcomes: Counter[tuple[str, str]] = Counter()
    slowest = (0.0, "")
    started = time.monotonic()
    source = hostile_configs(chance)
    for number in range(1, runs + 1):
        name, config, quantization = next(source)
        begun = time.monotonic()
        try:
            outcomes[try_one(config, quantization, chance)] += 1
        except BaseException:
            sys.stderr.write(f"run {number} ({name}): {str(config)[:4000]}\n")
            raise
        slowest = max(slowest, (time.monotonic() - begun, name))
        if slowest[0] > LIMIT_SECONDS:
            sys.exit(f"run {number} ({name}) took {slowest[0]:.1f} s: {str(config)[:4000]}")
        if number % 10_000 == 0:
            sys.stderr.write(f"{number} of {runs}, {time.monotonic() - started:.0f} s\n")
    lines = [f"{runs} hostile configs, seed {SEED}: no crash, no hang"]
    lines.append(f"slowest: {slowest[0] * 1000:.0f} ms ({slowest[1]})")
    lines.extend(f"{count:7d}  {read}; sizing {sized}" for (read, sized), count in outcomes.most_common())
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
