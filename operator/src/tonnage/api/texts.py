"""Texts of a status, cut so that the whole stays below 16 KiB whatever is in them."""

from __future__ import annotations

import json
import re
from typing import Final

MESSAGE_BYTES = 768
REASON_BYTES = 512
SENTENCE_BYTES = 192
WORD_BYTES = 64
_ELLIPSIS = "…"
# what UTF-8 cannot spell, and what JSON may hold as it is but the YAML reader that an apply goes through
# refuses (go-yaml readerc.go, "control characters are not allowed") or folds as the end of a line
# (yamlprivateh.go, is_break), so that what comes back is not what was written
_UNSPEAKABLE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def clipped(text: str, limit_bytes: int) -> str:
    """`text`, cut to at most `limit_bytes` of JSON in UTF-8, with an ellipsis where something is missing.

    What no apply could carry is replaced by U+FFFD."""
    text = _UNSPEAKABLE.sub("\ufffd", text)
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
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2
