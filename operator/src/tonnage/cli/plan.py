"""`tonnage plan`: what the operator would make of LLMDeployments, in this cluster or without one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tonnage.cli.errors import UsageError, complain
from tonnage.cli.exits import USAGE
from tonnage.cli.manifests import Found, read_objects
from tonnage.cli.outcome import Outcome, is_ours, outcomes
from tonnage.cli.output import render
from tonnage.cli.surroundings import Surroundings, offline


def run(options: argparse.Namespace) -> int:
    """Answer and return the exit code, of several objects the highest."""
    try:
        found = read_objects(options.filename)
        asked = _asked(options, found)
        around = offline(options) if options.node else _online(options, asked)
        answers = outcomes(asked, around, models=options.model, version=options.engine_version)
        _write(options, around, answers, skipped=[each for each in found if not is_ours(each)])
    except UsageError as error:
        complain(options, str(error))
        return USAGE
    return max(answer.code for answer in answers)


def _asked(options: argparse.Namespace, found: Sequence[Found]) -> list[Found]:
    """The LLMDeployments among the objects. Raises UsageError."""
    asked = [each for each in found if is_ours(each)]
    for each in found:
        if not is_ours(each):
            complain(options, f"{each.where} is {each.kind or 'of no kind'}: skipped")
    if not asked:
        raise UsageError(f"no LLMDeployment in {' '.join(options.filename)}")
    for each in asked:
        meta = each.body.get("metadata")
        if not isinstance(meta, dict) or not isinstance(meta.get("namespace", ""), str):
            raise UsageError(f"{each.where}: metadata must be there, with a name")
        stated = meta.get("namespace")
        if options.namespace and stated and stated != options.namespace:
            raise UsageError(
                f"{each.where} is for the namespace {stated}, not {options.namespace}: leave out --namespace"
            )
    return asked


def _online(options: argparse.Namespace, asked: Sequence[Found]) -> Surroundings:
    from tonnage.cli.gather import online  # noqa: PLC0415 - the cluster's client is slow to import

    try:
        return online(options, [each.body for each in asked])
    except UsageError as error:
        raise UsageError(f"{error}; without a cluster: --node FILE, and --model MODEL") from None


def _write(
    options: argparse.Namespace, around: Surroundings, answers: Sequence[Outcome], *, skipped: Sequence[Found]
) -> None:
    if options.manifests:
        from tonnage.cli.children import manifests  # noqa: PLC0415 - one form of several

        sys.stdout.write(manifests(answers, around, worker_image=options.worker_image))
    elif options.output == "text":
        from tonnage.cli.plan_text import write  # noqa: PLC0415

        write(answers, around)
    else:
        from tonnage.cli.plan_document import document  # noqa: PLC0415

        sys.stdout.write(render(document(answers, around, skipped=skipped), options.output))
