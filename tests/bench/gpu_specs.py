"""Writes the rows of `make bench-gpu`: for each the plan, the arguments and environment that the operator
renders for it, and the load it is put under. Needs no GPU.

    python -m bench.gpu_specs FILE [--configs DIR] [--bytes FILE]

`--bytes` is JSON, {row: bytes of the KV cache}, instead of what the law says. Rows of kind `control` are
started as vLLM is without a plan: by a share of the device, with the same limits.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.gpu_rows import ROWS, Burst, Row
from tonnage.api.v1alpha1 import Spec
from tonnage.engines import gpu_rules_for
from tonnage.gpus.cards import card_named
from tonnage.gpus.inventory import Access, Inventory, Pool, PoolNode, Vendor
from tonnage.models import ModelProfile, Weights, parse_config
from tonnage.planning.fit import Device, EngineOptions, LaidOut, lay_out
from tonnage.planning.gpu.choose import gpu_question, plan_on_gpus
from tonnage.planning.gpu.question import usable_bytes
from tonnage.planning.memory import blocks_in, concurrency, engine_tokens
from tonnage.planning.plan import Demand, Plan, Quality, Rejection
from tonnage.rendering.deployment import build_deployment
from tonnage.rendering.names import Owner
from tonnage.rendering.plan import Kept, build_plan_config_map, hash_of
from tonnage.rendering.settings import PLAN_KEY, Settings
from unit.models.samples import published_configs, published_quantization

_GIB: Final = 2**30
_OWNER: Final = Owner(namespace="bench", name="row", uid="row")
_VARIABLES: Final = {
    # neither is installed where the rows were made
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_USE_DEEP_GEMM": "0",
}
_NOT_SPARE: Final = ("--kv-cache-memory-bytes", "--gpu-memory-utilization")


class Configs:
    """config.json files of models: the whole ones of a directory where it has them, else the trimmed ones."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def config(self, row: Row) -> dict[str, Any]:
        """The config of a row, with its patch."""
        found = self._whole(f"{row.config}_config.json") or published_configs()[f"{row.config}_config.json"]
        return {name: value for name, value in found.items() if name != "auto_map"} | (row.patch or {})

    def quantization(self, row: Row) -> dict[str, Any] | None:
        """Its hf_quant_config.json."""
        whole = self._whole(f"{row.config}_hf_quant_config.json")
        return whole or published_quantization(f"{row.config}_config.json")

    def _whole(self, name: str) -> dict[str, Any] | None:
        path = None if self._directory is None else self._directory / name
        return json.loads(path.read_text()) if path is not None and path.exists() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What rows are made for; the defaults are where the recorded ones come from."""

    configs: Configs = field(default_factory=lambda: Configs(None))
    version: str = "0.26.0"
    card: str = "H200"
    devices: int = 1

    @property
    def pool(self) -> Pool:
        """One node with the cards. Raises ValueError where the card is not known."""
        card = card_named(self.card)
        if card is None:
            raise ValueError(f"{self.card} is not a card of the catalogue")
        node = PoolNode(
            name="n", devices=self.devices, free=self.devices, cpu_millis=16_000, memory_bytes=128 * _GIB
        )
        return Pool(
            name=card.name.lower(),
            vendor=Vendor.NVIDIA,
            product=card.name,
            memory_bytes=card.safe_bytes,
            memory_source="catalogue",
            access=Access.RESOURCE,
            resource="nvidia.com/gpu",
            compute_capability=card.compute_capability,
            computes=card.computes,
            node_labels={"nvidia.com/gpu.product": card.product.replace(" ", "-")},
            nodes=(node,),
        )


def _profile(row: Row, configs: Configs) -> ModelProfile:
    shape = parse_config(configs.config(row), hf_quant_config=configs.quantization(row))
    return ModelProfile(shape=shape, weights=Weights(bytes_by_dtype=(("BF16", 2),), parameters=1))


def _chosen(row: Row, profile: ModelProfile, bench: Bench) -> Plan:
    plan = plan_on_gpus(
        gpu_question(
            Demand(
                context_length=row.context,
                concurrency=row.sequences,
                # of other rows only the limits are of interest, not whether a workload fits
                typical_tokens=None if row.kind == "plan" or row.devices > 1 else 1,
                quality=Quality.LOSSLESS if row.kv_dtype == "auto" else Quality.NEAR_LOSSLESS,
                kv_dtype=None if row.kv_dtype == "auto" else row.kv_dtype,
                prefix_caching=row.prefix_caching,
            ),
            model=profile,
            inventory=Inventory(pools=(bench.pool,)),
            engine=gpu_rules_for(bench.version),
        )
    )
    if isinstance(plan, Rejection):
        raise ValueError(f"{row.id}: {plan.reason}: {plan.message}")
    if plan.gpus_per_replica != row.devices:
        raise ValueError(f"{row.id}: is for {row.devices} devices, and a plan takes {plan.gpus_per_replica}")
    return plan


def _laid(row: Row, plan: Plan, profile: ModelProfile, bench: Bench) -> LaidOut:
    return lay_out(
        profile.shape,
        device=Device(compute_capability=bench.pool.compute_capability),
        options=EngineOptions(
            tensor_parallel=plan.tensor_parallel,
            kv_dtype=row.kv_dtype,
            context_tokens=row.context,
            max_num_seqs=row.sequences,
            max_num_batched_tokens=row.tokens,
            prefix_caching=plan.prefix_caching,
        ),
        engine_version=bench.version,
    )


def _with_limits(row: Row, plan: Plan, profile: ModelProfile, bench: Bench, *, kv_bytes: int) -> Plan:
    """The plan with the limits of the row instead of those that were chosen, and so many bytes."""
    laid = _laid(row, plan, profile, bench)
    gpu = plan.gpu
    assert gpu is not None
    layout, memory = laid.layout, dataclasses.replace(plan.memory, kv=kv_bytes)
    blocks = blocks_in(layout, kv_bytes=kv_bytes)
    return dataclasses.replace(
        plan,
        max_num_seqs=row.sequences,
        max_num_batched_tokens=row.tokens,
        memory=memory,
        blocks=blocks,
        bytes_per_block=layout.bytes_per_block,
        tokens=engine_tokens(layout, blocks=blocks, context_tokens=row.context),
        concurrency_at_context=concurrency(layout, blocks=blocks, length_tokens=row.context),
        block_size=laid.paging.block_tokens,
        kv_dtype=laid.settled.kv_dtype,
        gpu=dataclasses.replace(
            gpu,
            captured_sizes=() if row.eager else tuple(n for n in gpu.captured_sizes if n <= row.tokens),
            graph_mode="NONE" if row.eager else gpu.graph_mode,
            enforce_eager=row.eager,
            memory_utilization=_share(
                memory.weights + memory.activation + memory.graphs + kv_bytes, of=usable_bytes(bench.pool)
            ),
        ),
    )


def _share(after: int, *, of: int) -> str:
    """As a plan states it: what is allocated after the engine's check, and never more than it can pass."""
    return f"{min(990, 1000 * after // of) / 1000:.3f}"


def _rendered(row: Row, plan: Plan, version: str) -> tuple[dict[str, Any], list[str], dict[str, str], str]:
    """plan.json, the engine's arguments and the environment of the pod, and the served name."""
    variables = {**_VARIABLES, **row.variables}
    spec = Spec.model_validate(
        {
            "model": {"uri": f"pvc://models/{row.config}"},
            "engine": {
                "verification": "Report" if row.kind == "control" else "Strict",
                "env": [{"name": name, "value": value} for name, value in variables.items()],
                "extraArgs": list(row.extra),
            },
        }
    )
    kept = Kept(inputs="-", source=row.config, revision="-", download_bytes=0, model={}, plan=plan)
    identity = hash_of(kept, spec=spec)
    config_map = build_plan_config_map(kept, plan_hash=identity, spec=spec, owner=_OWNER)
    settings = Settings(operator_image="-", worker_image="-", engine_version=version)
    deployment = build_deployment(
        kept, plan_hash=identity, spec=spec, owner=_OWNER, settings=settings, replicas=1
    )
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    words = [word.replace("$$", "$") for word in container["args"]]
    environment = {v["name"]: v.get("value", "").replace("$$", "$") for v in container["env"]}
    return (
        json.loads(config_map["data"][PLAN_KEY]),
        words[words.index("--") + 1 :],
        environment,
        spec.served_name,
    )


def _by_share(words: Sequence[str], share: str) -> list[str]:
    """The arguments with a share of the device instead of bytes."""
    found = list(words)
    for name in _NOT_SPARE:
        at = found.index(name)
        del found[at : at + 2]
    return [*found, "--gpu-memory-utilization", share]


def _load(burst: Burst, plan: Plan) -> dict[str, Any]:
    longest = plan.context_length - burst.output_tokens
    return {
        "name": burst.name,
        "requests": burst.requests or plan.max_num_seqs,
        "prompt_tokens": burst.prompt_tokens or longest,
        "output_tokens": burst.output_tokens,
        "limit_s": burst.limit_s,
    }


def _planned_bytes(row: Row, plan: Plan) -> int:
    """What the plan gives the cache where its limits are those of the row."""
    same = (plan.max_num_seqs, plan.max_num_batched_tokens) == (row.sequences, row.tokens)
    if row.kind == "pinned" and not same:
        raise ValueError(f"{row.id}: the plan has other limits, so its bytes must be stated (--bytes)")
    return plan.memory.kv


def build_spec(row: Row, *, bench: Bench, kv_bytes: int | None = None) -> dict[str, Any]:
    """What `gpu_run` needs of a row. Raises ValueError where there is no plan."""
    configs = bench.configs
    profile = _profile(row, configs)
    plan = _chosen(row, profile, bench)
    if row.kind != "plan":
        given = kv_bytes or row.kv_bytes or _planned_bytes(row, plan)
        plan = _with_limits(row, plan, profile, bench, kv_bytes=given)
    document, words, environment, served = _rendered(row, plan, bench.version)
    if not row.preflight:
        del document["plan"]["memoryBytes"]
    return {
        "id": row.id,
        "kind": row.kind,
        "note": row.note,
        "config": row.config,
        "patch": row.patch,
        "model": row.config + ("" if row.patch is None else "-patched"),
        "config_json": configs.config(row),
        "hf_quant_config_json": configs.quantization(row),
        "plan": document,
        "arguments": _by_share(words, row.share) if row.kind == "control" else words,
        "environment": environment,
        "served": served,
        "vocab": _vocabulary(configs.config(row)),
        "bursts": [_load(burst, plan) for burst in row.bursts],
        "needs_s": row.needs_s,
        "timeout_s": 60 + 2 * row.needs_s,
    }


def _vocabulary(config: Mapping[str, Any]) -> int:
    """Token ids to draw from."""
    text = config.get("text_config", config)
    return min(int(text["vocab_size"]), 100_000)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.gpu_specs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--configs", type=Path, help="a directory of whole config.json files")
    parser.add_argument("--bytes", type=Path, help="JSON of bytes for rows")
    return parser.parse_args(arguments)


def write_specs(file: Path, *, bench: Bench, stated: Mapping[str, int] | None = None) -> int:
    """Write all rows that there is a plan for, and tell of the others; returns how many those are."""
    specs = []
    for row in ROWS:
        try:
            specs.append(build_spec(row, bench=bench, kv_bytes=(stated or {}).get(row.id)))
        except ValueError as error:
            print(f"left out: {error}", file=sys.stderr)
    file.write_text(json.dumps(specs))
    print(f"{len(specs)} of {len(ROWS)} rows, thought to take {sum(s['needs_s'] for s in specs)} s")
    return len(ROWS) - len(specs)


if __name__ == "__main__":
    given = _parse(sys.argv[1:])
    of_rows = json.loads(given.bytes.read_text()) if given.bytes else None
    sys.exit(min(1, write_specs(given.file, bench=Bench(configs=Configs(given.configs)), stated=of_rows)))
