"""The search: step by step down the ladder, GPU count by GPU count, until something fits and is free.

What is left out cannot win: it stands on a lower step, takes more GPUs, or fails in the mode that needs
least. `tests/unit/planning/gpu` compares with a search that leaves nothing out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

from tonnage.gpus.inventory import Pool
from tonnage.planning.gpu import rules
from tonnage.planning.gpu.candidates import (
    Candidate,
    Choice,
    Sizer,
    batches,
    may_spread,
    single_node_ranks,
)
from tonnage.planning.gpu.ladder import Step, steps
from tonnage.planning.gpu.question import GpuQuestion
from tonnage.planning.plan import Rejection


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What is against a choice: `fits` says that only devices are missing, and then `candidate` is there."""

    choice: Choice | None
    rejection: Rejection
    candidate: Candidate | None = None

    @property
    def fits(self) -> bool:
        """Whether it would be taken if devices were free."""
        return self.candidate is not None


@dataclass(slots=True, kw_only=True)
class StepFound:
    """What became of one step: candidates that fit and are free on as few GPUs as any, the best first, and
    what was against the others."""

    step: Step
    placed: tuple[Candidate, ...] = ()
    lost: list[Lost] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The steps that were looked at, in order; the last has what was chosen, if anything was."""

    steps: tuple[StepFound, ...]
    refused_pools: tuple[tuple[Pool, Rejection], ...]

    @property
    def chosen(self) -> Candidate | None:
        """The best candidate."""
        return self.steps[-1].placed[0] if self.steps and self.steps[-1].placed else None


def search(question: GpuQuestion) -> Found:
    """The first step on which the workload fits something that is free, and the best that does."""
    pools, refused = _split(question)
    sizer, looked_at = Sizer(question), []
    for step in steps(question):
        found = _on_step(question, step, pools=pools, sizer=sizer)
        looked_at.append(found)
        if found.placed:
            break
    return Found(steps=tuple(looked_at), refused_pools=tuple(refused))


def possible(question: GpuQuestion) -> bool:
    """Whether `search` would find something; what fits with CUDA graphs fits without, and the lossiest step
    is the likeliest."""
    pools, _ = _split(question)
    sizer = Sizer(question)
    without_graphs = (step for step in reversed(steps(question)) if step.eager)
    return any(_on_step(question, step, pools=pools, sizer=sizer).placed for step in without_graphs)


def rank(question: GpuQuestion, candidate: Candidate) -> tuple[Any, ...]:
    """Order among candidates of one step: fewest GPUs, cost, many tokens at once, headroom, then names."""
    choice = candidate.choice
    price = question.price_of(choice.pool)
    return (
        choice.gpus,
        price is None,
        0 if price is None else price * choice.gpus,
        -choice.batched_tokens,
        -headroom(candidate),
        choice.pool.name,
        choice.pipeline,
    )


def headroom(candidate: Candidate) -> Fraction:
    """Blocks that there are for each that the workload needs."""
    return Fraction(candidate.blocks, candidate.needed_blocks)


def _split(question: GpuQuestion) -> tuple[list[Pool], list[tuple[Pool, Rejection]]]:
    kept, refused = [], []
    for pool in question.pools:
        rejection = rules.pool_rejection(question, pool)
        if rejection is None:
            kept.append(pool)
        else:
            refused.append((pool, rejection))
    return kept, refused


def _on_step(question: GpuQuestion, step: Step, *, pools: Sequence[Pool], sizer: Sizer) -> StepFound:
    found, runs = StepFound(step=step), []
    for pool in pools:
        rejection = rules.step_rejection(question, pool, step, sizer=sizer)
        if rejection is None:
            runs.append(_PoolOnStep(question, step, pool=pool, sizer=sizer))
        else:
            found.lost.append(Lost(choice=None, rejection=rejection))
    for gpus in sorted({count for run in runs for count in run.counts}):
        fitting = [candidate for run in runs for candidate in run.of(gpus, lost=found.lost)]
        placed = []
        for candidate in fitting:
            rejection = rules.devices_free(question, candidate.choice)
            if rejection is None:
                placed.append(candidate)
            else:
                found.lost.append(Lost(choice=candidate.choice, rejection=rejection, candidate=candidate))
        if placed:
            found.placed = tuple(sorted(placed, key=lambda each: rank(question, each)))
            break
    return found


class _PoolOnStep:
    """One pool on one step, GPU count by GPU count: replicas of several nodes only where no single node is
    large enough, be it without CUDA graphs, free or not."""

    def __init__(self, question: GpuQuestion, step: Step, *, pool: Pool, sizer: Sizer) -> None:
        self._question, self._step, self._pool, self._sizer = question, step, pool, sizer
        self._single = single_node_ranks(question, pool)
        counts = {tensor * pipeline for tensor, pipeline in self._single}
        self._may_spread = may_spread(question, pool)
        counts |= {tensor * pipeline for tensor, pipeline in self._spread} if self._may_spread else set()
        self.counts = sorted(counts)
        """How many devices a replica may have."""

    @cached_property
    def _spread(self) -> tuple[tuple[int, int], ...]:
        return self._sizer.spread_ranks(self._step, self._pool)

    @cached_property
    def _one_node_fits(self) -> bool:
        eagerly = replace(self._step, eager=True)
        tokens = batches(self._question, self._pool)[-1]
        choices = (
            Choice(step=eagerly, pool=self._pool, tensor=tensor, pipeline=pipeline, batched_tokens=tokens)
            for tensor, pipeline in reversed(self._single)
        )
        outcomes = (rules.sized(self._question, choice, sizer=self._sizer) for choice in choices)
        return any(isinstance(found, Candidate) for found in outcomes)

    def of(self, gpus: int, *, lost: list[Lost]) -> Iterator[Candidate]:
        """What fits of replicas of `gpus`; what does not is added to `lost`."""
        yield from self._fitting(self._single, gpus, lost)
        if self._may_spread and any(tensor * pipeline == gpus for tensor, pipeline in self._spread):
            yield from () if self._one_node_fits else self._fitting(self._spread, gpus, lost)

    def _fitting(self, ranks: Sequence[tuple[int, int]], gpus: int, lost: list[Lost]) -> Iterator[Candidate]:
        for tensor, pipeline in ranks:
            if tensor * pipeline != gpus:
                continue
            found = self._in_some_batch(tensor, pipeline)
            if isinstance(found, Lost):
                lost.append(found)
            else:
                yield found

    def _in_some_batch(self, tensor: int, pipeline: int) -> Candidate | Lost:
        """The choice with as many tokens at once as it fits with, or what is against it with the fewest."""
        choices = [
            Choice(step=self._step, pool=self._pool, tensor=tensor, pipeline=pipeline, batched_tokens=tokens)
            for tokens in batches(self._question, self._pool)
        ]
        leanest = rules.sized(self._question, choices[-1], sizer=self._sizer)
        if isinstance(leanest, Rejection):
            return Lost(choice=choices[-1], rejection=leanest)
        outcomes = (rules.sized(self._question, choice, sizer=self._sizer) for choice in choices[:-1])
        return next((each for each in outcomes if isinstance(each, Candidate)), leanest)
