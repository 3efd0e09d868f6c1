"""The memory bars as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tonnage.cli.bar import KV, RESERVE, WEIGHTS, Memory
from tonnage.cli.style import size

_ROW: Final = 34
_LEFT: Final = 150
_BAR: Final = 460
_WIDTH: Final = 900
_TOP: Final = 64
_FILLS: Final = {WEIGHTS: "#3b6fb6", KV: "#3f9f63", RESERVE: "#c9ced6"}
_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})


def picture(title: str, memories: Sequence[Memory], *, note: str) -> str:
    """An SVG document: one bar for each memory, each as long as its card."""
    height = _TOP + _ROW * len(memories) + 56
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="system-ui, sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(16, 28, title, pixels=17, weight="600"),
    ]
    for row, memory in enumerate(memories):
        lines.extend(_bar(memory, y=_TOP + _ROW * row))
    lines.extend(_legend(y=_TOP + _ROW * len(memories) + 10))
    lines.append(_text(16, height - 12, note, fill="#667085", pixels=12))
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """The text for XML: markup escaped, and what XML 1.0 does not allow left out."""
    allowed = "".join(each for each in text if each.isprintable())
    return allowed.translate(_ESCAPES)


def _bar(memory: Memory, *, y: int) -> list[str]:
    parts = {WEIGHTS: memory.weights_bytes, KV: memory.kv_bytes, RESERVE: memory.reserve_bytes}
    total = max(sum(parts.values()), 1)
    lines = [_text(16, y + 15, memory.label)]
    position = float(_LEFT)
    for name, amount in parts.items():
        length = _BAR * amount / total
        lines.append(
            f'<rect x="{position:.1f}" y="{y}" width="{length:.1f}" height="22" fill="{_FILLS[name]}">'
            f"<title>{escape(f'{name}: {size(amount)}')}</title></rect>"
        )
        position += length
    over = memory.weights_bytes > memory.total_bytes
    figures = (
        f"weights {size(memory.weights_bytes)}, more than {size(memory.total_bytes)}"
        if over
        else f"{size(memory.weights_bytes)} + {size(memory.kv_bytes)} of {size(memory.total_bytes)}"
    )
    lines.append(_text(_LEFT + _BAR + 12, y + 15, figures, fill="#b42318" if over else "#101828"))
    return lines


def _legend(*, y: int) -> list[str]:
    lines = []
    for index, (name, fill) in enumerate(_FILLS.items()):
        x = _LEFT + 110 * index
        lines.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{fill}"/>')
        lines.append(_text(x + 18, y + 11, name))
    return lines


def _text(x: int, y: int, text: str, *, pixels: int = 13, fill: str = "#101828", weight: str = "400") -> str:
    look = f'font-size="{pixels}" font-weight="{weight}" fill="{fill}"'
    return f'<text x="{x}" y="{y}" {look}>{escape(text)}</text>'
