"""A plan's own choice, sized once more: by what laws its bytes were reckoned, whatever starts had taught."""

from __future__ import annotations

from tonnage.engines import UnknownEngineVersionError, gpu_rules_for
from tonnage.gpus.inventory import Pool
from tonnage.models import ModelProfile
from tonnage.planning.gpu.candidates import Candidate, Choice, Sizer
from tonnage.planning.gpu.ladder import FP8, Step
from tonnage.planning.gpu.question import GpuQuestion
from tonnage.planning.plan import Demand, GpuPlan, Plan
from tonnage.planning.settle import RefusedError
from tonnage.planning.weights import IndivisibleError


def sized_again(plan: Plan, *, model: ModelProfile) -> Candidate | None:
    """What the planner made of a plan's choice before it looked at what was learned.

    None for plans on CPU nodes, and where this release lays the cache out in another way or captures other
    graphs than that which made the plan.
    """
    gpu = plan.gpu
    if gpu is None:
        return None
    # the plan states the name that the engine makes of "auto"
    for kv_dtype in ("auto", plan.kv_dtype):
        step = Step(kv_dtype, FP8 if gpu.quantization else "", eager=gpu.enforce_eager)
        found = _sized(plan, gpu, step, model=model)
        if found is not None and _is_of(plan, gpu, found):
            return found
    return None


def _sized(plan: Plan, gpu: GpuPlan, step: Step, *, model: ModelProfile) -> Candidate | None:
    demand = Demand(
        context_length=plan.context_length,
        concurrency=plan.concurrency,
        typical_tokens=plan.typical_tokens,
        prefix_caching=plan.prefix_caching,
    )
    choice = Choice(
        step=step,
        pool=_pool(plan, gpu),
        tensor=plan.tensor_parallel,
        pipeline=gpu.pipeline_parallel,
        batched_tokens=plan.max_num_batched_tokens,
    )
    try:
        engine = gpu_rules_for(plan.engine_version)
        return Sizer(GpuQuestion(demand=demand, model=model, engine=engine, pools=())).size(choice)
    except (UnknownEngineVersionError, RefusedError, IndivisibleError):
        return None


def _pool(plan: Plan, gpu: GpuPlan) -> Pool:
    return Pool(
        name=plan.pool,
        vendor=gpu.vendor,
        product=plan.product,
        memory_bytes=gpu.device_bytes,
        memory_source="the plan",
        access=gpu.access,
        resource=gpu.resource,
        compute_capability=gpu.compute_capability,
        sharing=gpu.sharing,
        clients=gpu.clients,
    )


def _is_of(plan: Plan, gpu: GpuPlan, found: Candidate) -> bool:
    settled = found.laid.settled
    return (
        settled.kv_dtype == plan.kv_dtype
        and settled.max_num_seqs == plan.max_num_seqs
        and found.laid.layout.bytes_per_block == plan.bytes_per_block
        and found.captured_sizes == gpu.captured_sizes
    )
