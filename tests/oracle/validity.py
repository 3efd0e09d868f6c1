"""Whether the engine's own figures bear a plan out: a pure function of a plan and an answer."""

from __future__ import annotations

from collections.abc import Iterator

from oracle.engine.case import Answer
from tonnage.planning.plan import Plan

HELD_BACK = 1
"""vllm/v1/core/block_pool.py 0.32: block 0 is never given to a request."""


def objections(plan: Plan, answer: Answer) -> tuple[str, ...]:
    """What is wrong with a plan by the answer to exactly its arguments and bytes; empty where it is valid."""
    if not answer.started:
        return (f"refused ({answer.stage}): {answer.refused}",)
    return tuple(_objections(plan, answer))


def _objections(plan: Plan, answer: Answer) -> Iterator[str]:
    figures = (
        ("blocks", plan.blocks, answer.blocks),
        ("bytes of a block", plan.bytes_per_block, answer.block_bytes),
        ("tokens", plan.tokens, answer.tokens),
        ("requests at contextLength", plan.concurrency_at_context, answer.concurrency),
        (
            "requests at typicalTokens",
            plan.concurrency_at_typical,
            answer.requests.get(plan.typical_tokens),
        ),
        ("tokens of a block", plan.block_size, answer.block_tokens),
    )
    for name, planned, found in (*figures, *_settings(plan, answer)):
        if planned != found:
            yield f"{name}: {planned} planned, {found} by the engine"
    if not holds(answer, length_tokens=plan.context_length, requests=1):
        yield f"one request of {plan.context_length} tokens does not fit"
    if not holds(answer, length_tokens=plan.typical_tokens, requests=plan.concurrency):
        yield f"{plan.concurrency} requests of {plan.typical_tokens} tokens do not fit"
    if answer.weight_bytes is None or answer.weight_bytes > plan.memory.weights:
        yield f"weights: {plan.memory.weights} bytes planned, {answer.weight_bytes} by the engine"
    if not answer.kv_dtype_served or not answer.backends:
        yield f"{plan.kv_dtype} is served by no backend there ({', '.join(answer.backends)})"
    if plan.attention_backend is not None and plan.attention_backend not in answer.backends:
        yield f"{plan.attention_backend} planned, {', '.join(answer.backends)} by the engine"


def _settings(plan: Plan, answer: Answer) -> Iterator[tuple[str, object, object]]:
    found = answer.settings
    yield "dtype", plan.weights_dtype, found["dtype"]
    yield "max_model_len", plan.context_length, found["max_model_len"]
    yield "max_num_seqs", plan.max_num_seqs, found["max_num_seqs"]
    yield "max_num_batched_tokens", plan.max_num_batched_tokens, found["max_num_batched_tokens"]
    yield "prefix caching", plan.prefix_caching, found["prefix_caching"]
    if plan.gpu is not None:
        yield "sizes of CUDA graphs", list(plan.gpu.captured_sizes), found["captured_sizes"]
    if plan.gpu is not None and plan.gpu.quantization:
        yield "quantization", plan.gpu.quantization, found["quantization"]


def holds(answer: Answer, *, length_tokens: int, requests: int, spare_blocks: int = 0) -> bool:
    """Whether the cache holds as many requests of a length, by the engine's own count of blocks for one of
    them, without the block that it holds back and `spare_blocks`."""
    at_once, blocks = answer.requests.get(length_tokens), answer.blocks
    if not at_once or blocks is None:
        return False
    for_one = round(blocks / at_once)
    return blocks - HELD_BACK - spare_blocks >= requests * for_one
