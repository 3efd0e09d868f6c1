"""The engine's start that a plan, or something that was not chosen, describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oracle.engine.case import Card, Case
from tonnage.gpus.cards import accelerator_named
from tonnage.planning.gpu.candidates import Choice
from tonnage.planning.gpu.question import GpuQuestion
from tonnage.planning.plan import Plan

Json = Mapping[str, Any]


def of_plan(plan: Plan, *, config: Json, hf_quant_config: Json | None) -> Case:
    """The start of a plan: `rendering.engine_arguments` by the names of `EngineArgs`, and what a plan on GPUs
    says beside."""
    arguments: dict[str, Any] = {
        "dtype": plan.weights_dtype,
        "max_model_len": plan.context_length,
        "kv_cache_dtype": plan.kv_dtype,
        "block_size": plan.block_size,
        "max_num_seqs": plan.max_num_seqs,
        "max_num_batched_tokens": plan.max_num_batched_tokens,
        "tensor_parallel_size": plan.tensor_parallel,
        "enable_prefix_caching": plan.prefix_caching,
        "enforce_eager": plan.gpu is None or plan.gpu.enforce_eager,
    }
    if plan.attention_backend is not None:
        arguments["attention_backend"] = plan.attention_backend
    card = None
    if plan.gpu is not None:
        gpu = plan.gpu
        arguments["pipeline_parallel_size"] = gpu.pipeline_parallel
        if gpu.quantization:
            arguments["quantization"] = gpu.quantization
        if gpu.captured_sizes:
            arguments["cudagraph_capture_sizes"] = list(gpu.captured_sizes)
        card = _card(gpu.compute_capability, plan.product, gpu.device_bytes)
    return Case(
        config=config,
        hf_quant_config=hf_quant_config,
        card=card,
        arguments=arguments,
        kv_bytes=plan.memory.kv,
        lengths=(plan.context_length, plan.typical_tokens),
    )


def of_choice(
    question: GpuQuestion, choice: Choice, *, config: Json, hf_quant_config: Json | None, kv_bytes: int
) -> Case:
    """The start of something that was not chosen, with `kv_bytes` of cache; what the planner would work out
    for it is left to the engine."""
    demand = question.demand
    arguments: dict[str, Any] = {
        "dtype": question.dtype or "auto",
        "max_model_len": question.context_tokens,
        "kv_cache_dtype": choice.step.kv_dtype,
        "max_num_seqs": demand.concurrency,
        "max_num_batched_tokens": choice.batched_tokens,
        "tensor_parallel_size": choice.tensor,
        "pipeline_parallel_size": choice.pipeline,
        "enforce_eager": choice.step.eager,
    }
    if demand.prefix_caching is not None:
        arguments["enable_prefix_caching"] = demand.prefix_caching
    if choice.step.weights:
        arguments["quantization"] = question.engine.online_fp8
    pool = choice.pool
    return Case(
        config=config,
        hf_quant_config=hf_quant_config,
        card=_card(pool.compute_capability, pool.product, pool.memory_bytes),
        arguments=arguments,
        kv_bytes=kv_bytes,
        lengths=(question.context_tokens, question.typical_tokens),
    )


def _card(capability: tuple[int, int] | None, product: str, memory_bytes: int) -> Card:
    if capability is None:
        raise ValueError(f"{product} has no compute capability: only NVIDIA's cards are faked")
    known = accelerator_named(product)
    name = product if known is None else known.product
    return Card(compute_capability=capability, name=name, memory_bytes=memory_bytes)
