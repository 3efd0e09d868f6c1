"""Texts of a status, cut so that the whole stays below 16 KiB whatever is in them."""

from __future__ import annotations

import json

MESSAGE_BYTES = 768
REASON_BYTES = 512
SENTENCE_BYTES = 192
WORD_BYTES = 64
_ELLIPSIS = "…"


def clipped(text: str, limit_bytes: int) -> str:
    """`text`, cut to at most `limit_bytes` of JSON in UTF-8, with an ellipsis where something is missing."""
    if _json_bytes(text) <= limit_bytes:
        return text
    room = limit_bytes - _json_bytes(_ELLIPSIS)
    kept = []
    for character in text:
        room -= _json_bytes(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + _ELLIPSIS


def _json_bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode(errors="surrogatepass")) - 2
