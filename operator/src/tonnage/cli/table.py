"""The human form: what a model needs, and a table of places and KV dtypes."""

from __future__ import annotations

from collections.abc import Sequence

from tonnage.cli.answers import Answer, Question
from tonnage.cli.style import Style, printable, size
from tonnage.planning.fit import Fit
from tonnage.planning.savings import Savings


def heading(question: Question, savings: Savings, answers: Sequence[Answer]) -> list[str]:
    """What was read, what the architecture saves, what the weights take."""
    files = question.files
    name = printable(files.name)
    lines = [
        f"{name}: {question.shape.architecture}, from {files.origin} {printable(files.source)}",
        *(f"  {technique}" for technique in savings.techniques),
        f"  KV cache  {_tokens(savings)}",
        f"            {_plainly(savings)}",
    ]
    settled = next((each.fit for each in answers if each.fit.supported), None)
    if settled is not None:
        assumed = f", by the rules of {settled.engine_rules}" if settled.assumed else ""
        lines.append(f"  weights   {_weights(question, settled)}")
        lines.append(
            f"  engine    vLLM {question.engine_version}{assumed}, context {settled.context_tokens:,}"
        )
    return lines


def what_ifs(changes: Sequence[tuple[str, Savings]], published: Savings) -> list[str]:
    """The KV cache of changed models, beside the published one."""
    rows = [("as published", published), *((f"with {change}", saved) for change, saved in changes)]
    width = max(len(name) for name, _ in rows)
    return ["what if", *(f"  {printable(name):<{width}}  {_tokens(saved)}" for name, saved in rows)]


def rows(answers: Sequence[Answer], hints: dict[str, int], style: Style) -> list[str]:
    """The table; `hints` are ranks on which a place would hold the model."""
    table = [("place", "memory", "KV dtype", "fits", "KV cache", "tokens", "requests", "")]
    shown: str | None = None
    for answer in answers:
        place = answer.place.card or "given"
        first = place != shown
        if not first and answer.kv_bytes == 0:
            continue  # refused, or no room beside the weights: for no KV dtype
        shown = place
        memory = size(answer.place.memory_bytes) if answer.place.memory_bytes and first else ""
        table.append((place if first else "", memory, answer.kv_dtype, *_outcome(answer, hints)))
    widths = [max(len(row[column]) for row in table) for column in range(7)]
    return [_row(row, widths, style, header=index == 0) for index, row in enumerate(table)]


def footnotes(answers: Sequence[Answer]) -> list[str]:
    """What the figures mean."""
    lines = ["requests: how many of full context length the KV cache holds"]
    if any(not answer.exact for answer in answers):
        share = answers[0].place.utilization or 0.0
        lines.append(
            f"upper bounds of an engine that takes {share:.0%} of the card: that less the weights. "
            "Activations, CUDA graphs and other processes take more"
        )
        lines.append(
            "plans pin bytes instead of a share, count all of it, and may hold more: `tonnage plan` tells"
        )
    return lines


def details(answer: Answer) -> list[str]:
    """The KV cache of one answer, group by group."""
    found = answer.fit
    if not found.fits or found.num_blocks is None:
        return []
    lines = [
        f"{found.num_blocks:,} blocks of {found.bytes_per_block:,} bytes; block size {found.block_tokens}; "
        f"batches of {found.max_num_batched_tokens:,} tokens, {found.max_num_seqs:,} requests at a time"
    ]
    lines.extend(
        f"  {group.layers} layers of {group.kind}: {group.page_bytes:,} bytes a layer and block, "
        f"{group.blocks_per_request:,} blocks a request"
        for group in found.groups
    )
    return lines


def _outcome(answer: Answer, hints: dict[str, int]) -> tuple[str, str, str, str, str]:
    found = answer.fit
    if not found.supported:
        return "refused", "", "", "", _short(found.message or found.reason or "")
    kv = size(answer.kv_bytes)
    if found.fits:
        tokens = "" if found.kv_tokens is None else f"{found.kv_tokens:,}"
        requests = "" if found.max_concurrency is None else f"{found.max_concurrency:.2f}"
        return "yes", kv, tokens, requests, ""
    ranks = hints.get(answer.place.card or "")
    remedy = f"; fits with --tensor-parallel {ranks}" if ranks and answer.kv_dtype == "auto" else ""
    if answer.weights_too_large and answer.weights_bytes is not None:
        return "no", kv, "", "", f"weights {size(answer.weights_bytes)}{remedy}"
    longest = found.estimated_max_context
    why = f"at most {longest:,} tokens long" if longest else "not one request"
    return "no", kv, "", "", why + remedy


def _row(row: tuple[str, ...], widths: Sequence[int], style: Style, *, header: bool) -> str:
    left, right = (0, 2, 3), (1, 4, 5, 6)
    padded = list(row[:7])
    for column in left:
        padded[column] = row[column].ljust(widths[column])
    for column in right:
        padded[column] = row[column].rjust(widths[column])
    if not header:
        colours = {"yes": "32", "no": "31", "refused": "33"}
        padded[3] = style.paint(padded[3], colours.get(row[3], "0"))
    return "  ".join([*padded, row[7]]).rstrip()


def _tokens(savings: Savings) -> str:
    return (
        f"{savings.bytes_per_token:,} bytes a token, {size(savings.context_bytes)} for a request of "
        f"{savings.context_tokens:,}"
    )


def _plainly(savings: Savings) -> str:
    if not savings.plain_context_bytes:
        return "no layer of attention to compare with"
    if savings.plain_context_bytes == savings.context_bytes:
        return "as multi-head attention: the architecture saves nothing"
    return f"{savings.factor:.1f}x less than {size(savings.plain_context_bytes)} with multi-head attention"


def _weights(question: Question, settled: Fit) -> str:
    stages = settled.weights_bytes_by_stage
    if stages is not None:
        ranks = question.options.tensor_parallel * len(stages)
        amounts = ", ".join(map(size, stages)) if len(set(stages)) > 1 else size(stages[0])
        where = "on the ranks of each stage" if len(set(stages)) > 1 else f"on each of {ranks} ranks"
        return f"{amounts} {where if ranks > 1 else 'on one rank'}"
    stored = question.files.checkpoint_bytes
    if stored is not None:
        return f"{size(stored)} in the checkpoint; what a rank holds of it is not known"
    return "not known: the format of this checkpoint is not planned yet"


def _short(text: str) -> str:
    return printable(text if len(text) <= 70 else f"{text[:67]}...")
