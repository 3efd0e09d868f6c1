"""What an inspection writes, and how it is read: the one line in its pod's termination message.

{"model": "<profile as in models.wire>", "revision": ..., "downloadBytes": ...} or
{"error": {"reason": ..., "message": ...}}, at most 4,096 bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tonnage.models import ConfigError, ResolvedModel
from tonnage.models.wire import decode_wire, encode_wire

_ERROR_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a model could not be read: `reason` for programs, `message` with the remedy for people."""

    reason: str
    message: str


def encode(result: ResolvedModel | Failure) -> str:
    """The termination message of a result."""
    if isinstance(result, Failure):
        text = result.message.encode()[:_ERROR_BYTES].decode(errors="ignore")
        return json.dumps({"error": {"reason": result.reason, "message": text}})
    try:
        wire = encode_wire(result.profile)
    except ConfigError:
        return encode(
            Failure(reason="ModelTooIrregular", message="the layers differ too much to be described in 4 KiB")
        )
    answer = {"model": wire, "revision": result.revision, "downloadBytes": result.download_bytes}
    return json.dumps(answer, separators=(",", ":"))


def decode(message: str) -> ResolvedModel | Failure:
    """The result in a termination message; anything unreadable is a failure too."""
    try:
        data: Any = json.loads(message)
        if "error" in data:
            return Failure(reason=str(data["error"]["reason"]), message=str(data["error"]["message"]))
        return ResolvedModel(
            profile=decode_wire(str(data["model"])),
            revision=str(data["revision"]),
            download_bytes=int(data["downloadBytes"]),
        )
    except ConfigError as error:
        return Failure(reason=error.reason, message=error.message)
    except (KeyError, TypeError, ValueError):
        text = message[:200] or "nothing"
        return Failure(
            reason="InspectionUnreadable", message=f"the inspection wrote {text!r} instead of a result"
        )
