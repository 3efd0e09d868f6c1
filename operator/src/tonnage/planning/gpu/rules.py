"""Why not: ordered chains of rules for plans on GPUs. Each is a pure function that returns a Rejection or
None; the first that objects is the reason, in the order in which a user would mend things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tonnage.engines import KV_DTYPES
from tonnage.gpus.inventory import Pool, Vendor
from tonnage.models import CrossAttention, Trait
from tonnage.planning.gpu.candidates import (
    Candidate,
    Choice,
    Sizer,
    batches,
    may_spread,
    single_node_ranks,
)
from tonnage.planning.gpu.ladder import FP8, QUALITIES, Step, quality_of_kv, runs_well, steps
from tonnage.planning.gpu.question import AS_SHIPPED, GpuQuestion, names_of, usable_bytes
from tonnage.planning.plan import Quality, Rejection
from tonnage.planning.rules import context_within_model, numbers_make_sense, typical_within_context
from tonnage.planning.settle import RefusedError
from tonnage.planning.weights import IndivisibleError
from tonnage.planning.words import gib, learned_from

QuestionRule = Callable[[GpuQuestion], Rejection | None]
PoolRule = Callable[[GpuQuestion, Pool], Rejection | None]
StepRule = Callable[[GpuQuestion, Pool, Step], Rejection | None]
CandidateRule = Callable[[GpuQuestion, Candidate], Rejection | None]

_LEAST_CAPABILITY: Final = (7, 5)
_SHARED_WITH_THE_SYSTEM: Final = frozenset({(12, 1)})


# The question


def hardware_makes_sense(question: GpuQuestion) -> Rejection | None:
    """Every figure of `hardware` is positive, and the ranks are not more than the GPUs allowed."""
    hardware = question.hardware
    figures = (
        ("parallelism.tensor", hardware.tensor_parallel),
        ("parallelism.pipeline", hardware.pipeline_parallel),
        ("maxGPUsPerReplica", hardware.max_gpus),
    )
    for name, value in figures:
        if value is not None and not 1 <= value <= 1024:
            message = f"hardware.{name} is {value}; it must be between 1 and 1024"
            return Rejection(reason="InvalidDemand", message=message)
    asked = (hardware.tensor_parallel or 1) * (hardware.pipeline_parallel or 1)
    if hardware.max_gpus is not None and asked > hardware.max_gpus:
        return Rejection(
            reason="InvalidDemand",
            message=(
                f"hardware.parallelism asks for {asked} GPUs, hardware.maxGPUsPerReplica allows "
                f"{hardware.max_gpus}"
            ),
            numbers={"asked": asked, "allowed": hardware.max_gpus},
        )
    return None


def generates_text(question: GpuQuestion) -> Rejection | None:
    """The model writes one token after the other from a KV cache that requests fill."""
    shape = question.model.shape
    cross = any(isinstance(spec, CrossAttention) for spec, _ in shape.cache_runs)
    if shape.num_layers and not cross and Trait.ENCODER_ONLY not in shape.traits:
        return None
    return Rejection(
        reason="UnsupportedAttention",
        message=(
            f"{shape.architecture} reads with an encoder or keeps no KV cache; only models that generate "
            "text token by token are planned; `tonnage fit` sizes the others"
        ),
    )


def weights_known(question: GpuQuestion) -> Rejection | None:
    """The tensors are known, so that a rank's share of them is."""
    if question.model.shape.weights_known:
        return None
    declared = question.model.shape.quantization
    what = f"quantized with {declared}, which is" if declared else "of an architecture that is"
    instead = "" if declared else "; hardware.accelerator: CPU can be planned"
    return Rejection(
        reason="UnknownWeights",
        message=(
            f"the checkpoint is {what} not known here, so the bytes of a GPU's share of it are not known"
            f"{instead}"
        ),
    )


def quantization_known(question: GpuQuestion) -> Rejection | None:
    """The engine serves the checkpoint's format at all."""
    declared, known = question.model.shape.quantization, question.engine.quantizations
    if declared is None or declared in known:
        return None
    return Rejection(
        reason="UnsupportedQuantization",
        message=(
            f"the checkpoint declares weights quantized with {declared}, which is not planned on GPUs; "
            f"planned there: {', '.join(sorted(known))}"
        ),
    )


def weights_pin_possible(question: GpuQuestion) -> Rejection | None:
    """`weights.quantization` is something that can be done to this checkpoint."""
    pinned, declared = question.hardware.quantization, question.model.shape.quantization
    if pinned in {None, AS_SHIPPED} or (pinned == FP8 and declared == FP8):
        return None
    if pinned != FP8:
        why = f"is not planned; possible: Auto, {AS_SHIPPED}, {FP8}"
    elif declared is not None:
        why = f"is not possible: the checkpoint is quantized with {declared} already; set it to Auto"
    elif Trait.DECLARED_PLAIN in question.model.shape.traits:
        why = (
            "is not possible: the checkpoint declares a quantization without a method that vLLM reads, and "
            "vLLM quantizes no such checkpoint; set it to Auto, or remove the declaration (config.json or "
            "hf_quant_config.json) if the weights are stored plain"
        )
    elif not question.engine.online_fp8:
        why = f"is not known of vLLM {question.engine.version}; use a newer one or an fp8 checkpoint"
    else:
        return None
    message = f"weights.quantization {str(pinned)[:40]} {why}"
    return Rejection(reason="UnsupportedQuantization", message=message)


def kv_dtype_known(question: GpuQuestion) -> Rejection | None:
    """A pinned KV dtype is one that this model's caches can follow."""
    pinned, shape = question.demand.kv_dtype, question.model.shape
    if pinned is None:
        return None
    if pinned not in KV_DTYPES:
        known = ", ".join(sorted(KV_DTYPES))
        message = f"cache.dtype {pinned[:40]} is not known of vLLM {question.engine.version}; known: {known}"
        return Rejection(reason="UnsupportedKvDtype", message=message)
    if shape.fixed_kv_dtype and pinned != "auto":
        return Rejection(
            reason="UnsupportedKvDtype",
            message=(
                f"cache.dtype {pinned} does not work for {shape.architecture}: the engine ignores it "
                "and stores the model's own dtype; set it to Auto"
            ),
        )
    return None


def pins_within_quality(question: GpuQuestion) -> Rejection | None:
    """What is pinned loses no more than the quality the user asks for."""
    allowed, pinned = question.demand.quality, question.demand.kv_dtype
    if pinned is not None and _beyond(quality_of_kv(pinned), allowed):
        return Rejection(
            reason="KvDtypeNotAllowed",
            message=(
                f"cache.dtype {pinned} is {quality_of_kv(pinned)}, but quality is {allowed}; "
                f"set quality to {quality_of_kv(pinned)} or cache.dtype to Auto"
            ),
        )
    on_top = question.hardware.quantization == FP8 and question.model.shape.quantization is None
    if on_top and allowed is Quality.LOSSLESS:
        return Rejection(
            reason="QuantizationNotAllowed",
            message=(
                f"weights.quantization {FP8} is {Quality.NEAR_LOSSLESS}, but quality is {allowed}; "
                f"set quality to {Quality.NEAR_LOSSLESS} or weights.quantization to Auto"
            ),
        )
    return None


def _beyond(quality: Quality, allowed: Quality) -> bool:
    return QUALITIES.index(quality) > QUALITIES.index(allowed)


def some_accelerator(question: GpuQuestion) -> Rejection | None:
    """The cluster has a GPU at all."""
    if any(pool.vendor is not Vendor.CPU for pool in question.pools):
        return None
    message = (
        "no node of the cluster has a GPU that pods can ask for: add one, look whether its device plugin "
        "runs, or set hardware.accelerator: CPU"
    )
    return Rejection(reason="NoAccelerators", message=message)


def some_step(question: GpuQuestion) -> Rejection | None:
    """What is pinned leaves something to do."""
    if steps(question):
        return None
    message = f"nothing within quality {question.demand.quality} obeys cache.dtype and weights.quantization"
    return Rejection(reason="InvalidDemand", message=message)


QUESTION_CHAIN: Final[tuple[QuestionRule, ...]] = (
    numbers_make_sense,
    hardware_makes_sense,
    context_within_model,
    typical_within_context,
    generates_text,
    weights_known,
    quantization_known,
    weights_pin_possible,
    kv_dtype_known,
    pins_within_quality,
    some_step,
    some_accelerator,
)


# A pool


def vendor_known(question: GpuQuestion, pool: Pool) -> Rejection | None:
    """The engine's memory rules are known of NVIDIA's cards alone."""
    if pool.vendor is Vendor.NVIDIA:
        return None
    message = f"vLLM {question.engine.version}'s memory on {pool.vendor} devices is not known here"
    return Rejection(reason="UnsupportedVendor", message=message)


def device_known(question: GpuQuestion, pool: Pool) -> Rejection | None:
    """The card's compute capability is known, and the engine runs on it."""
    capability = pool.compute_capability
    if capability is None or pool.memory_bytes <= 0:
        message = "its compute capability or its memory is not known"
        return Rejection(reason="UnknownDevice", message=message)
    if capability < _LEAST_CAPABILITY:
        message = (
            f"compute capability {_dotted(capability)} is less than the {_dotted(_LEAST_CAPABILITY)} that "
            f"vLLM {question.engine.version} needs"
        )
        return Rejection(reason="UnsupportedDevice", message=message)
    if capability in _SHARED_WITH_THE_SYSTEM:
        message = "its memory is shared with the system, so what is free at a start is not known beforehand"
        return Rejection(reason="UnsupportedDevice", message=message)
    return None


def product_allowed(question: GpuQuestion, pool: Pool) -> Rejection | None:
    """`hardware.products` names it, where it names any."""
    allowed = question.hardware.products
    if not allowed or not set(allowed).isdisjoint(names_of(pool)):
        return None
    # hardware.products takes no name with a space
    _, *others = names_of(pool)
    names = dict.fromkeys(name for name in others if " " not in name) or (pool.name,)
    message = (
        f"none of hardware.products ({', '.join(sorted(allowed))[:200]}) names it: write {' or '.join(names)}"
    )
    return Rejection(reason="ProductNotAllowed", message=message)


def checkpoint_runs_here(question: GpuQuestion, pool: Pool) -> Rejection | None:
    """The engine has kernels for the checkpoint's format on this card."""
    declared = question.model.shape.quantization
    least = question.engine.quantizations.get(declared or "", _LEAST_CAPABILITY)
    if pool.compute_capability is None or pool.compute_capability >= least:
        return None
    message = f"weights quantized with {declared} need compute capability {_dotted(least)}"
    return Rejection(reason="UnsupportedQuantization", message=message)


def ranks_have_room(question: GpuQuestion, pool: Pool) -> Rejection | None:
    """Nodes of the pool have as many devices, free or not, as the parallelism that was asked for."""
    if single_node_ranks(question, pool):
        return None
    if may_spread(question, pool):
        return None
    hardware = question.hardware
    wanted = (hardware.tensor_parallel or 1) * (hardware.pipeline_parallel or 1)
    message = f"no node has {wanted} {pool.product}, the largest has {pool.devices_per_pod}"
    return Rejection(reason="NotEnoughGpus", message=message, numbers={"gpus": wanted})


POOL_CHAIN: Final[tuple[PoolRule, ...]] = (
    vendor_known,
    product_allowed,
    device_known,
    checkpoint_runs_here,
    ranks_have_room,
)


# A step of the ladder on a pool


def weights_computed_here(_question: GpuQuestion, pool: Pool, step: Step) -> Rejection | None:
    """fp8 weights only where the card computes in fp8: elsewhere they save memory and cost time."""
    if not step.weights or FP8 in pool.computes:
        return None
    message = f"{pool.product} does not compute in {FP8}, so weights stay as shipped there"
    return Rejection(reason="UnsupportedQuantization", message=message)


def kv_dtype_runs_well(question: GpuQuestion, pool: Pool, step: Step) -> Rejection | None:
    """A KV dtype that nobody pinned has a fast kernel there, and the model's caches follow it."""
    if question.demand.kv_dtype is not None or step.kv_dtype == "auto":
        return None
    if question.model.shape.fixed_kv_dtype:
        message = f"the engine ignores it for {question.model.shape.architecture}"
        return Rejection(reason="UnsupportedKvDtype", message=message)
    if runs_well(step.kv_dtype, pool=pool, latent=question.latent):
        return None
    message = f"{pool.product} has no fast kernel for a KV cache in {step.kv_dtype}"
    return Rejection(reason="UnsupportedKvDtype", message=message)


STEP_CHAIN: Final[tuple[StepRule, ...]] = (weights_computed_here, kv_dtype_runs_well)


# A candidate


def gpus_allowed(question: GpuQuestion, choice: Choice) -> Rejection | None:
    """`hardware.maxGPUsPerReplica` allows as many."""
    most = question.hardware.max_gpus
    if most is None or choice.gpus <= most:
        return None
    message = f"{choice.gpus} GPUs are more than hardware.maxGPUsPerReplica {most}"
    return Rejection(reason="TooManyGpus", message=message, numbers={"gpus": choice.gpus, "allowed": most})


def weights_alone_fit(choice: Choice, *, weights: int) -> Rejection | None:
    """The parameters are smaller than a device; looked at first, since much else need not be."""
    usable = usable_bytes(choice.pool)
    if weights < usable:
        return None
    return Rejection(
        reason="WeightsDoNotFit",
        message=f"weights of {gib(weights)} are more than the {gib(usable)} of each of {describe(choice)}",
        numbers={"missingBytes": weights - usable, "gpus": choice.gpus},
    )


def weights_fit(_question: GpuQuestion, candidate: Candidate) -> Rejection | None:
    """What is not KV cache leaves something of a device."""
    left = candidate.budget.kv_bytes
    if left > 0:
        return None
    return Rejection(
        reason="WeightsDoNotFit",
        message=(
            f"weights of {gib(candidate.budget.weights.likely)} and what the engine needs beside them, "
            f"{gib(candidate.budget.other_bytes)} in all{learned_from(candidate.starts)}, are more than the "
            f"{gib(usable_bytes(candidate.choice.pool))} of each of {describe(candidate.choice)}"
        ),
        numbers={"missingBytes": candidate.missing_bytes, "gpus": candidate.choice.gpus},
    )


def workload_fits(_question: GpuQuestion, candidate: Candidate) -> Rejection | None:
    """The KV cache holds one request at the context length, and `concurrency` typical ones."""
    if candidate.blocks >= candidate.needed_blocks:
        return None
    needed = candidate.needed_blocks * candidate.block_bytes
    return Rejection(
        reason="WorkloadDoesNotFit",
        message=(
            f"each of {describe(candidate.choice)} has {gib(candidate.budget.kv_bytes)} for its KV cache"
            f"{learned_from(candidate.starts)}, the workload needs {gib(needed)}"
        ),
        numbers={"missingBytes": candidate.missing_bytes, "gpus": candidate.choice.gpus},
    )


CANDIDATE_CHAIN: Final[tuple[CandidateRule, ...]] = (weights_fit, workload_fits)


def devices_free(question: GpuQuestion, choice: Choice) -> Rejection | None:
    """As many nodes as the replica has pods have the devices free, and the main memory."""
    memory = main_memory_bytes(question, choice)
    free = [node for node in choice.pool.nodes if node.free >= choice.devices_per_pod]
    able = sum(node.memory_bytes >= memory for node in free)
    if able >= choice.nodes:
        return None
    where = "no node has" if choice.nodes == 1 else f"fewer than {choice.nodes} nodes have"
    with_memory = f" with {gib(memory)} of main memory" if able < len(free) else ""
    return Rejection(
        reason="NotFree",
        message=f"{where} {choice.devices_per_pod} {choice.pool.product} free{with_memory}",
        numbers={"gpus": choice.gpus, "missing": missing_devices(question, choice)},
    )


def lacking_memory(question: GpuQuestion, choice: Choice) -> tuple[str, int] | None:
    """Of the nodes that have the devices free and too little main memory for a pod, the one that lacks least,
    and how many bytes; None where there is none."""
    memory = main_memory_bytes(question, choice)
    small = (
        (memory - node.memory_bytes, node.name)
        for node in choice.pool.nodes
        if node.free >= choice.devices_per_pod and node.memory_bytes < memory
    )
    lacking = min(small, default=None)
    return None if lacking is None else (lacking[1], lacking[0])


def missing_devices(question: GpuQuestion, choice: Choice) -> int:
    """How many devices more would have to be free, on the nodes that have most, of those that are large
    enough."""
    memory, wanted = main_memory_bytes(question, choice), choice.devices_per_pod
    large = (node for node in choice.pool.nodes if node.memory_bytes >= memory and node.devices >= wanted)
    free = sorted((node.free for node in large), reverse=True)
    best = [*free, *([0] * choice.nodes)][: choice.nodes]
    return sum(max(0, choice.devices_per_pod - each) for each in best)


def main_memory_bytes(question: GpuQuestion, choice: Choice) -> int:
    """What a pod of the replica requests of its node."""
    engine, ranks = question.engine, choice.devices_per_pod
    each = engine.host_bytes_per_rank
    if question.adapters is not None:
        each += question.adapters.host_bytes(question.model.shape)
    return engine.host_bytes + each * ranks + shared_memory_bytes(question, choice)


def shared_memory_bytes(question: GpuQuestion, choice: Choice) -> int:
    """The limit of /dev/shm."""
    engine = question.engine
    return engine.shared_memory_bytes + engine.shared_memory_bytes_per_rank * choice.devices_per_pod


def first_rejection(question: GpuQuestion) -> Rejection | None:
    """The first rule about the question that objects."""
    return next((found for rule in QUESTION_CHAIN if (found := rule(question)) is not None), None)


def pool_rejection(question: GpuQuestion, pool: Pool) -> Rejection | None:
    """The first rule about a pool that objects."""
    return next((found for rule in POOL_CHAIN if (found := rule(question, pool)) is not None), None)


def step_rejection(question: GpuQuestion, pool: Pool, step: Step, *, sizer: Sizer) -> Rejection | None:
    """The first rule about a step on a pool that objects, or the engine's own objection to it on one
    device."""
    found = next((found for rule in STEP_CHAIN if (found := rule(question, pool, step)) is not None), None)
    return engine_objects(question, pool, step, sizer=sizer) if found is None else found


def engine_objects(question: GpuQuestion, pool: Pool, step: Step, *, sizer: Sizer) -> Rejection | None:
    """The engine has no kernel there for the model with this KV dtype, however many devices there are."""
    tokens = batches(question, pool)[-1]
    alone = Choice(step=step, pool=pool, tensor=1, pipeline=1, batched_tokens=tokens)
    try:
        sizer.laid(alone)
    except RefusedError as error:
        refused = _refused(pool, str(error))
        return refused if step.kv_dtype == "auto" else replace(refused, reason="UnsupportedKvDtype")
    return None


def _refused(pool: Pool, why: str) -> Rejection:
    return Rejection(reason="EngineRefuses", message=f"{pool.product}: {why}"[:300])


def sized(question: GpuQuestion, choice: Choice, *, sizer: Sizer) -> Candidate | Rejection:
    """The choice with its bytes, or what is against it whatever is free."""
    rejection = gpus_allowed(question, choice)
    if rejection is not None:
        return rejection
    try:
        rejection = weights_alone_fit(choice, weights=sizer.weights(choice))
        if rejection is not None:
            return rejection
        candidate = sizer.size(choice)
    except RefusedError as error:
        return _refused(choice.pool, str(error))
    except IndivisibleError as error:
        return _refused(choice.pool, f"{question.model.shape.architecture}: {error}")
    objections = (rule(question, candidate) for rule in CANDIDATE_CHAIN)
    return next((found for found in objections if found is not None), candidate)


def describe(choice: Choice) -> str:
    """ "4x NVIDIA-L40S", with its nodes where there are several."""
    over = f" on {choice.nodes} nodes" if choice.nodes > 1 else ""
    return f"{choice.gpus}x {choice.pool.product}{over}"


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
