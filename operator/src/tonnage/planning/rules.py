"""Why not: an ordered chain of rules, each a pure function of the question that returns a Rejection or
None."""

from __future__ import annotations

from collections.abc import Callable

from tonnage.gpus.placement import NodeSelection, count_reasons
from tonnage.models import CacheSpec, FullAttention, LatentAttention, SlidingWindow, Trait
from tonnage.planning.candidates import fp8_possible, head_sizes, quality_of
from tonnage.planning.demand import Question, Wanted
from tonnage.planning.plan import Quality, Rejection

Rule = Callable[[Question], Rejection | None]

MAX_CONCURRENCY = 65536


def first_rejection(question: Question) -> Rejection | None:
    """The first rule of the chain that objects, in the order in which a user would mend things."""
    return next((rejection for rule in CHAIN if (rejection := rule(question)) is not None), None)


def numbers_make_sense(question: Wanted) -> Rejection | None:
    """Every figure of the demand is positive and in range."""
    demand = question.demand
    figures = (
        ("contextLength", demand.context_length, 2**31 - 1),
        ("concurrency", demand.concurrency, MAX_CONCURRENCY),
        ("typicalTokens", demand.typical_tokens, 2**31 - 1),
    )
    for name, value, most in figures:
        if value is not None and not 1 <= value <= most:
            return Rejection(
                reason="InvalidDemand", message=f"workload.{name} is {value}; it must be between 1 and {most}"
            )
    return None


def context_within_model(question: Wanted) -> Rejection | None:
    """No request is longer than the model allows: the engine refuses to start otherwise."""
    limit, wanted = question.model.shape.max_context_tokens, question.context_tokens
    if wanted <= limit:
        return None
    return Rejection(
        reason="ContextTooLong",
        message=(
            f"workload.contextLength {wanted} is more than the model's own limit of {limit} tokens; "
            f"set it to {limit} or less"
        ),
        numbers={"contextLength": wanted, "modelLimit": limit},
    )


def typical_within_context(question: Wanted) -> Rejection | None:
    """A typical request is no longer than the longest."""
    typical, context = question.typical_tokens, question.context_tokens
    if typical <= context:
        return None
    return Rejection(
        reason="InvalidDemand",
        message=f"workload.typicalTokens {typical} is more than the context length of {context} tokens",
        numbers={"typicalTokens": typical, "contextLength": context},
    )


def weights_supported(question: Question) -> Rejection | None:
    """The checkpoint's quantization has kernels on this hardware."""
    declared, engine = question.model.shape.quantization, question.engine
    if declared is None or declared in engine.quantizations:
        return None
    known = ", ".join(sorted(engine.quantizations)) or "none"
    return Rejection(
        reason="UnsupportedQuantization",
        message=(
            f"the checkpoint declares weights quantized with {declared}; on {engine.accelerator} vLLM "
            f"{engine.version} has no kernels for them on every processor (planned there: {known}); "
            "use an unquantized checkpoint"
        ),
    )


def attention_supported(question: Question) -> Rejection | None:
    """The attention kernels exist for the model's head sizes; the engine would find out in its first step."""
    engine = question.engine
    for spec, _ in question.model.shape.cache_runs:
        if not isinstance(spec, FullAttention | SlidingWindow | LatentAttention):
            return _unsupported_cache(question, spec)
        if isinstance(spec, LatentAttention):
            wrong = {spec.latent_size} - engine.latent_sizes
        else:
            wrong = set(head_sizes(spec)) - engine.head_sizes
        if wrong:
            return _unsupported_size(question, size=min(wrong))
    if not question.model.shape.num_layers or Trait.MULTIMODAL in question.model.shape.traits:
        return _unsupported_cache(question, None)
    return None


def kv_dtype_supported(question: Question) -> Rejection | None:
    """A pinned KV dtype is one that the engine computes rightly here, not merely one that it accepts."""
    pinned, engine = question.demand.kv_dtype, question.engine
    if pinned is None:
        return None
    allowed = engine.allowed_kv_dtypes(latent=question.latent)
    if pinned not in allowed:
        message = f"cache.dtype {pinned[:40]} {_why_wrong(question, pinned)}; allowed: {', '.join(allowed)}"
        return Rejection(reason="UnsupportedKvDtype", message=message)
    if quality_of(pinned) is Quality.NEAR_LOSSLESS and not fp8_possible(question):
        return Rejection(
            reason="UnsupportedKvDtype",
            message=(
                f"cache.dtype {pinned} does not work for {question.model.shape.architecture} on "
                f"{engine.accelerator}: {_why_no_fp8(question)}; "
                f"allowed: {', '.join(name for name in allowed if quality_of(name) is Quality.LOSSLESS)}"
            ),
        )
    return None


def kv_dtype_within_quality(question: Question) -> Rejection | None:
    """A pinned KV dtype does not lose more than the quality the user asks for."""
    pinned = question.demand.kv_dtype
    if (
        pinned is None
        or question.demand.quality is not Quality.LOSSLESS
        or quality_of(pinned) is Quality.LOSSLESS
    ):
        return None
    return Rejection(
        reason="KvDtypeNotAllowed",
        message=(
            f"cache.dtype {pinned} is {quality_of(pinned)}, but quality is Lossless; "
            "set quality to NearLossless or cache.dtype to Auto"
        ),
    )


def prefix_caching_possible(question: Question) -> Rejection | None:
    """Prefix caching is not demanded where the engine switches it off without a word."""
    if not question.demand.prefix_caching or not question.latent or question.engine.chunks_latent_prefill:
        return None
    return Rejection(
        reason="PrefixCachingUnsupported",
        message=(
            f"cache.prefixCaching is Enabled, but on {question.engine.accelerator} the engine turns it off "
            "for latent attention; set it to Auto or Disabled"
        ),
    )


def some_node_usable(question: Question) -> Rejection | None:
    """At least one node takes the pod, whatever its memory."""
    return None if question.selection.usable else no_usable_node(question.selection)


def no_usable_node(selection: NodeSelection) -> Rejection:
    """No node takes the pod, and what is against each; or nothing is known of nodes."""
    if not selection.known:
        return Rejection(
            reason="NoUsableNode",
            message=(
                "nodes cannot be read, so what memory there is cannot be known: set rbac.nodes to true in "
                "the values of the operator's chart, which grants list and watch of nodes and nothing else"
            ),
        )
    why = count_reasons(selection.excluded) or "the cluster has no nodes"
    return Rejection(
        reason="NoUsableNode",
        message=f"none of {len(selection.excluded)} nodes can take the pod: {why}"[:1024],
        numbers={"nodes": len(selection.excluded)},
    )


CHAIN: tuple[Rule, ...] = (
    numbers_make_sense,
    context_within_model,
    typical_within_context,
    weights_supported,
    attention_supported,
    kv_dtype_supported,
    kv_dtype_within_quality,
    prefix_caching_possible,
    some_node_usable,
)


def _unsupported_cache(question: Question, spec: CacheSpec | None) -> Rejection:
    held = "" if spec is None else f" keeps a cache of kind {type(spec).__name__}, which"
    what = held or " needs more than text and a KV cache, which"
    return Rejection(
        reason="UnsupportedAttention",
        message=(
            f"{question.model.shape.architecture}{what} is not planned on {question.engine.accelerator} "
            "nodes yet; `tonnage fit` sizes it for GPUs"
        ),
    )


def _unsupported_size(question: Question, *, size: int) -> Rejection:
    engine = question.engine
    kind, allowed = ("latent", engine.latent_sizes) if question.latent else ("head", engine.head_sizes)
    return Rejection(
        reason="UnsupportedHeadSize",
        message=(
            f"{question.model.shape.architecture} has a {kind} size of {size}; vLLM {engine.version} on "
            f"{engine.accelerator} has attention kernels for {', '.join(map(str, sorted(allowed)))}"
        ),
        numbers={"headSize": size},
    )


def _why_wrong(question: Question, pinned: str) -> str:
    accelerator = question.engine.accelerator
    if pinned in question.engine.wrong_kv_dtypes:
        return f"would be accepted by the engine on {accelerator}, which reports healthy and answers garbage"
    if question.latent and pinned in question.engine.kv_dtypes:
        return f"has no kernel for latent attention on {accelerator}"
    return f"is not known to be computed rightly on {accelerator}, and the engine does not check"


def _why_no_fp8(question: Question) -> str:
    if question.model.shape.fixed_kv_dtype:
        return "the engine ignores it for this architecture and stores the model's own dtype"
    return f"fp8 needs head sizes divisible by {question.engine.fp8_head_multiple}"
