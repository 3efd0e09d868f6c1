"""The machine form: one answer as a document with stable keys (docs/machine-output.md)."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Final

from tonnage.cli.answers import Answer, Question
from tonnage.cli.model import ModelFiles
from tonnage.planning.savings import Savings

_FIGURES: Final = (
    "bytes_per_block",
    "num_blocks",
    "kv_tokens",
    "max_concurrency",
    "groups",
    "weights_bytes_per_rank",
    "weights_bytes_by_stage",
    "kv_bytes",
    "estimated_max_context",
    "block_size",
    "context",
    "kv_dtype",
    "attention_backends",
    "max_num_seqs",
    "max_num_batched_tokens",
)


def document(question: Question, answer: Answer) -> dict[str, Any]:
    """One answer."""
    found = answer.fit
    stages = found.weights_bytes_by_stage
    return {
        "model": model(question.files, architecture=question.shape.architecture),
        "supported": found.supported,
        "fits": found.fits,
        "reason": answer.reason,
        "message": message(answer),
        "bytes_per_block": found.bytes_per_block,
        "num_blocks": found.num_blocks,
        "kv_tokens": found.kv_tokens,
        "max_concurrency": finite(found.max_concurrency),
        "groups": [asdict(group) for group in found.groups],
        "weights_bytes_per_rank": stages[0] if stages else None,
        "weights_bytes_by_stage": list(stages) if stages else None,
        "available_kv_bytes": _available(answer),
        "kv_bytes": answer.kv_bytes if found.supported else None,
        "estimated_max_context": found.estimated_max_context,
        "block_size": found.block_tokens,
        "context": found.context_tokens,
        "kv_dtype": found.kv_dtype or answer.kv_dtype,
        "attention_backends": list(found.attention_backends),
        "max_num_seqs": found.max_num_seqs,
        "max_num_batched_tokens": found.max_num_batched_tokens,
        "engine_version": question.engine_version,
        "engine_rules": found.engine_rules,
        "assumed": found.assumed,
        **_place(answer),
    }


def refusal(
    name: str, *, files: ModelFiles | None, engine_version: str, reason: str, message: str
) -> dict[str, Any]:
    """A model that cannot be read or planned: the same keys, without figures."""
    nothing: dict[str, Any] = dict.fromkeys(_FIGURES)
    nothing |= {"groups": [], "attention_backends": []}
    return {
        "model": model(files, architecture=None) if files else {"name": name},
        "supported": False,
        "fits": False,
        "reason": reason,
        "message": message,
        **nothing,
        "available_kv_bytes": {"estimate": None, "lower": None, "upper": None},
        "engine_version": engine_version,
        "engine_rules": None,
        "assumed": False,
    }


def model(files: ModelFiles, *, architecture: str | None) -> dict[str, Any]:
    """What was read, and where."""
    return {
        "name": files.name,
        "origin": files.origin,
        "source": files.source,
        "architecture": architecture,
        "checkpoint_bytes": files.checkpoint_bytes,
    }


def saved(savings: Savings) -> dict[str, Any]:
    """What the architecture saves."""
    return {
        "context": savings.context_tokens,
        "bytes_per_token": savings.bytes_per_token,
        "context_bytes": savings.context_bytes,
        "multi_head_bytes_per_token": savings.plain_bytes_per_token,
        "multi_head_context_bytes": savings.plain_context_bytes,
        "factor": finite(savings.factor),
        "techniques": list(savings.techniques),
    }


def message(answer: Answer) -> str | None:
    """Why not, with numbers; for upper bounds also what the figures leave out."""
    if answer.reason != "weights_too_large" or answer.weights_bytes is None:
        return answer.fit.message
    gib = 2**30
    return (
        f"the weights of a rank take {answer.weights_bytes / gib:.2f} GiB, the engine's share of the card is "
        f"{answer.place.share_bytes / gib:.2f} GiB: use more ranks, a larger card or a quantized checkpoint"
    )


def _available(answer: Answer) -> dict[str, int | None]:
    if answer.exact:
        return dict.fromkeys(("estimate", "lower", "upper"), answer.kv_bytes)
    upper = answer.kv_bytes if answer.fit.supported else None
    return {"estimate": None, "lower": None, "upper": upper}


def _place(answer: Answer) -> dict[str, Any]:
    place = answer.place
    capability = place.device.compute_capability
    return {
        "gpu": place.card,
        "gpu_memory_bytes": place.memory_bytes or None,
        "gpu_memory_utilization": place.utilization,
        "compute_capability": None if capability is None else f"{capability[0]}.{capability[1]}",
    }


def finite(number: float | None) -> float | None:
    """The number, or None where JSON has none for it."""
    return number if number is not None and math.isfinite(number) else None
