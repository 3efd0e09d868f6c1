"""`tonnage plan --manifests`: the objects that the operator would apply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from tonnage.cli.errors import Missing, UsageError
from tonnage.cli.outcome import Outcome
from tonnage.cli.surroundings import Surroundings
from tonnage.rendering.children import build_children
from tonnage.rendering.names import Owner
from tonnage.rendering.settings import Settings


def manifests(answers: Sequence[Outcome], around: Surroundings, *, worker_image: str | None) -> str:
    """YAML documents, and a comment for each object without a plan. Raises UsageError."""
    documents = [text for answer in answers for text in _of(answer, around, worker_image=worker_image)]
    return "---\n".join(documents)


def _of(answer: Outcome, around: Surroundings, *, worker_image: str | None) -> list[str]:
    if answer.decision is None or answer.spec is None:
        return [f"# {answer.namespace}/{answer.name} has no plan: {answer.reason}\n"]
    image = answer.spec.engine.image or worker_image
    if image is None:
        raise UsageError(
            f"--manifests: {answer.name} names no engine.image: name the chart's with --worker-image"
        )
    existing = around.existing(answer.namespace, answer.name)
    uid = "" if existing is None or isinstance(existing, Missing) else existing["metadata"]["uid"]
    children = build_children(
        answer.decision.kept,
        plan_hash=answer.decision.plan_hash,
        spec=answer.spec,
        owner=Owner(namespace=answer.namespace, name=answer.name, uid=uid),
        settings=Settings(operator_image="", worker_image=image, engine_version=answer.version),
    )
    return [_text(child, owned=bool(uid)) for child in children]


def _text(child: dict[str, Any], *, owned: bool) -> str:
    if not owned:
        del child["metadata"]["ownerReferences"]
    text: str = yaml.safe_dump(child, sort_keys=False, width=110)
    return text
