"""Where nothing fits: what is missing, and the nearest changes of the demand, or of the cluster, with which a
plan would be found. Each was searched for, none is a guess."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from tonnage.gpus.inventory import Pool, PoolNode, Sharing
from tonnage.planning.gpu import rules, words
from tonnage.planning.gpu.candidates import Choice
from tonnage.planning.gpu.ladder import QUALITIES
from tonnage.planning.gpu.question import GpuQuestion, Hardware
from tonnage.planning.gpu.search import Found, Lost, possible, search
from tonnage.planning.plan import Rejection
from tonnage.planning.words import gib

_MOST_REMEDIES: Final = 4
_PROBES: Final = 64
_LARGEST_NODE: Final = 16


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change: `key` and `value` for programs, `text` for people."""

    key: str
    text: str
    value: int


def not_possible(question: GpuQuestion, found: Found, *, explain: bool = True) -> Rejection:
    """The rejection of a question that has no plan; to `explain`, remedies are searched for."""
    remedies = tuple(_remedies(question, found))[:_MOST_REMEDIES] if explain else ()
    lost = [each for step in found.steps for each in step.lost]
    closest = words.nearest(question, lost)
    text = _what_is_missing(found, closest) + _lacking(question, closest)
    if remedies:
        text += f"; it would fit with {', or '.join(remedy.text for remedy in remedies)}"
    return Rejection(
        reason=_reason(found, closest),
        message=text[:1024],
        numbers={remedy.key: remedy.value for remedy in remedies},
    )


def _reason(found: Found, closest: Lost | None) -> str:
    if closest is None:
        reasons = {rejection.reason for _, rejection in found.refused_pools}
        return reasons.pop() if len(reasons) == 1 else "NoUsablePool"
    if closest.fits:
        return "NotEnoughGpus"
    reason = closest.rejection.reason
    return "NotEnoughMemory" if reason in {"WeightsDoNotFit", "WorkloadDoesNotFit"} else reason


def _what_is_missing(found: Found, closest: Lost | None) -> str:
    if closest is None:
        refused = "; ".join(
            f"{pool.product}: {rejection.message}" for pool, rejection in found.refused_pools[:4]
        )
        return f"no pool of GPUs can be used: {refused}"
    if closest.choice is not None and closest.fits:
        step = words.what(closest.choice.step)
        return f"{step} fits {rules.describe(closest.choice)}, but {closest.rejection.message}"
    return closest.rejection.message


def _lacking(question: GpuQuestion, closest: Lost | None) -> str:
    """The node that has the devices, and what it lacks of main memory."""
    if closest is None or closest.choice is None or not closest.fits:
        return ""
    lacking = rules.lacking_memory(question, closest.choice)
    return "" if lacking is None else f": node {lacking[0]} lacks {gib(lacking[1])} of it"


def _remedies(question: GpuQuestion, found: Found) -> Iterator[Remedy]:
    yield from _more_gpus(question, found)
    yield from _shorter(question)
    yield from _fewer(question)
    yield from _lossier(question)
    yield from _less_pinned(question)


# More of the cluster


def _more_gpus(question: GpuQuestion, found: Found) -> Iterator[Remedy]:
    """The fewest devices that, free beside those that are, would hold the workload."""
    waiting = [each.choice for step in found.steps for each in step.lost if each.fits and each.choice]
    if waiting:
        nearest = min(waiting, key=lambda choice: _order(question, choice))
        missing = rules.missing_devices(question, nearest)
        if missing:
            where = _where(question, nearest)
            yield Remedy("missingGpus", f"{missing} more {nearest.pool.product}{where}", missing)
        return
    larger = _on_larger_nodes(question)
    if larger is not None:
        text = f"a node with {larger.gpus} {larger.pool.product}"
        yield Remedy("gpusOnOneNode", text, larger.gpus)


def _order(question: GpuQuestion, choice: Choice) -> tuple[int, int, str]:
    return (rules.missing_devices(question, choice), choice.gpus, choice.pool.name)


def _where(question: GpuQuestion, choice: Choice) -> str:
    memory = rules.main_memory_bytes(question, choice)
    small = any(node.memory_bytes < memory for node in choice.pool.nodes)
    beside = f" with {gib(memory)} of main memory" if small else ""
    if choice.nodes > 1:
        return f", {choice.devices_per_pod} free on each of {choice.nodes} nodes{beside}"
    if choice.gpus > 1:
        return f" free on one node{beside} ({choice.gpus} in all)"
    return f" free on a node{beside}" if beside else ""


def _on_larger_nodes(question: GpuQuestion) -> Choice | None:
    """The fewest devices on one node that would do, if there were such a node."""
    pools = tuple(
        replace(pool, nodes=(_large(pool),)) for pool in question.pools if pool.sharing is Sharing.NONE
    )
    stages = question.hardware.pipeline_parallel or 1
    hardware = replace(question.hardware, pipeline_parallel=stages)
    chosen = search(replace(question, pools=pools, hardware=hardware)).chosen
    return None if chosen is None else chosen.choice


def _large(pool: Pool) -> PoolNode:
    return PoolNode(name="", devices=_LARGEST_NODE, free=_LARGEST_NODE, cpu_millis=2**31, memory_bytes=2**62)


# Less of the demand


def _shorter(question: GpuQuestion) -> Iterator[Remedy]:
    """The longest context that fits, to a 64th part of what was asked for."""
    wanted = question.context_tokens
    found = _largest(wanted, lambda tokens: _with_context(question, tokens))
    if found:
        yield Remedy("maxContextLength", f"workload.contextLength <= {found}", found)


def _fewer(question: GpuQuestion) -> Iterator[Remedy]:
    """The most requests that fit, to a 64th part of what was asked for."""
    demand = question.demand
    found = _largest(
        demand.concurrency, lambda count: replace(question, demand=replace(demand, concurrency=count))
    )
    if found:
        yield Remedy("maxConcurrency", f"workload.concurrency <= {found}", found)


def _with_context(question: GpuQuestion, tokens: int) -> GpuQuestion:
    typical = question.demand.typical_tokens
    demand = replace(
        question.demand,
        context_length=tokens,
        typical_tokens=None if typical is None else min(typical, tokens),
    )
    return replace(question, demand=demand)


def _lossier(question: GpuQuestion) -> Iterator[Remedy]:
    """The first quality below the one allowed on which the workload fits."""
    allowed = QUALITIES.index(question.demand.quality)
    for quality in QUALITIES[allowed + 1 :]:
        if _possible(replace(question, demand=replace(question.demand, quality=quality))):
            yield Remedy(f"quality{quality}", f"quality {quality}", 1)
            return


def _less_pinned(question: GpuQuestion) -> Iterator[Remedy]:
    """What a user pinned and could leave to the planner."""
    hardware, demand = question.hardware, question.demand
    if demand.kv_dtype is not None:
        free = replace(question, demand=replace(demand, kv_dtype=None))
        if _possible(free):
            yield Remedy("cacheDtypeAuto", "cache.dtype Auto", 1)
    if hardware.quantization is not None:
        free = replace(question, hardware=replace(hardware, quantization=None))
        if _possible(free):
            yield Remedy("weightsQuantizationAuto", "weights.quantization Auto", 1)
    if hardware != Hardware(quantization=hardware.quantization):
        free = replace(question, hardware=Hardware(quantization=hardware.quantization))
        chosen = search(free).chosen
        if chosen is not None:
            text = f"fewer limits in hardware ({rules.describe(chosen.choice)} would do)"
            yield Remedy("hardwareFree", text, chosen.choice.gpus)


def _possible(question: GpuQuestion) -> bool:
    return rules.first_rejection(question) is None and possible(question)


def _largest(wanted: int, changed: Callable[[int], GpuQuestion]) -> int:
    """The largest value below `wanted` with which there is a plan, 0 if there is none; in steps of a power
    of two of at most a 64th part, since every probe is a search."""
    step = 1 << max(0, (wanted // _PROBES).bit_length() - 1)
    high = (wanted - 1) // step
    if not high or not _possible(changed(step)):
        return 0
    low = 1
    while low < high:
        middle = (low + high + 1) // 2
        if _possible(changed(middle * step)):
            low = middle
        else:
            high = middle - 1
    return low * step
