"""The human form of `tonnage plan`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from tonnage.cli import plan_view as view
from tonnage.cli.errors import Missing
from tonnage.cli.outcome import DOES_NOT_FIT, PLANNED, REFUSED_WORD, UNREADABLE, Change, Outcome, Standing
from tonnage.cli.profiles import Resolved
from tonnage.cli.style import Style, printable, size, style_of
from tonnage.cli.surroundings import Surroundings
from tonnage.planning.plan import Plan
from tonnage.rendering.plan import build_plan_status

_HEADS: Final = {
    PLANNED: ("planned", "32"),
    DOES_NOT_FIT: ("does not fit", "31"),
    REFUSED_WORD: ("refused", "33"),
    UNREADABLE: ("cannot be planned here", "33"),
}
_VERSIONS: Final = {
    "object": "as the object says",
    "option": "as asked for",
    "cluster": "as in plans of this namespace",
    "release": "this release's; --engine-version names another",
}
_SHM: Final = "/dev/shm"  # noqa: S108 - shown, not opened
_WEIGHTS: Final = {
    "read": "",
    "stated": "; weights as its index states them",
    "computed": "; weights computed from its config, not read",
}


def write(answers: Sequence[Outcome], around: Surroundings) -> None:
    """Write everything to standard output."""
    style = style_of(sys.stdout)
    several = len(answers) > 1
    blocks = ["\n".join(lines_of(answer, around, style, several=several)) for answer in answers]
    sys.stdout.write("\n\n".join(blocks) + "\n")


def lines_of(answer: Outcome, around: Surroundings, style: Style, *, several: bool = False) -> list[str]:
    """One object, of `several` with the GPUs that it has before those behind it."""
    word, colour = _HEADS[answer.outcome]
    head = printable(f"{answer.namespace}/{answer.name or '(no name)'}")
    lines = [f"{head}: {style.paint(word, colour)}"]
    if answer.decision is None:
        lines += view.paragraph(f"{answer.reason}: {answer.message}", style)
    else:
        lines += view.paragraph(answer.decision.kept.plan.reason, style)
    lines.append("")
    lines += _facts(answer, around, style)
    if answer.decision is not None:
        plan = answer.decision.kept.plan
        quality = answer.spec.quality if answer.spec else plan.quality
        shown = build_plan_status(plan, plan_hash="")
        lines += view.entry("asked", f"{view.asked(shown)}; quality {quality}", style)
        lines += _given(answer, plan, style) if several else []
        lines += _plan(plan, shown, style)
    if answer.standing is not None:
        lines += _standing(answer, answer.standing, style)
    return lines


def _facts(answer: Outcome, around: Surroundings, style: Style) -> list[str]:
    lines: list[str] = []
    if answer.model is not None:
        lines += view.entry("model", _model(answer.model), style)
    if answer.spec is not None:
        lines += view.entry("engine", f"vLLM {answer.version}, {_VERSIONS[answer.version_from]}", style)
    if not isinstance(around.nodes, Missing):
        where = "in the cluster" if around.context else "in the files named by --node"
        lines += view.entry("nodes", f"{len(around.nodes)} {where}", style)
    made = answer.decision is not None and answer.decision.made and answer.decision.kept.plan.gpu is not None
    if made and isinstance(around.learned, Missing):
        text = f"{around.learned.why}; by what starts have taught, the operator may plan other bytes"
        lines += view.entry("learned", text, style)
    return lines


def _model(model: Resolved) -> str:
    source = f"from {model.source}" if model.origin == "plan" else f"from {model.origin} {model.source}"
    return f"{model.profile.shape.architecture}, {source}{_WEIGHTS[model.weights]}"


def _plan(plan: Plan, shown: dict[str, Any], style: Style) -> list[str]:
    return [
        *view.entry("runs on", view.placement(shown), style),
        *view.engine(shown, style),
        *(_pod(plan, style) if plan.gpu else []),
        "",
        *view.memory(shown, style, beside=None if plan.gpu else {_SHM: plan.shared_memory_bytes}),
        "",
        *view.cache(shown, style),
        *view.alternatives(shown, style),
    ]


def _given(answer: Outcome, plan: Plan, style: Style) -> list[str]:
    """Which nodes give GPUs to a new plan, before those behind it are planned."""
    if plan.gpu is None or not answer.given or answer.spec is None:
        return []
    each, wanted = plan.gpu.devices_per_pod, answer.spec.wanted_replicas * plan.gpu.nodes_per_replica
    nodes = ", ".join(f"{pods * each} of {node}" for node, pods in sorted(Counter(answer.given).items()))
    waits = f"; {wanted - len(answer.given)} of {wanted} pods find none" if len(answer.given) < wanted else ""
    return view.entry("has", f"{nodes}{waits}", style)


def _pod(plan: Plan, style: Style) -> list[str]:
    """Main memory, which on CPU nodes is all the memory there is."""
    shared = f"{_SHM} of {size(plan.shared_memory_bytes)} in it"
    return view.entry("each pod", f"requests {size(plan.request_bytes)} of main memory, {shared}", style)


def _standing(answer: Outcome, standing: Standing, style: Style) -> list[str]:
    lines = view.entry("now", _now(answer, standing), style)
    if answer.refresh:
        text = "its annotation asks to read the model again: if the files have changed, so will the plan"
        lines += view.entry("refresh", text, style)
    if standing.changes:
        lines += view.entry("changes", "; ".join(map(_change, standing.changes)), style)
    return ["", *lines]


def _now(answer: Outcome, standing: Standing) -> str:
    name, new = answer.name, answer.plan_hash or "another"
    if standing.exists is None:
        return "LLMDeployments of this namespace cannot be read: whether this one exists is not known"
    if not standing.exists:
        return f"there is no {name} in the cluster yet"
    if standing.effect == "plan":
        return f"{name} exists and has no plan yet: this would be its first"
    if standing.effect == "keep":
        return f"plan {new} is in force and stays"
    if standing.effect == "replace":
        return (
            f"plan {standing.plan_hash} is in force: applying this replaces it by {new}, pod by pod; the old "
            "pods serve until the new ones are verified"
        )
    if standing.plan_hash:
        return f"plan {standing.plan_hash} is in force: what it serves goes on if this is applied"
    return f"{name} exists and has no plan"


def _change(change: Change) -> str:
    return f"{change.field} {_value(change.before)} -> {_value(change.after)}"


def _value(value: Any) -> str:
    return "(absent)" if value is None else str(value)[:60]
