"""Pools of well-known cards, published models, and shorthand for planning on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any, Final

from tonnage.engines import gpu_rules_for
from tonnage.gpus.cards import card_named
from tonnage.gpus.inventory import Access, Inventory, Pool, PoolNode, Vendor
from tonnage.models import ModelProfile, Weights, parse_config
from tonnage.planning.gpu.choose import gpu_question, plan_on_gpus
from tonnage.planning.gpu.question import GpuQuestion, Hardware, sorted_pools
from tonnage.planning.plan import Demand, Plan, Quality, Rejection
from unit.models.samples import published_configs, published_quantization

GIB: Final = 2**30
ENGINE: Final = gpu_rules_for("0.32.0")
LOSSLESS: Final = Quality.LOSSLESS
NEAR: Final = Quality.NEAR_LOSSLESS
ECONOMY: Final = Quality.ECONOMY


def node(name: str = "n1", *, devices: int = 8, free: int | None = None, gib: int = 512) -> PoolNode:
    return PoolNode(
        name=name,
        devices=devices,
        free=devices if free is None else free,
        cpu_millis=64_000,
        memory_bytes=gib * GIB,
    )


def pool(card: str, *nodes: PoolNode, **changes: Any) -> Pool:
    """A pool of a card of the catalogue; one node of eight unless told otherwise."""
    known = card_named(card)
    assert known is not None
    fields: dict[str, Any] = {
        "name": f"nvidia-{known.name.lower()}",
        "vendor": Vendor.NVIDIA,
        "product": known.name,
        "memory_bytes": known.safe_bytes,
        "memory_source": "catalogue",
        "access": Access.RESOURCE,
        "resource": "nvidia.com/gpu",
        "compute_capability": known.compute_capability,
        "computes": known.computes,
        "node_labels": {"nvidia.com/gpu.product": known.product.replace(" ", "-")},
        "nodes": nodes or (node(),),
        **changes,
    }
    return Pool(**fields)


@cache
def model(name: str, **changes: Any) -> ModelProfile:
    """A published model with the weights its config says."""
    file = f"{name}_config.json"
    shape = parse_config(
        {**published_configs()[file], **changes}, hf_quant_config=published_quantization(file)
    )
    return ModelProfile(shape=shape, weights=Weights(bytes_by_dtype=(("BF16", 2),), parameters=1))


LLAMA_8B: Final = model("meta-llama--Meta-Llama-3.1-8B")
LLAMA_70B: Final = model("meta-llama--Meta-Llama-3.1-70B")


def answer(
    *pools: Pool,
    profile: ModelProfile = LLAMA_8B,
    hardware: Hardware | None = None,
    prices: dict[str, Any] | None = None,
    version: str = "0.32.0",
    **demand: Any,
) -> Plan | Rejection:
    return plan_on_gpus(
        gpu_question(
            Demand(**demand),
            model=profile,
            inventory=Inventory(pools=pools),
            engine=gpu_rules_for(version),
            hardware=hardware or Hardware(),
            prices=prices or {},
        )
    )


def plan(*pools: Pool, **options: Any) -> Plan:
    found = answer(*pools, **options)
    assert isinstance(found, Plan), found
    return found


def rejection(*pools: Pool, **options: Any) -> Rejection:
    found = answer(*pools, **options)
    assert isinstance(found, Rejection), found
    return found


def question(
    pools: Iterable[Pool],
    *,
    profile: ModelProfile = LLAMA_8B,
    hardware: Hardware | None = None,
    prices: dict[str, Any] | None = None,
    **demand: Any,
) -> GpuQuestion:
    return GpuQuestion(
        demand=Demand(**demand),
        model=profile,
        engine=ENGINE,
        pools=sorted_pools(pools),
        hardware=hardware or Hardware(),
        prices=prices or {},
    )


def with_free(chosen: Pool, free: int) -> Pool:
    """The pool with `free` devices on each node."""
    return replace(chosen, nodes=tuple(replace(each, free=free) for each in chosen.nodes))
