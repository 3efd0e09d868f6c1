"""From what users write to what planning takes."""

from __future__ import annotations

from tonnage.api import quantities
from tonnage.api.v1alpha1 import Spec
from tonnage.api.workload import PrefixCaching
from tonnage.gpus.nodes import Toleration
from tonnage.gpus.placement import Placement, Requirement
from tonnage.planning.gpu.question import Hardware
from tonnage.planning.plan import Demand

DEFAULT_CPU_MILLIS = 1000
_PREFIX_CACHING = {PrefixCaching.AUTO: None, PrefixCaching.ENABLED: True, PrefixCaching.DISABLED: False}


def demand_of(spec: Spec) -> Demand:
    """The demand of one replica."""
    return Demand(
        context_length=spec.workload.context_length,
        concurrency=spec.workload.concurrency,
        typical_tokens=spec.workload.typical_tokens,
        quality=spec.quality,
        kv_dtype=None if spec.cache.dtype == "Auto" else spec.cache.dtype,
        prefix_caching=_PREFIX_CACHING[spec.cache.prefix_caching],
    )


def hardware_of(spec: Spec) -> Hardware:
    """What is said of the hardware of a replica."""
    hardware, quantization = spec.hardware, spec.weights.quantization
    return Hardware(
        products=tuple(hardware.products),
        tensor_parallel=hardware.parallelism.tensor,
        pipeline_parallel=hardware.parallelism.pipeline,
        max_gpus=hardware.max_gpus_per_replica,
        quantization=None if quantization == "Auto" else quantization,
    )


def placement_of(spec: Spec) -> Placement:
    """Which nodes the pods may use."""
    tolerations = tuple(
        Toleration(key=t.key or "", operator=t.operator, value=t.value or "", effect=t.effect or "")
        for t in spec.template.tolerations
    )
    memory = spec.template.resources.memory
    return Placement(
        node_selector=dict(spec.template.node_selector),
        node_terms=_node_terms(spec),
        tolerations=tolerations,
        cpu_millis=cpu_millis(spec),
        memory_bytes=0 if memory is None else quantities.whole_bytes(memory),
    )


def _node_terms(spec: Spec) -> tuple[tuple[Requirement, ...], ...]:
    """The required node affinity; what is preferred, and pods near by, are the scheduler's."""
    affinity = spec.template.affinity
    nodes = affinity.node_affinity if affinity else None
    required = nodes.required_during_scheduling_ignored_during_execution if nodes else None
    if required is None:
        return ()
    return tuple(
        tuple(
            Requirement(key=r.key, operator=r.operator.value, values=tuple(r.values))
            for r in term.match_expressions
        )
        for term in required.node_selector_terms
    )


def cpu_millis(spec: Spec) -> int:
    """The CPU request of a worker pod in thousandths of a core."""
    wanted = spec.template.resources.cpu
    return DEFAULT_CPU_MILLIS if wanted is None else quantities.milli_cores(wanted)
