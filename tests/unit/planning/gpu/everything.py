"""A search that leaves nothing out, to compare the planner's with: every step, pool, rank and batch is
sized."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tonnage.gpus.inventory import Pool, Sharing
from tonnage.planning.gpu import rules
from tonnage.planning.gpu.candidates import MAX_STAGES, Candidate, Choice, Sizer, batches
from tonnage.planning.gpu.ladder import Step, steps
from tonnage.planning.gpu.question import GpuQuestion
from tonnage.planning.gpu.search import rank
from tonnage.planning.settle import RefusedError
from tonnage.planning.weights import IndivisibleError

_MOST = 16


def best_of_everything(question: GpuQuestion) -> Candidate | None:
    """The best of all candidates that obey every rule."""
    if rules.first_rejection(question) is not None:
        return None
    held = [
        (number, *rank(question, candidate), candidate)
        for number, step in enumerate(steps(question))
        for pool in question.pools
        for candidate in _of_pool(question, step, pool)
        if rules.devices_free(question, candidate.choice) is None
    ]
    return min(held, key=lambda each: each[:-1])[-1] if held else None


def _of_pool(question: GpuQuestion, step: Step, pool: Pool) -> Iterator[Candidate]:
    sizer = Sizer(question)
    if rules.pool_rejection(question, pool) or rules.step_rejection(question, pool, step, sizer=sizer):
        return
    stages = question.hardware.pipeline_parallel or 1
    tensors = [
        tensor
        for tensor in range(1, min(_MOST, pool.devices_per_pod) + 1)
        if _thinkable(tensor, question, pool)
    ]
    on_one = [tensor for tensor in tensors if tensor * stages <= pool.devices_per_pod]
    yield from _fitting(question, step, pool, [(tensor, stages) for tensor in on_one])
    without_graphs = replace(step, eager=True)
    if list(_fitting(question, without_graphs, pool, [(tensor, stages) for tensor in on_one])):
        return
    if pool.sharing is not Sharing.NONE:
        return
    divisible = [tensor for tensor in tensors if _divides(question, step, pool, tensor)]
    able = sum(node.devices >= max(divisible, default=0) for node in pool.nodes)
    over = range(2, min(MAX_STAGES, able) + 1) if question.hardware.pipeline_parallel is None else [stages]
    ranks = [(max(divisible), count) for count in over if divisible and count > 1]
    spread = [each for each in ranks if each[0] * each[1] > pool.devices_per_pod]
    yield from _fitting(question, step, pool, spread)


def _fitting(
    question: GpuQuestion, step: Step, pool: Pool, ranks: list[tuple[int, int]]
) -> Iterator[Candidate]:
    for tensor, pipeline in ranks:
        for tokens in batches(question, pool):
            choice = Choice(step=step, pool=pool, tensor=tensor, pipeline=pipeline, batched_tokens=tokens)
            found = rules.sized(question, choice, sizer=Sizer(question))
            if isinstance(found, Candidate):
                yield found


def _divides(question: GpuQuestion, step: Step, pool: Pool, tensor: int) -> bool:
    tokens = batches(question, pool)[-1]
    choice = Choice(step=step, pool=pool, tensor=tensor, pipeline=1, batched_tokens=tokens)
    try:
        Sizer(question).size(choice)
    except (RefusedError, IndivisibleError):
        return False
    return True


def _thinkable(tensor: int, question: GpuQuestion, pool: Pool) -> bool:
    pinned = question.hardware.tensor_parallel
    if pinned is not None:
        return tensor == pinned
    return tensor & (tensor - 1) == 0 or tensor == pool.devices_per_pod
