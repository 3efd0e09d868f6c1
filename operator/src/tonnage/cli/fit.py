"""`tonnage fit`: what a model needs and which cards hold it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from tonnage.cli import document as documents
from tonnage.cli.answers import Answer, Place, Question, bounded, device_of, given, place_of
from tonnage.cli.errors import UsageError, complain
from tonnage.cli.exits import FINE, NOT_YET, REFUSED, USAGE
from tonnage.cli.model import REFUSALS, ModelFiles, read_model
from tonnage.cli.output import render
from tonnage.gpus.cards import CARDS, COMMON, Card, card_named
from tonnage.models import ConfigError, parse_config
from tonnage.planning.fit import EngineOptions
from tonnage.planning.savings import WhatIfError


def run(options: argparse.Namespace) -> int:
    """Answer and return the exit code: 0 fits, 1 does not, 2 usage or unreadable, 3 refused."""
    if options.list:
        from tonnage.cli.listing import run_list  # noqa: PLC0415 - reads every model of the catalogue

        return run_list(options)
    files: ModelFiles | None = None
    try:
        cards = _cards(options)
        files = read_model(options.model, revision=options.revision)
        shape = parse_config(files.config, hf_quant_config=files.hf_quant_config)
        question = Question(
            files=files, shape=shape, options=_engine_options(options), engine_version=options.engine_version
        )
        return _answer(options, question, cards)
    except (UsageError, WhatIfError) as error:
        complain(options, str(error))
        return USAGE
    except ConfigError as error:
        return _refuse(options, files, error)


def _answer(options: argparse.Namespace, question: Question, cards: Sequence[Card | None]) -> int:
    answers = _answers(options, question, cards)
    changed = [(change, question.changed(change)) for change in options.what_if]
    if options.svg:
        _write_picture(options.svg, question, answers)
    if options.output == "text":
        from tonnage.cli.text import write  # noqa: PLC0415 - programs ask for the other forms

        write(question, answers, [(change, each.savings()) for change, each in changed])
    else:
        document = _document(options, question, answers)
        if changed:
            document["what_if"] = [_changed_document(change, each, answers[0]) for change, each in changed]
        sys.stdout.write(render(document, options.output))
    return _exit_code(answers)


def _answers(options: argparse.Namespace, question: Question, cards: Sequence[Card | None]) -> list[Answer]:
    if options.kv_bytes is not None:
        card = cards[0] if cards else None
        place = Place(device=device_of(options, card=card), card=card.name if card else None)
        kv_dtype = options.kv_dtype or "auto"
        return [given(question, place, kv_dtype=kv_dtype, kv_bytes=options.kv_bytes)]
    answers: list[Answer] = []
    for card in cards:
        place = place_of(options, card)
        answers.extend(bounded(question, place, kv_dtypes=_kv_dtypes(options, place)))
    return answers


def _kv_dtypes(options: argparse.Namespace, place: Place) -> tuple[str, ...]:
    """The KV dtypes of a comparison; the machine form of one card has the one asked for."""
    if options.kv_dtype:
        return (options.kv_dtype,)
    if options.output != "text" and len(options.gpu) == 1:
        return ("auto",)
    capability = place.device.compute_capability or (0, 0)
    return ("auto", "fp8", "nvfp4") if capability[0] == 10 else ("auto", "fp8")


def _cards(options: argparse.Namespace) -> list[Card | None]:
    """The cards asked for; [None] stands for the device that --device-memory describes."""
    if not options.model:
        raise UsageError("name a MODEL, or --list to see the catalogue")
    if options.cpu and (options.gpu or options.kv_bytes is None):
        raise UsageError("--cpu needs --kv-bytes, and takes no --gpu: a node's memory is not known here")
    named = [_card(name) for name in options.gpu]
    capability = options.compute_capability
    for card in named:
        if capability not in {None, card.compute_capability}:
            major, minor = card.compute_capability
            raise UsageError(f"{card.name} has compute capability {major}.{minor}; leave it out")
    if options.kv_bytes is not None:
        if len(named) > 1:
            raise UsageError("--kv-bytes goes with one --gpu at most")
        return list(named)
    if options.device_memory is not None:
        if named:
            raise UsageError(
                "--device-memory describes a card of its own: leave out --gpu, or give --kv-bytes"
            )
        return [None]
    return list(named) or [_card(name) for name in COMMON]


def _card(name: str) -> Card:
    card = card_named(name)
    if card is None:
        known = ", ".join(each.name for each in CARDS)
        raise UsageError(
            f"the card {name[:60]!r} is not known; known: {known}. For another one give --device-memory and "
            "--compute-capability"
        )
    return card


def _engine_options(options: argparse.Namespace) -> EngineOptions:
    return EngineOptions(
        tensor_parallel=options.tensor_parallel,
        pipeline_parallel=options.pipeline_parallel,
        decode_context_parallel=options.decode_context_parallel,
        expert_parallel=options.expert_parallel,
        dtype=options.dtype,
        kv_dtype=options.kv_dtype or "auto",
        kv_dtype_skip_layers=options.kv_dtype_skip_layers,
        block_tokens=options.block_size,
        context_tokens=options.context,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        prefix_caching=options.prefix_caching,
        hybrid_manager=options.hybrid_manager,
        enforce_eager=options.enforce_eager,
    )


def _document(options: argparse.Namespace, question: Question, answers: Sequence[Answer]) -> dict[str, Any]:
    """One answer's document, or for a comparison {"model", "saved", "cards"}."""
    saved = documents.saved(question.savings())
    if options.kv_bytes is not None or (len(options.gpu) == 1 and len(answers) == 1):
        return {**documents.document(question, answers[0]), "saved": saved}
    return {
        "model": documents.model(question.files, architecture=question.shape.architecture),
        "saved": saved,
        "cards": [documents.document(question, answer) for answer in answers],
    }


def _changed_document(change: str, question: Question, like: Answer) -> dict[str, Any]:
    """A changed model with the KV bytes of an answer about the published one."""
    found = question.fit(like.place.device, kv_dtype=like.kv_dtype, kv_bytes=like.kv_bytes)
    return {
        "change": change,
        "saved": documents.saved(question.savings()),
        "kv_bytes": like.kv_bytes,
        "supported": found.supported,
        "fits": found.fits,
        "reason": found.reason,
        "message": found.message,
        "kv_tokens": found.kv_tokens,
        "max_concurrency": documents.finite(found.max_concurrency),
    }


def _write_picture(path: str, question: Question, answers: Sequence[Answer]) -> None:
    from tonnage.cli.bar import memories  # noqa: PLC0415 - only --svg needs these
    from tonnage.cli.svg import picture  # noqa: PLC0415

    bars = memories(answers)
    if not bars:
        raise UsageError("--svg draws cards: leave out --kv-bytes; a refused start has no picture either")
    note = "Upper bounds: activations, CUDA graphs and other processes take more than is shown."
    ranks = question.options.tensor_parallel * question.options.pipeline_parallel
    title = f"{question.files.name}: memory of {'one GPU' if ranks == 1 else f'each of {ranks} GPUs'}"
    text = picture(title, bars, note=note)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _exit_code(answers: Sequence[Answer]) -> int:
    if any(answer.fit.fits for answer in answers):
        return FINE
    return NOT_YET if any(answer.fit.supported for answer in answers) else REFUSED


def _refuse(options: argparse.Namespace, files: ModelFiles | None, error: ConfigError) -> int:
    if options.output == "text":
        complain(options, f"{error.reason}: {error.message}")
    else:
        document = documents.refusal(
            options.model,
            files=files,
            engine_version=options.engine_version,
            reason=error.reason,
            message=error.message,
        )
        sys.stdout.write(render(document, options.output))
    return REFUSED if error.reason in REFUSALS else USAGE
