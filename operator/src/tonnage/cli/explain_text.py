"""The human form of `tonnage explain`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from tonnage.cli import plan_view as view
from tonnage.cli.errors import Missing
from tonnage.cli.state import State, Taught, Told
from tonnage.cli.style import Style, printable, style_of
from tonnage.rendering.names import COMPONENT, INSPECT, PLAN
from tonnage.rendering.observations import Pod

_SUMMARY: Final = "Ready"
_MAX_PODS: Final = 12


def write(state: State) -> None:
    """Write everything about one object to standard output."""
    sys.stdout.write("\n".join(lines_of(state, style_of(sys.stdout))) + "\n")


def write_list(states: Sequence[State], *, namespace: str) -> None:
    """A line for each object; `namespace` is empty where all namespaces are listed."""
    if not states:
        where = f"in namespace {namespace}" if namespace else "in the cluster"
        sys.stderr.write(f"there are no LLMDeployments {where}\n")
        return
    head = ("NAME", "READY", "GPU", "KV-DTYPE", "CONTEXT", "CONCURRENCY", "PHASE", "WHY")
    table = [head, *map(_row, states)]
    if not namespace:
        spaces = ["NAMESPACE", *(state.namespace for state in states)]
        table = [(space, *row) for space, row in zip(spaces, table, strict=True)]
    sys.stdout.write("\n".join(view.rows(table)) + "\n")


def lines_of(state: State, style: Style) -> list[str]:
    """One object: how it is, what was asked, planned and measured, and what to do."""
    return [
        *_head(state, style),
        "",
        *_asked(state, style),
        *_plan(state, style),
        *_comparison(state, style),
        *_learned(state, style),
        *_rollout(state, style),
        *_conditions(state, style),
    ]


def _head(state: State, style: Style) -> list[str]:
    word, colour = (
        ("Ready", "32") if state.ready else ("refused", "31") if state.refused else ("not Ready", "33")
    )
    phase = str(state.status.get("phase") or "")
    shown = style.paint(word, colour) + (
        f" ({printable(phase)})" if phase not in {"", "Ready", "Refused"} else ""
    )
    lines = [f"{printable(f'{state.namespace}/{state.name}')}: {shown}"]
    if state.deleting:
        lines += view.paragraph("it is being deleted", style)
    if not state.current:
        lines += view.paragraph(_not_looked_at(state), style)
    else:
        lines += [line for each in state.conditions if each.type == _SUMMARY for line in _said(each, style)]
    return lines


def _not_looked_at(state: State) -> str:
    seen = (
        f"its status is of generation {state.observed_generation}, its spec {state.generation}: the operator"
        if state.status
        else "the operator"
    )
    return (
        f"{seen} has not looked at it yet. If that stays, it may not be running: "
        "kubectl get pods -A -l app.kubernetes.io/name=tonnage"
    )


def _said(told: Told, style: Style) -> list[str]:
    return view.paragraph(": ".join(filter(None, (told.reason, told.message))), style)


def _asked(state: State, style: Style) -> list[str]:
    asked = state.asked
    length, typical = asked["context_length"], asked["typical_tokens"]
    own = "the model's own limit"
    words = (
        f"{asked['replicas']} x {asked['model']}",
        f"requests of {own if length is None else f'at most {view.count(length)} tokens'}",
        f"{view.count(asked['concurrency'])} at a time, typically of "
        f"{'a quarter of that' if typical is None else view.count(typical)}",
        f"quality {asked['quality']}",
    )
    return view.entry("asked", "; ".join(words), style)


def _plan(state: State, style: Style) -> list[str]:
    plan = state.plan
    if not plan:
        return [*view.entry("planned", "nothing yet", style), ""]
    name = f"plan {plan.get('hash', '?')} for vLLM {plan.get('engineVersion', '?')}"
    old = "" if state.planned else ", made for the spec as it was before: it goes on serving"
    lines = view.entry("planned", f"{name}{old}. {plan.get('reason', '')}".strip(), style)
    lines += view.entry("runs on", view.placement(plan), style)
    lines += view.engine(plan, style)
    return [
        *lines,
        "",
        *view.memory(plan, style),
        "",
        *view.cache(plan, style),
        *view.alternatives(plan, style),
        "",
    ]


def _comparison(state: State, style: Style) -> list[str]:
    rows = state.comparison
    if not rows:
        return (
            [*view.entry("measured", "no engine of this plan has reported yet", style), ""]
            if state.plan
            else []
        )
    table = [("", "planned", "engine"), *((row.what, row.planned, row.engine) for row in rows)]
    seen = view.part(state.status, "observed")
    equal = all(row.equal for row in rows)
    verdict = style.paint("equal", "32") if equal else style.paint("not equal", "31")
    notes = [f"verified {seen['pods']} pods"] if seen.get("pods") else []
    notes += [f"vLLM {seen['engineVersion']}"] if seen.get("engineVersion") else []
    notes += [f"started in {seen['startSeconds']} s"] if seen.get("startSeconds") else []
    lines = [f"    {line}" for line in view.rows(table, right=(1, 2))]
    return ["  measured", *lines, f"    {verdict}; {printable('; '.join(notes))}", ""]


def _learned(state: State, style: Style) -> list[str]:
    if state.learned is None:
        return []
    if isinstance(state.learned, Missing):
        return [*view.entry("learned", state.learned.why, style), ""]
    return [*view.entry("learned", _taught(state.learned), style), ""]


def _taught(learned: Taught) -> str:
    starts = "1 start" if learned.starts == 1 else f"{learned.starts} starts"
    use = (
        "the plan was made by it"
        if learned.used
        else "the plan is by the laws alone; the annotation tonnage.dev/replan asks for a new one"
    )
    return (
        f"{starts} like this one: {learned.estimate_mib:+} MiB beside the KV cache to what the law "
        f"estimates, {learned.bound_mib:+} MiB at most for new plans; {use}"
    )


def _rollout(state: State, style: Style) -> list[str]:
    lines: list[str] = []
    if isinstance(state.deployment, Missing):
        lines += view.entry("rollout", state.deployment.why, style)
    elif (rollout := state.rollout) is None:
        lines += view.entry("rollout", "there is no Deployment yet", style)
    else:
        lines += view.entry("rollout", _progress(state, rollout), style)
    if isinstance(state.pods, Missing):
        return [*lines, *view.entry("pods", state.pods.why, style), ""]
    for number, pod in enumerate(state.pods[:_MAX_PODS]):
        lines += view.entry("pods" if number == 0 else "", _pod(pod, state.plan_hash), style)
    more = len(state.pods) - _MAX_PODS
    return [*lines, *(view.entry("", f"and {more} more", style) if more > 0 else []), ""]


def _progress(state: State, rollout: dict[str, Any]) -> str:
    counts = f"{rollout['wanted']} wanted, {rollout['updated']} of them updated, {rollout['ready']} ready"
    if rollout["replicas"] > rollout["updated"]:
        counts += f", {rollout['replicas'] - rollout['updated']} of an older plan"
    behind = rollout["plan_hash"] != state.plan_hash and state.plan_hash
    return counts + (f"; the Deployment still runs plan {rollout['plan_hash']}" if behind else "")


def _pod(pod: Pod, plan_hash: str) -> str:
    words = [pod.name]
    if pod.labels.get(COMPONENT) == INSPECT:
        words.append("reads the model")
    elif pod.labels.get(PLAN) != plan_hash:
        words.append(f"of plan {pod.labels.get(PLAN, '?')}")
    words.append("is leaving" if pod.deleting else "ready" if pod.ready else pod.phase)
    if pod.restarts:
        words.append(f"restarted {pod.restarts} times")
    if pod.waiting_reason:
        words.append(f"waits: {pod.waiting_reason} {pod.waiting_message}".rstrip())
    if pod.unschedulable:
        words.append(f"has no node: {pod.unschedulable}")
    return ", ".join(words)


def _conditions(state: State, style: Style) -> list[str]:
    """Conditions that are not as they should be, what is said of several once; Ready repeats one of them."""
    lines: list[str] = []
    said: set[str] = set()
    for each in state.conditions:
        text = f"{each.reason} {each.message}"
        if not each.matters or each.type == _SUMMARY or text in said:
            continue
        since = f", since {each.since}" if each.since else ""
        lines += view.paragraph(f"{each.type} is {each.status}: {each.reason}{since}", style, indent=4)
        lines += view.paragraph(each.message, style, indent=6)
        if each.next and each.next not in said:
            lines.append(f"      next: {printable(each.next)}")  # in one line, to be copied
        said |= {text, each.next}
    return [style.paint("  what matters", "1"), *lines] if lines else []


def _row(state: State) -> tuple[str, ...]:
    status, plan = state.status, state.plan
    ready = next((each.reason for each in state.conditions if each.type == _SUMMARY), "")
    why = "" if state.ready else ready if state.current else "NotLookedAt"
    cells = (
        state.name,
        status.get("readySummary"),
        status.get("gpuSummary"),
        view.part(plan, "kv").get("dtype"),
        view.part(plan, "inputs").get("contextLength"),
        view.part(plan, "kv").get("concurrencyAtTypical"),
        status.get("phase"),
        why,
    )
    return tuple(printable("" if cell is None else str(cell)) for cell in cells)
