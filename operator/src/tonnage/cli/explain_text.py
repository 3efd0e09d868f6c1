"""The human form of `tonnage explain`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from tonnage.cli import plan_view as view
from tonnage.cli.session import Missing
from tonnage.cli.state import State, Told
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
    context = (
        "the model's own limit of"
        if asked["context_length"] is None
        else f"at most {asked['context_length']:,}"
    )
    typical = "a quarter of that" if asked["typical_tokens"] is None else f"{asked['typical_tokens']:,}"
    text = (
        f"{asked['replicas']} x {asked['model']}; requests of {context} tokens; {asked['concurrency']} at a "
        f"time, typically of {typical}; quality {asked['quality']}"
    )
    return view.entry("asked", text, style)


def _plan(state: State, style: Style) -> list[str]:
    plan = state.plan
    if not plan:
        return [*view.entry("planned", "nothing yet", style), ""]
    name = f"plan {plan.get('hash', '?')} for vLLM {plan.get('engineVersion', '?')}"
    old = "" if state.planned else ", made for the spec as it was before: it goes on serving"
    lines = view.entry("planned", f"{name}{old}. {plan.get('reason', '')}".strip(), style)
    lines += view.entry("runs on", view.placement(plan), style)
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
    """Conditions that are not as they should be; the summary repeats one of them."""
    lines: list[str] = []
    said: set[tuple[str, str]] = set()
    for each in state.conditions:
        if not each.matters or each.type == _SUMMARY or (each.reason, each.message) in said:
            continue
        said.add((each.reason, each.message))
        since = f" since {each.since}" if each.since else ""
        lines += view.entry(each.type, f"{each.status}, {each.reason}{since}", style)
        lines += view.entry("", each.message, style) if each.message else []
        lines += view.entry("", f"next: {each.next}", style) if each.next else []
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
