"""A plan's sentences: short, with numbers, and free of anything that changes without the plan changing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tonnage.models import ModelShape
from tonnage.planning.candidates import Candidate, Rung
from tonnage.planning.demand import Question
from tonnage.planning.memory import concurrency
from tonnage.planning.plan import Quality
from tonnage.planning.savings import savings

MAX_REASON = 512
_GIB = 2**30
_LEARNED = re.compile(r", by what \d+ starts? held:")


def gib(amount_bytes: int) -> str:
    """Bytes as GiB with two decimals."""
    return f"{amount_bytes / _GIB:.2f} GiB"


def what(rung: Rung) -> str:
    """A rung in words."""
    stored = "as shipped" if rung.kv_dtype == "auto" else f"in {rung.kv_dtype}"
    return f"{rung.quality}: KV cache {stored}"


def reason(question: Question, chosen: Candidate) -> str:
    """Why this plan: one sentence of at most 512 characters."""
    context, typical = question.context_tokens, question.typical_tokens
    memory = chosen.memory
    at_context = concurrency(chosen.layout, blocks=chosen.blocks, length_tokens=context)
    at_typical = concurrency(chosen.layout, blocks=chosen.blocks, length_tokens=typical)
    sentence = (
        f"{what(chosen.rung)} is the {_place(question, chosen.rung)}: {chosen.blocks} blocks of "
        f"{chosen.layout.bytes_per_block} bytes hold {at_typical:.2f} requests of {typical} tokens "
        f"({question.demand.concurrency} asked) or {at_context:.2f} of {context}; with {gib(memory.kv)} of "
        f"KV, {gib(memory.weights)} of weights, {gib(memory.activation)} of activations and "
        f"{gib(_engine_bytes(question, chosen))} for the engine the pod needs {gib(chosen.request_bytes)}"
    )
    if question.engine.assumed:
        sentence += (
            f"; vLLM {question.engine.version} is planned by the rules of {question.engine.rules_version}"
        )
    return sentence[:MAX_REASON]


def saved_by_architecture(shape: ModelShape, *, dtype: str, kv_dtype: str) -> str:
    """KV bytes per token against the same model with multi-head attention, and what windows forget."""
    saved = savings(shape, dtype=dtype, kv_dtype=kv_dtype)
    name = saved.techniques[0].partition(":")[0] if saved.techniques else "this model"
    stored, plain = saved.bytes_per_token, saved.plain_bytes_per_token
    if not stored:
        return "; ".join([f"{name} stores nothing that grows with a request", *saved.techniques[1:]])
    text = f"{name} stores {stored} bytes per token, "
    text += (
        "so heads save nothing"
        if stored == plain
        else f"{plain / stored:.1f}x less than multi-head attention"
    )
    return "; ".join([text, *saved.techniques[1:]])


def not_enough_memory(
    question: Question, smallest: Candidate, *, node: str, room_bytes: int, remedies: Sequence[str]
) -> str:
    """What is needed, what there is, and the nearest demands that would fit."""
    memory = smallest.memory
    fixed_bytes = smallest.request_bytes - memory.kv
    usable = len(question.selection.usable)
    text = (
        f"one replica needs {gib(smallest.request_bytes)} (KV {gib(memory.kv)} for "
        f"{question.demand.concurrency} requests of {question.typical_tokens} tokens or one of "
        f"{question.context_tokens}, {what(smallest.rung)}; weights {gib(memory.weights)}, "
        f"activations {gib(memory.activation)}, engine {gib(_engine_bytes(question, smallest))}), but the "
        f"largest of {usable} usable node{'' if usable == 1 else 's'}, {node}, has {gib(room_bytes)} "
        "allocatable"
    )
    if remedies:
        return f"{text}; it would fit with {', or '.join(remedies)}"
    if fixed_bytes > room_bytes:
        return f"{text}; {gib(fixed_bytes)} of it is not KV: use a larger node or a smaller model"
    return f"{text}; no single change of contextLength or concurrency makes it fit: use a larger node"


def _engine_bytes(question: Question, candidate: Candidate) -> int:
    """What the engine's processes take for themselves, with their shared memory."""
    return candidate.memory.non_torch + question.engine.shared_memory_bytes


def _place(question: Question, rung: Rung) -> str:
    if question.demand.kv_dtype is not None:
        return "pinned choice"
    return "least lossy choice" if rung.quality is Quality.LOSSLESS else "least lossy choice that fits a node"


def learned_from(starts: int) -> str:
    """What a plan's reason says of starts that taught its bytes, empty where none did."""
    return f", by what {starts} start{'s' if starts > 1 else ''} held" if starts else ""


def is_learned(reason: str) -> bool:
    """Whether a plan's reason says that starts taught its bytes."""
    return _LEARNED.search(reason) is not None
