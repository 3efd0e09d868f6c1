"""Our laws without one model: their constants found anew from the starts of all others, so that a start is
never judged by a law that was fitted to it.

What is found anew are figures of `MemoryRules`: the sampler's bytes of a logit and the rest of it, hidden
vectors by family of architecture and of compiled models, non-torch memory. Where no other start says
anything of one, it is what stands for unknown models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from tonnage.engines.overheads import MemoryRules
from tonnage.planning.activation import Activation, activation
from tonnage.planning.load import Load
from tonnage.planning.term import MIB
from unit.planning.starts import Start


def without_each_model(starts: Sequence[Start]) -> list[Start]:
    """The same starts, each by the laws that the other models' starts teach."""
    rules = {model: _found(starts, model) for model in {start.model for start in starts}}
    return [
        replace(start, load=replace(start.load, rules=rules[start.model](start.load.rules)))
        for start in starts
    ]


def _found(starts: Sequence[Start], model: str) -> Callable[[MemoryRules], MemoryRules]:
    others = [start for start in starts if start.model != model and start.activation_bytes]
    logit_bytes, sampler_bytes = _sampler(others)
    old_logit_bytes = _old_sampler(others)
    families, compiled = _vectors(others)
    non_torch = _median(
        [start.non_torch_bytes for start in others if start.load.ranks == 1 and start.non_torch_bytes]
    )
    two, four = (
        _median([s.non_torch_bytes for s in others if s.load.tensor == count and s.non_torch_bytes])
        for count in (2, 4)
    )

    def anew(rules: MemoryRules) -> MemoryRules:
        if rules.sampler_bytes == 0:
            return replace(rules, logit_bytes=old_logit_bytes or rules.logit_bytes)
        return replace(
            rules,
            logit_bytes=logit_bytes if logit_bytes is not None else rules.logit_bytes,
            sampler_bytes=int(sampler_bytes) if sampler_bytes is not None else rules.sampler_bytes,
            family_vectors=families,
            compiled_vectors=compiled,
            non_torch_mib=int(non_torch / MIB) if non_torch is not None else rules.non_torch_mib,
            linked_mib=(
                int(two / MIB) if two is not None else rules.linked_mib[0],
                int(four / MIB) if four is not None else rules.linked_mib[1],
                rules.linked_mib[2],
            ),
        )

    return anew


def _sampler(starts: Sequence[Start]) -> tuple[float | None, float | None]:
    """Slope and rest of the least squares line through starts whose peak is the sampler's, over their
    logits."""
    points = []
    for start in starts:
        step = activation(start.load)
        today = start.load.rules.sampler_bytes > 0 and not start.load.second_runner
        if today and step.sampler.likely >= step.forward.likely:
            load, found = start.load, start.activation_bytes or 0
            logits = load.sequences * load.shape.vocab_size
            known = step.sampler.likely - load.rules.logit_bytes * logits - load.rules.sampler_bytes
            points.append((logits, found - known))
    if len({logits for logits, _ in points}) < 2:
        return None, None
    middle_x, middle_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    slope = sum((x - middle_x) * (y - middle_y) for x, y in points)
    slope /= sum((x - middle_x) ** 2 for x, _ in points)
    return slope, middle_y - slope * middle_x


def _old_sampler(starts: Sequence[Start]) -> float | None:
    """The same of engines whose sampler takes nothing but its logits (before 0.17)."""
    old = [start for start in starts if start.load.rules.sampler_bytes == 0]
    logits = [start.load.sequences * start.load.shape.vocab_size for start in old]
    slopes = [(start.activation_bytes or 0) / count for start, count in zip(old, logits, strict=True)]
    return median(slopes) - old[0].load.element_bytes if slopes else None


def _vectors(starts: Sequence[Start]) -> tuple[dict[str, int], float]:
    """Vectors by family, from eager starts whose peak is a dense forward pass; those of compiled models
    beyond them, from starts whose peak is not that of compiling."""
    families: dict[str, list[float]] = {}
    compiled = []
    for start in starts:
        load, step = start.load, activation(start.load)
        if not _forward_peak(start, step) or (load.graph_sizes and load.cold and load.rules.copies_table):
            continue
        beyond = ((start.activation_bytes or 0) - step.forward.likely) / _vector(load)
        if load.graph_sizes:
            compiled.append(load.rules.compiled_vectors + beyond)
        else:
            name = load.shape.architecture
            family = next((word for word in load.rules.family_vectors if name.startswith(word)), "")
            families.setdefault(family, []).append(load.rules.vectors(name) + beyond)
    known = {family: round(median(found)) for family, found in families.items() if family}
    return known, median(compiled) if compiled else 0.0


def _forward_peak(start: Start, step: Activation) -> bool:
    dense = start.kind == "dense" and start.load.stages == 1
    return dense and (start.load.second_runner or step.forward.likely > step.sampler.likely)


def _vector(load: Load) -> int:
    return load.tokens * load.shape.hidden_size * load.element_bytes


def _median(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
