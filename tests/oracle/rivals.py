"""What the planner did not choose though it would have been better: less lossy, or on fewer GPUs. By an
enumeration of its own, which leaves out only what is held already by something listed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

from oracle import starts
from oracle.client import Oracle
from oracle.engine.case import Answer
from oracle.validity import holds
from tonnage.gpus.inventory import Pool, Sharing
from tonnage.planning.candidates import MARGIN_BLOCKS
from tonnage.planning.gpu import rules
from tonnage.planning.gpu.candidates import Candidate, Choice, Sizer, batches
from tonnage.planning.gpu.ladder import QUALITIES, Step, steps
from tonnage.planning.gpu.question import GpuQuestion, usable_bytes
from tonnage.planning.gpu.search import search
from tonnage.planning.settle import RefusedError
from tonnage.planning.weights import IndivisibleError

_LEAST_BESIDE: Final = 2 * 2**30
"""What an engine takes of a card beside weights and cache at the very least: the context, workspaces, one
step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """One of them. `candidate` is what the planner makes of it, None where its rules say that the engine
    refuses it: `refused`."""

    choice: Choice
    candidate: Candidate | None
    weight_bytes: int
    refused: str = ""

    @property
    def nearness(self) -> Fraction:
        """Blocks for each that is needed, by the planner."""
        if self.candidate is None:
            return Fraction(0)
        return Fraction(self.candidate.blocks, self.candidate.needed_blocks)

    @property
    def kv_bytes(self) -> int:
        """What the budget leaves for its cache; of a refused one nearly all that the weights leave."""
        if self.candidate is not None:
            return max(1, self.candidate.budget.kv_bytes)
        return max(1, usable_bytes(self.choice.pool) - self.weight_bytes - _LEAST_BESIDE)

    @property
    def name(self) -> str:
        """For people."""
        step = self.choice.step
        graphs = "eager" if step.eager else "graphs"
        return (
            f"{self.choice.pool.product} {self.choice.tensor}x{self.choice.pipeline} KV {step.kv_dtype} "
            f"weights {step.weights or 'shipped'} {graphs}"
        )


def rivals(question: GpuQuestion) -> list[Rival]:
    """All rivals of what is chosen, the nearest to fitting first, those that our rules refuse last."""
    chosen = search(question).chosen
    if chosen is None:
        return []
    sizer = Sizer(question)
    found = [_rival(choice, sizer) for choice in _choices(question, chosen.choice)]
    return sorted(found, key=lambda each: (-each.nearness, each.name))


def valid_after_all(
    rival: Rival, question: GpuQuestion, oracle: Oracle, *, files: tuple[Mapping[str, Any], Any]
) -> str:
    """Why a rival should have been chosen by the engine's own figures; "" where it should not."""
    kv_bytes = rival.kv_bytes
    answer = _ask(rival, question, oracle, files, kv_bytes)
    lighter = rival.weight_bytes - (answer.weight_bytes or rival.weight_bytes)
    if lighter > 0 or (rival.candidate is None and answer.weight_bytes is not None):
        # The engine's weights leave more, or tell what is left at all.
        left = replace(rival, weight_bytes=answer.weight_bytes or 0)
        kv_bytes = left.kv_bytes if rival.candidate is None else kv_bytes + lighter
        answer = _ask(rival, question, oracle, files, kv_bytes)
    lengths = ((question.context_tokens, 1), (question.typical_tokens, question.demand.concurrency))
    fits = all(
        holds(answer, length_tokens=length, requests=requests, spare_blocks=MARGIN_BLOCKS)
        for length, requests in lengths
    )
    if not fits:
        return ""
    return f"{rival.name} holds the workload in {kv_bytes} bytes; the planner: {rival.refused or 'too small'}"


def _ask(
    rival: Rival,
    question: GpuQuestion,
    oracle: Oracle,
    files: tuple[Mapping[str, Any], Any],
    kv_bytes: int,
) -> Answer:
    config, quantization = files
    return oracle.check(
        starts.of_choice(
            question, rival.choice, config=config, hf_quant_config=quantization, kv_bytes=kv_bytes
        )
    )


def _rival(choice: Choice, sizer: Sizer) -> Rival:
    weights = 0
    try:
        weights = sizer.weights(choice)
        return Rival(choice=choice, candidate=sizer.size(choice), weight_bytes=weights)
    except (RefusedError, IndivisibleError) as error:
        return Rival(choice=choice, candidate=None, weight_bytes=weights, refused=str(error))


def _choices(question: GpuQuestion, chosen: Choice) -> Iterator[Choice]:
    order = list(steps(question))
    better = order[: order.index(chosen.step)]
    for step in better:
        if step.eager or replace(step, eager=True) not in better:
            # Without CUDA graphs there is more room: that is looked at where it comes first too.
            yield from _of_step(question, step, chosen)
    yield from _of_step(question, chosen.step, chosen)


def _of_step(question: GpuQuestion, step: Step, chosen: Choice) -> Iterator[Choice]:
    for pool in question.pools:
        objects = rules.pool_rejection(question, pool) or next(
            (found for rule in rules.STEP_CHAIN if (found := rule(question, pool, step)) is not None), None
        )
        if objects is not None:
            continue
        for tensor, pipeline in _ranks(pool, spread=_better(step, chosen.step)):
            if step == chosen.step and tensor * pipeline >= chosen.gpus:
                continue
            tokens = batches(question, pool)[-1]
            choice = Choice(step=step, pool=pool, tensor=tensor, pipeline=pipeline, batched_tokens=tokens)
            if rules.devices_free(question, choice) is None:
                yield choice


def _better(step: Step, chosen: Step) -> bool:
    return QUALITIES.index(step.quality) < QUALITIES.index(chosen.quality)


def _ranks(pool: Pool, *, spread: bool) -> Iterator[tuple[int, int]]:
    """Powers of two on one node and all that it has; over several nodes only for a better rung, since a plan
    on one node is preferred to them."""
    most = pool.devices_per_pod
    sizes = sorted({2**exponent for exponent in range(most.bit_length())} | {most})
    yield from ((tensor, 1) for tensor in sizes)
    if spread and pool.sharing is Sharing.NONE:
        yield from ((most, stages) for stages in range(2, len(pool.nodes) + 1))
