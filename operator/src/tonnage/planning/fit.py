"""Does a model fit given KV bytes on one kind of device, and how much does it hold: the engine's figures."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tonnage.engines import GpuRules
from tonnage.models import ModelShape
from tonnage.planning.memory import (
    KvLayout,
    LayoutError,
    Request,
    blocks_in,
    concurrency,
    engine_tokens,
    fits_one_request,
    group_blocks,
    kv_layout,
    longest_context,
    suggested_context,
)
from tonnage.planning.paging import Paging, page
from tonnage.planning.settle import Device, EngineOptions, RefusedError, Settled, settle
from tonnage.planning.weights import IndivisibleError, weight_bytes

__all__ = ["Device", "EngineOptions", "Fit", "GroupFit", "LaidOut", "fit", "lay_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFit:
    """One KV group: layers that share a block table. `blocks_per_request` at the context length."""

    kind: str
    layers: int
    block_tokens: int
    page_bytes: int
    blocks_per_request: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The answer. `supported` False: refused by the engine or here, `reason` is a word, `message` says why.

    `fits` False with `supported` True: not enough KV bytes; `estimated_max_context` is then the engine's own
    suggestion, else the longest context that these bytes hold. Numbers are of the smallest rank;
    `weights_bytes_by_stage` are bytes of one rank of each pipeline stage, None where the checkpoint's format
    is not known. `engine_rules` is the engine version whose rules were used, `assumed` says that it is not
    the one asked for.
    """

    supported: bool
    fits: bool
    reason: str | None = None
    message: str | None = None
    context_tokens: int | None = None
    block_tokens: int | None = None
    kv_dtype: str | None = None
    attention_backends: tuple[str, ...] = ()
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    bytes_per_block: int | None = None
    num_blocks: int | None = None
    kv_tokens: int | None = None
    max_concurrency: float | None = None
    groups: tuple[GroupFit, ...] = ()
    weights_bytes_by_stage: tuple[int, ...] | None = None
    estimated_max_context: int | None = None
    engine_rules: str | None = None
    assumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LaidOut:
    """A start with everything but the bytes: settled options, paged layers, and the KV layout."""

    settled: Settled
    paging: Paging
    layout: KvLayout

    @property
    def reserves_null_block(self) -> bool:
        """Whether the engine's admission check counts the block that its pool holds back."""
        rules = self.settled.rules
        return not isinstance(rules, GpuRules) or rules.reserves_null_block


def lay_out(
    shape: ModelShape, *, device: Device, options: EngineOptions, engine_version: str = "0.32.0"
) -> LaidOut:
    """What does not depend on bytes. Raises `RefusedError`."""
    settled = settle(shape, device=device, options=options, engine_version=engine_version)
    paging = page(settled)
    try:
        layout = kv_layout(
            paging.runs,
            request=Request(
                in_flight_tokens=settled.in_flight_tokens, context_parallel=options.decode_context_parallel
            ),
            stages=options.pipeline_parallel,
            hybrid_manager=options.hybrid_manager,
            block_outermost=paging.block_outermost,
        )
    except LayoutError as error:
        raise RefusedError("unaligned_pages", str(error)) from None
    if layout.groups and min(layout.stage_bytes) == 0:
        raise RefusedError("pp_unsupported", "a pipeline stage would hold no layer with a KV cache")
    return LaidOut(settled=settled, paging=paging, layout=layout)


def fit(
    shape: ModelShape,
    *,
    device: Device,
    options: EngineOptions,
    kv_bytes: int,
    engine_version: str = "0.32.0",
) -> Fit:
    """What an engine with these options makes of `kv_bytes` on each rank; never raises."""
    try:
        laid = lay_out(shape, device=device, options=options, engine_version=engine_version)
        weights = _weights(laid)
    except RefusedError as error:
        return Fit(supported=False, fits=False, reason=error.reason, message=str(error))
    return _answer(laid, kv_bytes=kv_bytes, weights=weights)


def _answer(laid: LaidOut, *, kv_bytes: int, weights: tuple[int, ...] | None) -> Fit:
    settled, layout = laid.settled, laid.layout
    context = settled.context_tokens
    checked = kv_bytes if laid.reserves_null_block else kv_bytes + max(layout.stage_bytes)
    longest = longest_context(layout, kv_bytes=checked, limit_tokens=context)
    if settled.auto_fit:
        context = longest
    fits = context > 0 and fits_one_request(layout, kv_bytes=checked, context_tokens=context)
    held = context or settled.context_tokens
    answer = Fit(
        supported=True,
        fits=fits,
        reason=None if fits else "kv_cache_too_small",
        message=None if fits else _too_small(laid, kv_bytes=kv_bytes, longest=longest),
        context_tokens=held,
        block_tokens=laid.paging.block_tokens,
        kv_dtype=laid.paging.kv_dtype,
        attention_backends=laid.paging.kernels,
        max_num_seqs=settled.max_num_seqs,
        max_num_batched_tokens=settled.max_num_batched_tokens,
        bytes_per_block=layout.bytes_per_block if layout.groups else None,
        weights_bytes_by_stage=weights,
        estimated_max_context=longest
        if fits
        else suggested_context(layout, kv_bytes=checked, context_tokens=held),
        engine_rules=settled.rules.rules_version,
        assumed=settled.rules.assumed,
    )
    return _with_figures(answer, layout, kv_bytes=kv_bytes) if fits else answer


def _with_figures(answer: Fit, layout: KvLayout, *, kv_bytes: int) -> Fit:
    blocks = blocks_in(layout, kv_bytes=kv_bytes)
    context = answer.context_tokens
    if not layout.groups or context is None:
        return replace(answer, num_blocks=blocks)
    return replace(
        answer,
        num_blocks=blocks,
        kv_tokens=engine_tokens(layout, blocks=blocks, context_tokens=context),
        max_concurrency=concurrency(layout, blocks=blocks, length_tokens=context),
        groups=tuple(
            GroupFit(
                kind=str(group.members[0].kind),
                layers=group.layers,
                block_tokens=group.members[0].block_tokens,
                page_bytes=group.members[0].page_bytes,
                blocks_per_request=group_blocks(group, layout.request, context),
            )
            for group in layout.groups
        ),
    )


def _weights(laid: LaidOut) -> tuple[int, ...] | None:
    shape, options = laid.settled.shape, laid.settled.options
    if not shape.weights_known:
        return None
    try:
        return weight_bytes(
            shape,
            dtype=laid.settled.dtype,
            tensor_parallel=options.tensor_parallel,
            pipeline_parallel=options.pipeline_parallel,
            expert_parallel=options.expert_parallel,
            capability=laid.settled.device.compute_capability,
        )
    except IndivisibleError as error:
        raise RefusedError("tp_not_divisible", f"{shape.architecture}: {error}") from None


def _too_small(laid: LaidOut, *, kv_bytes: int, longest: int) -> str:
    gib = 2**30
    suggestion = f"the longest that fits is {longest}" if longest else "not even one token fits"
    return (
        f"{kv_bytes / gib:.2f} GiB of KV cache cannot hold one request of {laid.settled.context_tokens} "
        f"tokens in blocks of {max(laid.layout.stage_bytes)} bytes; {suggestion}"
    )
