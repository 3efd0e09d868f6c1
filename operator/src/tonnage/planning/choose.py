"""The choice: the least lossy rung that fits one usable node, or a rejection that names the nearest plan
that would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tonnage.engines import EngineRules
from tonnage.gpus.nodes import Node
from tonnage.gpus.placement import Placement, select_nodes
from tonnage.models import ModelProfile
from tonnage.planning import words
from tonnage.planning.candidates import Candidate, Rung, rungs, size
from tonnage.planning.demand import Question
from tonnage.planning.memory import concurrency, engine_tokens
from tonnage.planning.plan import Alternative, Demand, Plan, Quality, Rejection
from tonnage.planning.rules import MAX_CONCURRENCY, first_rejection

_NO_PLACEMENT = Placement()


def plan_for(
    demand: Demand,
    *,
    model: ModelProfile,
    nodes: Sequence[Node] | None,
    engine: EngineRules,
    placement: Placement = _NO_PLACEMENT,
) -> Plan | Rejection:
    """The plan of one replica on CPU nodes, or why there is none; the same answer for the same arguments.

    Nodes decide only which rung is taken: as long as that stays, no figure of the plan depends on them. None
    stands for nodes that may not be read.
    """
    question = Question(
        demand=demand, model=model, engine=engine, selection=select_nodes(nodes, placement=placement)
    )
    rejection = first_rejection(question)
    if rejection is not None:
        return rejection
    room_bytes = max(node.memory_allocatable_bytes for node in question.selection.usable)
    candidates = [size(rung, question=question) for rung in rungs(question)]
    for position, candidate in enumerate(candidates):
        if candidate.request_bytes <= room_bytes:
            return _plan(question, candidate, lost=candidates[:position], unused=candidates[position + 1 :])
    return _not_enough_memory(question, candidates[-1], room_bytes=room_bytes)


def _plan(
    question: Question, chosen: Candidate, *, lost: Sequence[Candidate], unused: Sequence[Candidate]
) -> Plan:
    context, typical = question.context_tokens, question.typical_tokens
    layout, blocks = chosen.layout, chosen.blocks
    return Plan(
        engine_version=question.engine.version,
        engine_rules=question.engine.rules_version,
        pool="cpu",
        product="CPU",
        gpus_per_replica=0,
        tensor_parallel=1,
        context_length=context,
        concurrency=question.demand.concurrency,
        typical_tokens=typical,
        quality=chosen.rung.quality,
        weights_dtype=question.dtype,
        memory=chosen.memory,
        shared_memory_bytes=question.engine.shared_memory_bytes,
        request_bytes=chosen.request_bytes,
        kv_dtype=chosen.rung.kv_dtype,
        attention_backend=question.engine.latent_backend if question.latent else None,
        block_size=chosen.block_tokens,
        blocks=blocks,
        tokens=engine_tokens(layout, blocks=blocks, context_tokens=context),
        bytes_per_block=layout.bytes_per_block,
        concurrency_at_context=concurrency(layout, blocks=blocks, length_tokens=context),
        concurrency_at_typical=concurrency(layout, blocks=blocks, length_tokens=typical),
        max_num_seqs=question.demand.concurrency,
        max_num_batched_tokens=chosen.batched_tokens,
        prefix_caching=_prefix_caching(question),
        saved_by_architecture=words.saved_by_architecture(
            question.model.shape, dtype=question.dtype, kv_dtype=chosen.rung.kv_dtype
        ),
        reason=words.reason(question, chosen),
        alternatives=_alternatives(lost, unused),
    )


def _prefix_caching(question: Question) -> bool:
    if question.latent and not question.engine.chunks_latent_prefill:
        return False
    return question.demand.prefix_caching is not False


def _alternatives(lost: Sequence[Candidate], unused: Sequence[Candidate]) -> tuple[Alternative, ...]:
    # No figure of a node here: a plan must not change because a node joins.
    too_large = [
        Alternative(
            what=words.what(candidate.rung),
            why=f"needs {words.gib(candidate.request_bytes)}, more than any usable node has",
        )
        for candidate in lost
    ]
    too_lossy = [
        Alternative(
            what=words.what(candidate.rung),
            why=f"needs {words.gib(candidate.request_bytes)}, but a less lossy choice fits already",
        )
        for candidate in unused
    ]
    return (*too_large, *too_lossy)[:5]


def _not_enough_memory(question: Question, smallest: Candidate, *, room_bytes: int) -> Rejection:
    largest = max(question.selection.usable, key=lambda node: (node.memory_allocatable_bytes, node.name))
    needed = smallest.request_bytes
    remedies = _remedies(question, smallest.rung, room_bytes=room_bytes)
    return Rejection(
        reason="NotEnoughMemory",
        message=words.not_enough_memory(
            question,
            smallest,
            node=largest.name,
            room_bytes=room_bytes,
            remedies=[text for _, text, _ in remedies],
        ),
        numbers={
            "neededBytes": needed,
            "availableBytes": room_bytes,
            "missingBytes": needed - room_bytes,
            "node": largest.name,
            **{key: value for key, _, value in remedies},
        },
    )


def _remedies(question: Question, rung: Rung, *, room_bytes: int) -> list[tuple[str, str, int]]:
    """(key, words, value) for every single change of the demand that would make it fit."""
    found: list[tuple[str, str, int]] = []
    length = _largest(
        lambda value: _fits(_shorter(question, value), rung, room_bytes), question.context_tokens
    )
    if length:
        found.append(("maxContextLength", f"workload.contextLength <= {length}", length))
    requests = _largest(
        lambda value: _fits(_with(question, concurrency=value), rung, room_bytes),
        min(question.demand.concurrency, MAX_CONCURRENCY),
    )
    if requests:
        found.append(("maxConcurrency", f"workload.concurrency <= {requests}", requests))
    relaxed = _with(question, quality=Quality.NEAR_LOSSLESS)
    if question.demand.kv_dtype is None and question.demand.quality is Quality.LOSSLESS:
        for lossier in rungs(relaxed)[1:]:
            if _fits(relaxed, lossier, room_bytes):
                found.append(("nearLosslessFits", "quality: NearLossless", 1))
    return found


def _with(question: Question, *, concurrency: int | None = None, quality: Quality | None = None) -> Question:
    demand = question.demand
    changed = replace(
        demand,
        concurrency=demand.concurrency if concurrency is None else concurrency,
        quality=demand.quality if quality is None else quality,
    )
    return replace(question, demand=changed)


def _shorter(question: Question, context_tokens: int) -> Question:
    typical = question.demand.typical_tokens
    demand = replace(
        question.demand,
        context_length=context_tokens,
        typical_tokens=None if typical is None else min(typical, context_tokens),
    )
    return replace(question, demand=demand)


def _fits(question: Question, rung: Rung, room_bytes: int) -> bool:
    return size(rung, question=question).request_bytes <= room_bytes


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest value in 1..`most` that fits, 0 if none; `fits` holds up to some value and not beyond."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
