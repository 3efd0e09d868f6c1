"""The choice of a plan on GPUs: the first rung of the quality ladder on which the workload fits, then fewest
GPUs, then cost, then headroom; or a rejection that names the nearest plans that would fit."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from tonnage.engines import GpuRules, is_quantized
from tonnage.gpus.inventory import Inventory, Vendor
from tonnage.models import ModelProfile
from tonnage.planning.adapters import Adapters
from tonnage.planning.gpu import rules, words
from tonnage.planning.gpu.candidates import Candidate
from tonnage.planning.gpu.question import GpuQuestion, Hardware, sorted_pools, whole_bytes
from tonnage.planning.gpu.remedies import not_possible
from tonnage.planning.gpu.search import Found, search
from tonnage.planning.memory import concurrency, engine_tokens
from tonnage.planning.plan import Demand, GpuPlan, Plan, Rejection
from tonnage.planning.residuals import NOTHING_LEARNED, Residuals
from tonnage.planning.words import saved_by_architecture

_ANY_HARDWARE: Final = Hardware()
_NO_PRICES: Final[Mapping[str, Decimal]] = {}
_CHOSEN_BY_THE_ENGINE: Final = frozenset(
    {
        "FLASH_ATTN_DIFFKV",
        "TRITON_ATTN_DIFFKV",
        "TRITON_FLASH_ATTN",
        "TRITON_FLASHINFER",
        "DEEPSEEK_V32_INDEXER",
    }
)
"""Backends that layers get beside or instead of the one that was asked for (vllm/platforms/cuda.py 0.32)."""


def gpu_question(
    demand: Demand,
    *,
    model: ModelProfile,
    inventory: Inventory,
    engine: GpuRules,
    hardware: Hardware = _ANY_HARDWARE,
    prices: Mapping[str, Decimal] = _NO_PRICES,
    withheld_bytes: int = 0,
    adapters: Adapters | None = None,
    learned: Residuals = NOTHING_LEARNED,
) -> GpuQuestion:
    """What planning on the GPUs of an inventory is asked; see `GpuQuestion`."""
    return GpuQuestion(
        demand=demand,
        model=model,
        engine=engine,
        pools=sorted_pools(pool for pool in inventory.pools if pool.vendor is not Vendor.CPU),
        hardware=hardware,
        prices=prices,
        withheld_bytes=withheld_bytes,
        adapters=adapters,
        learned=learned,
    )


def plan_on_gpus(question: GpuQuestion, *, explain: bool = True) -> Plan | Rejection:
    """The plan of one replica on GPUs, or why there is none; the same answer for the same question.

    Not to `explain` is ten times faster where there is none: what would fit is not searched for then.

    Nodes decide only which candidate is taken: no figure of a plan depends on how many there are.
    """
    rejection = rules.first_rejection(question)
    if rejection is not None:
        return rejection
    found = search(question)
    if found.chosen is None:
        return not_possible(question, found, explain=explain)
    return _plan(question, found, found.chosen)


def takes_gpus(accelerator: str | None, *, inventory: Inventory) -> bool:
    """Whether a replica is planned on GPUs: where `hardware.accelerator` says so, and where it says nothing
    and the cluster has any.

    GPUs that are busy, too small or out of order do not make a plan fall back to CPU nodes: a server that is
    a hundred times slower is not what a user expects who did not ask for it. The rejection says what is
    missing.
    """
    if accelerator is not None:
        return accelerator == "GPU"
    return inventory.has_accelerators or any(pool.vendor is not Vendor.CPU for pool in inventory.pools)


def _plan(question: GpuQuestion, found: Found, chosen: Candidate) -> Plan:
    choice, layout, settled = chosen.choice, chosen.laid.layout, chosen.laid.settled
    context, typical = question.context_tokens, question.typical_tokens
    shape, step = question.model.shape, choice.step
    return Plan(
        engine_version=question.engine.version,
        engine_rules=question.engine.rules_version,
        pool=choice.pool.name,
        product=choice.pool.product,
        gpus_per_replica=choice.gpus,
        tensor_parallel=choice.tensor,
        context_length=context,
        concurrency=question.demand.concurrency,
        typical_tokens=typical,
        quality=step.quality,
        weights_dtype=settled.dtype,
        memory=chosen.budget.memory(kv_bytes=chosen.kv_bytes),
        shared_memory_bytes=rules.shared_memory_bytes(question, choice),
        request_bytes=rules.main_memory_bytes(question, choice),
        kv_dtype=settled.kv_dtype,
        attention_backend=_backend(chosen),
        block_size=chosen.laid.paging.block_tokens,
        blocks=chosen.blocks,
        tokens=engine_tokens(layout, blocks=chosen.blocks, context_tokens=context),
        bytes_per_block=layout.bytes_per_block,
        concurrency_at_context=concurrency(layout, blocks=chosen.blocks, length_tokens=context),
        concurrency_at_typical=concurrency(layout, blocks=chosen.blocks, length_tokens=typical),
        max_num_seqs=settled.max_num_seqs,
        max_num_batched_tokens=settled.max_num_batched_tokens,
        prefix_caching=settled.prefix_caching,
        saved_by_architecture=saved_by_architecture(shape, dtype=settled.dtype, kv_dtype=step.kv_dtype),
        reason=words.reason(question, chosen),
        alternatives=words.alternatives(question, found),
        gpu=_gpu(question, chosen),
    )


def _gpu(question: GpuQuestion, chosen: Candidate) -> GpuPlan:
    choice, pool = chosen.choice, chosen.choice.pool
    return GpuPlan(
        vendor=pool.vendor,
        access=pool.access,
        resource=pool.resource,
        selectors=pool.selectors,
        sharing=pool.sharing,
        clients=pool.clients,
        node_labels=dict(sorted(pool.node_labels.items())),
        device_bytes=pool.memory_bytes,
        compute_capability=pool.compute_capability,
        devices_per_pod=choice.devices_per_pod,
        nodes_per_replica=choice.nodes,
        pipeline_parallel=choice.pipeline,
        quantization=question.engine.online_fp8 if choice.step.weights else "",
        kv_scales=_kv_scales(question, chosen),
        graph_mode=choice.step.graph_mode,
        captured_sizes=chosen.captured_sizes,
        enforce_eager=choice.step.eager,
        memory_utilization=_utilization(chosen),
    )


def _backend(chosen: Candidate) -> str | None:
    """The attention backend to ask for, so that no other decides the pages; None where layers get several."""
    kernels = set(chosen.laid.paging.kernels)
    asked = kernels - _CHOSEN_BY_THE_ENGINE
    return asked.pop() if len(asked) == 1 and kernels <= asked | {"DEEPSEEK_V32_INDEXER"} else None


def _kv_scales(question: GpuQuestion, chosen: Candidate) -> str:
    """Where the scales of an fp8 cache come from; formats with scales of their own for every head need
    none."""
    stored = chosen.laid.settled.kv_dtype
    if not is_quantized(stored) or not stored.startswith("fp8") or stored.endswith("per_token_head"):
        return ""
    return "checkpoint" if question.model.shape.kv_dtype is not None else "1.0"


def _utilization(chosen: Candidate) -> str:
    """The share of a device that must be free when the engine starts (vllm/v1/worker/utils.py 0.32
    `request_memory`): what will be allocated after that check, rounded down. It is all that the flag does
    where the bytes of the KV cache are stated."""
    memory = chosen.budget.memory(kv_bytes=chosen.kv_bytes)
    after = memory.weights + memory.activation + memory.graphs + memory.kv
    thousandths = max(1, 1000 * after // whole_bytes(chosen.choice.pool))
    return f"{thousandths // 1000}.{thousandths % 1000:03d}"
