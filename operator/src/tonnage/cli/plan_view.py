"""A plan for people, from its machine form (`status.plan`): what `plan` makes and `explain` reads look alike.

Fields that are missing, or that a later version added, leave a line out: nothing here fails on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, Final

from tonnage.cli.bar import KV, RESERVE, WEIGHTS, gauge
from tonnage.cli.style import Style, printable, size

Plan = Mapping[str, Any]
_PURPOSES: Final = {
    "weights": "weights",
    "activation": "activations",
    "graphs": "CUDA graphs",
    "nonTorch": "engine",
    "context": "GPU context",
    "burstMargin": "burst margin",
    "kv": KV,
}
"""Keys of `memoryBytes` in the order in which they are shown, and their names."""
LABEL: Final = 11
_SHARED: Final = {
    "MIG": ", a MIG instance",
    "MPS": ", a share by MPS",
    "TimeSlicing": ", in turns with others,",
}


def paragraph(text: str, style: Style, *, indent: int = 2) -> list[str]:
    """Text in lines of the terminal's width."""
    margin = " " * indent
    return _wrapped(text, style, first=margin, other=margin)


def entry(label: str, text: str, style: Style) -> list[str]:
    """A label, and text beside it in as many lines as it needs."""
    first = f"  {label:<{LABEL}}"
    return _wrapped(text, style, first=first, other=" " * len(first)) or [first.rstrip()]


def asked(plan: Plan) -> str:
    """The workload with defaults filled in, in words."""
    inputs = part(plan, "inputs")
    words = [
        f"requests of at most {count(inputs.get('contextLength'))} tokens",
        f"{count(inputs.get('concurrency'))} at a time, typically of {count(inputs.get('typicalTokens'))}",
    ]
    return "; ".join(words)


def placement(plan: Plan) -> str:
    """Where one replica runs, in words."""
    place = part(plan, "placement")
    product, gpus = place.get("product"), place.get("gpusPerReplica")
    if not gpus:
        return f"one {product or '?'} node"
    words = [f"{gpus} x {product}{_shared(place)}{_asked_for(place)}"]
    for key, name in (("tensorParallel", "tensor parallel"), ("pipelineParallel", "pipeline parallel")):
        if place.get(key) not in (None, 1):
            words.append(f"{name} {place[key]}")
    if place.get("nodesPerReplica") not in (None, 1):
        words.append(f"over {place['nodesPerReplica']} nodes")
    return ", ".join(words)


def _shared(place: Plan) -> str:
    """What of a GPU a pod gets, and how much memory that is."""
    sharing, amount = place.get("sharing"), place.get("deviceBytes")
    what = _SHARED.get(str(sharing), "") if sharing not in (None, "None") else ""
    return what + (f" of {size(amount)}" if isinstance(amount, int) else "")


def _asked_for(place: Plan) -> str:
    """By what name pods ask for them."""
    resource = place.get("resource")
    if not resource:
        return ""
    return f" ({'device class ' if place.get('access') == 'Claim' else ''}{resource})"


def engine(plan: Plan, style: Style) -> list[str]:
    """How the engine is started on GPUs; nothing on CPU nodes."""
    start = part(plan, "engine")
    if not start:
        return []
    quantization, scales = part(plan, "weights").get("quantization"), part(plan, "kv").get("scales")
    words = [f"weights {f'quantized at the start: {quantization}' if quantization else 'as shipped'}"]
    if scales:
        words.append("KV scales " + ("of the checkpoint" if scales == "checkpoint" else f"{scales}"))
    if start.get("attentionBackend"):
        words.append(f"attention by {start['attentionBackend']}")
    graphs = start.get("graphs")
    captured = f"{start.get('graphMode', '?')} of {graphs} sizes up to {start.get('largestGraph', '?')}"
    words.append(f"CUDA graphs {captured}" if graphs else "no CUDA graphs")
    words.append(f"{start.get('memoryUtilization', '?')} of each GPU must be free at the start")
    return entry("starts as", "; ".join(words), style)


def memory(plan: Plan, style: Style, *, beside: Mapping[str, int] | None = None) -> list[str]:
    """Bytes of one rank by purpose, each with a bar; `beside` are bytes that the pod needs on top."""
    stated = {key: value for key, value in part(plan, "memoryBytes").items() if isinstance(value, int)}
    total = stated.pop("total", sum(stated.values()))
    named = {name: stated.pop(key, 0) for key, name in _PURPOSES.items()}
    rows = {name: amount for name, amount in {**named, **stated, **(beside or {})}.items() if amount}
    if not rows:
        return []
    whole = total + sum((beside or {}).values())
    width = max(map(len, rows))
    lines = [
        f"    {printable(name):<{width}}  {size(amount):>10}  "
        + gauge(name if name in {WEIGHTS, KV} else RESERVE, amount, of_bytes=whole, style=style)
        for name, amount in rows.items()
    ]
    title = "  memory of one " + ("rank" if part(plan, "placement").get("gpusPerReplica") else "replica")
    return [title, *lines, f"    {'together':<{width}}  {size(whole):>10}"]


def cache(plan: Plan, style: Style) -> list[str]:
    """The KV cache: blocks, tokens, requests, and what the architecture saves."""
    kv, inputs = part(plan, "kv"), part(plan, "inputs")
    if not kv:
        return []
    holds = (
        f"{count(kv.get('blocks'))} blocks of {count(kv.get('blockSize'))} tokens and "
        f"{count(kv.get('bytesPerBlock'))} bytes: {count(kv.get('tokens'))} tokens, "
        f"dtype {kv.get('dtype', '?')}"
    )
    requests = (
        f"{kv.get('concurrencyAtContext', '?')} requests of {count(inputs.get('contextLength'))} tokens, or "
        f"{kv.get('concurrencyAtTypical', '?')} of {count(inputs.get('typicalTokens'))}"
    )
    lines = [*entry("KV cache", holds, style), *entry("", requests, style)]
    saved = kv.get("savedByArchitecture")
    return [*lines, *(entry("", str(saved), style) if saved else [])]


def alternatives(plan: Plan, style: Style) -> list[str]:
    """What else was looked at, and why it lost."""
    lines: list[str] = []
    found = plan.get("alternatives")
    for number, each in enumerate(found if isinstance(found, list) else []):
        if isinstance(each, dict):
            text = f"{each.get('what', '?')}: {each.get('why', '?')}"
            lines += entry("instead" if number == 0 else "", text, style)
    return lines


def part(body: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """A part of an object; empty where it is missing or no object."""
    for name in names:
        found = body.get(name)
        body = found if isinstance(found, dict) else {}
    return body


def rows(table: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Rows with their columns under each other; columns in `right` end under each other."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def _wrapped(text: str, style: Style, *, first: str, other: str) -> list[str]:
    return wrap(
        printable(text),
        style.width,
        initial_indent=first,
        subsequent_indent=other,
        break_on_hyphens=False,
        break_long_words=False,
    )


def count(value: Any) -> str:
    """A number with its thousands told apart; a question mark for what is none."""
    return f"{value:,}" if isinstance(value, int) else "?"
