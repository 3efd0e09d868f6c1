"""The machine form of `tonnage plan` (docs/machine-output.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tonnage.cli.errors import Missing
from tonnage.cli.manifests import Found
from tonnage.cli.outcome import Outcome, Standing
from tonnage.cli.profiles import describe
from tonnage.cli.surroundings import Surroundings
from tonnage.rendering.plan import build_plan_status


def document(answers: Sequence[Outcome], around: Surroundings, *, skipped: Sequence[Found]) -> dict[str, Any]:
    """All answers, what they were made from, and what was skipped."""
    nodes = around.nodes
    return {
        "context": around.context,
        "nodes": None if isinstance(nodes, Missing) else len(nodes),
        "learned": None if around.context is None else not isinstance(around.learned, Missing),
        "objects": [_answer(each) for each in answers],
        "skipped": [{"where": each.where, "kind": each.kind} for each in skipped],
    }


def _answer(answer: Outcome) -> dict[str, Any]:
    decision = answer.decision
    plan = decision.kept.plan if decision else None
    return {
        "name": answer.name,
        "namespace": answer.namespace,
        "where": answer.where,
        "outcome": answer.outcome,
        "reason": answer.reason or None,
        "message": answer.message or None,
        "numbers": dict(answer.numbers),
        "model": describe(answer.model, uri=answer.spec.model.uri) if answer.model and answer.spec else None,
        "engine_version": answer.version,
        "engine_version_from": answer.version_from,
        "plan": {**build_plan_status(plan, plan_hash=""), "hash": answer.plan_hash} if plan else None,
        "refresh": answer.refresh,
        "kept": None if decision is None else not decision.made,
        "request_bytes": plan.request_bytes if plan else None,
        "shared_memory_bytes": plan.shared_memory_bytes if plan else None,
        "standing": _standing(answer.standing) if answer.standing else None,
    }


def _standing(standing: Standing) -> dict[str, Any]:
    return {
        "exists": standing.exists,
        "plan_hash": standing.plan_hash,
        "effect": standing.effect,
        "changes": [
            {"field": each.field, "before": each.before, "after": each.after} for each in standing.changes
        ],
    }
