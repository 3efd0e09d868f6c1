"""Sentences of plans on GPUs: short, with numbers, and free of anything that changes without the plan
changing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from tonnage.gpus.inventory import Sharing
from tonnage.planning.gpu import rules
from tonnage.planning.gpu.candidates import Candidate
from tonnage.planning.gpu.ladder import FP8, Step
from tonnage.planning.gpu.question import GpuQuestion, usable_bytes
from tonnage.planning.gpu.search import Found, Lost, StepFound, headroom, rank
from tonnage.planning.memory import concurrency
from tonnage.planning.plan import Alternative, Quality
from tonnage.planning.words import MAX_REASON, gib, learned_from

MAX_ALTERNATIVES = 5
_MOST_LOSSLESS = 3


def what(step: Step) -> str:
    """A step in words."""
    stored = "as shipped" if step.kv_dtype == "auto" else f"in {step.kv_dtype}"
    eager = " without CUDA graphs" if step.eager else ""
    if step.kv_dtype == "auto" and not step.weights:
        return f"{step.quality}: weights and KV cache as shipped{eager}"
    weights = f"in {FP8}" if step.weights else "as shipped"
    return f"{step.quality}: weights {weights}, KV cache {stored}{eager}"


def reason(question: GpuQuestion, chosen: Candidate) -> str:
    """Why this plan: one sentence of at most 512 characters."""
    choice, layout = chosen.choice, chosen.laid.layout
    memory = chosen.budget.memory(kv_bytes=chosen.kv_bytes)
    context, typical = question.context_tokens, question.typical_tokens
    at_context = concurrency(layout, blocks=chosen.blocks, length_tokens=context)
    at_typical = concurrency(layout, blocks=chosen.blocks, length_tokens=typical)
    sentence = (
        f"{what(choice.step)} on {rules.describe(choice)} is {_place(question, choice.step)}: of "
        f"{_of_each(chosen)}weights{_adapters(question)} take {gib(memory.weights)}, activations and bursts "
        f"{gib(memory.activation + memory.burst_margin)}, {_graphs(chosen)}the rest of the engine "
        f"{gib(memory.context + memory.non_torch)} and the KV cache {gib(memory.kv)}"
        f"{learned_from(chosen.starts)}: {chosen.blocks} blocks "
        f"hold {at_typical:.2f} requests of {typical} tokens ({question.demand.concurrency} asked) or "
        f"{at_context:.2f} of {context}"
    )
    if question.engine.assumed:
        sentence += (
            f"; vLLM {question.engine.version} is planned by the rules of {question.engine.rules_version}"
        )
    return sentence[:MAX_REASON]


def _of_each(chosen: Candidate) -> str:
    pool = chosen.choice.pool
    size = gib(usable_bytes(pool))
    if pool.sharing is Sharing.TIME_SLICING:
        return f"{size}, a share of 1/{pool.clients} of a card that nothing keeps others from filling, "
    return f"{size} " if chosen.choice.gpus == 1 else f"{size} each "


def _adapters(question: GpuQuestion) -> str:
    adapters = question.adapters
    if adapters is None:
        return ""
    return f" with {adapters.slots} slot{'s' * (adapters.slots > 1)} of LoRA adapters of rank {adapters.rank}"


def _graphs(chosen: Candidate) -> str:
    taken = chosen.budget.graphs.upper
    return f"CUDA graphs {gib(taken)}, " if taken else ""


def _place(question: GpuQuestion, step: Step) -> str:
    if question.demand.kv_dtype is not None or question.hardware.quantization is not None:
        return "the least lossy that fits what is pinned"
    return "the least lossy" if step.quality is Quality.LOSSLESS else "the least lossy that fits"


def alternatives(question: GpuQuestion, found: Found) -> tuple[Alternative, ...]:
    """At most five things that were not chosen: less lossy ones first, then others as lossy."""
    with_graphs = (each for each in found.steps[:-1] if not each.step.eager)
    lost = [text for each in with_graphs if (text := _lost_step(question, each)) is not None]
    rivals = list(_rivals(question, found.steps[-1].placed))
    first = lost[: max(_MOST_LOSSLESS, MAX_ALTERNATIVES - len(rivals))]
    return (*first, *islice(rivals, MAX_ALTERNATIVES - len(first)))


def _lost_step(question: GpuQuestion, found: StepFound) -> Alternative | None:
    """What became of a less lossy step, None where no pool takes it at all.

    On one node, where there is such a choice: how many nodes could share a replica changes when one joins,
    and what a plan says must not, since it is a part of the plan.
    """
    on_one = [each for each in found.lost if each.choice is None or each.choice.nodes == 1]
    closest = nearest(question, on_one)
    if closest is None or closest.choice is None:
        closest = nearest(question, found.lost)
    if closest is None or closest.choice is None:
        return None
    if not closest.fits:
        return Alternative(what=what(found.step), why=closest.rejection.message)
    return Alternative(
        what=what(found.step), why=f"fits {rules.describe(closest.choice)}, but {closest.rejection.message}"
    )


def nearest(question: GpuQuestion, lost: Iterable[Lost]) -> Lost | None:
    """The one that came closest: only devices were missing, then memory, then anything else; of equals the
    first, which stands on the least lossy step."""
    return min(lost, key=lambda each: _distance(question, each), default=None)


def _distance(question: GpuQuestion, lost: Lost) -> tuple[int, int, int, str]:
    choice, missing = lost.choice, lost.rejection.numbers.get("missingBytes")
    if choice is None:
        return (4, 0, 0, "")
    if lost.fits:
        return (0, rules.missing_devices(question, choice), choice.gpus, choice.pool.name)
    if isinstance(missing, int):
        # Of what weights leave no room for, the cache is not even counted.
        farther = 1 if lost.rejection.reason == "WorkloadDoesNotFit" else 2
        return (farther, missing * choice.gpus, choice.gpus, choice.pool.name)
    return (3, 0, choice.gpus, choice.pool.name)


def _rivals(question: GpuQuestion, placed: tuple[Candidate, ...]) -> Iterator[Alternative]:
    chosen, *others = placed
    for other in others:
        yield Alternative(
            what=f"{what(other.choice.step)} on {rules.describe(other.choice)}",
            why=_why_behind(question, other, chosen),
        )


def _why_behind(question: GpuQuestion, other: Candidate, chosen: Candidate) -> str:
    """The first of the reasons by which candidates are ranked that tells the two apart."""
    ours, theirs = rank(question, chosen), rank(question, other)
    if ours[1] != theirs[1]:
        return "fits as few GPUs, but has no price"
    if ours[2] != theirs[2]:
        return f"fits as few GPUs, but costs {theirs[2]} an hour, not {ours[2]}"
    if ours[3] != theirs[3]:
        return f"computes {-theirs[3]} tokens at once, not {-ours[3]}"
    if ours[4] != theirs[4]:
        return f"holds {float(headroom(other)):.2f} times the workload, not {float(headroom(chosen)):.2f}"
    return "is as good; the first by name was taken"
