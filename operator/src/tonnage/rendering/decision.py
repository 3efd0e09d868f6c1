"""The decision about one object: which plan is in force? The kept one while nothing it depends on changed,
else a new one. Pure: the operator and the command line ask the same function, and so cannot differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tonnage.api import quantities
from tonnage.api.arguments import Unclear, adapters_of, loads_encoders, uncounted
from tonnage.api.demand import demand_of, hardware_of, placement_of
from tonnage.api.v1alpha1 import Spec
from tonnage.api.workload import Accelerator
from tonnage.engines import UnknownEngineVersionError, gpu_rules_for, rules_for
from tonnage.gpus.nodes import Node
from tonnage.models import ResolvedModel, Trait
from tonnage.models.wire import to_wire
from tonnage.planning.adapters import Adapters
from tonnage.planning.choose import plan_for
from tonnage.planning.gpu.contend import Contender
from tonnage.planning.gpu.question import AS_SHIPPED
from tonnage.planning.plan import Plan, Rejection
from tonnage.rendering.gpu import not_rendered
from tonnage.rendering.names import REPLAN, short_hash
from tonnage.rendering.plan import WITHHELD, Kept, hash_of

_REPLANNED: Final = "-"


def replan_of(annotations: Mapping[str, str]) -> str:
    """Identity of the new plan that an object's annotations ask for, empty if they ask for none."""
    asked = annotations.get(REPLAN, "")
    return short_hash(asked) if asked else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a decision is about: the spec, the model it names as it was read, with the identity of its place
    and the refresh it was read for, and the engine version that is meant where the spec names none. `replan`
    identifies the new plan that was asked for, empty if none was."""

    spec: Spec
    source: str
    model: ResolvedModel
    refreshed: str = ""
    replan: str = ""
    default_version: str

    @property
    def engine_version(self) -> str:
        """The version of the engine that is planned for."""
        return self.spec.engine.version or self.default_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The plan in force with its hash; `made` says that it was made now, not kept from before."""

    kept: Kept
    plan_hash: str
    made: bool


def standing(
    subject: Subject, *, before: Iterable[tuple[Kept, str]], groups: bool
) -> Decision | Rejection | None:
    """The decision that holds: the first of the earlier ones, with their plans' hashes, that was made for the
    same inputs, whatever the cluster is now; one that was made since workers of another failed comes before
    that. None if a plan is to be made. `groups`: can a replica span nodes?"""
    inputs = [_inputs(subject, accelerator=each) for each in _accelerators(subject.spec)]
    possible = [each for each in before if _is_for(each[0].inputs, inputs, replan=subject.replan)]
    if not possible:
        return None
    known = max(possible, key=lambda each: each[0].withheld_bytes)
    kept = dataclasses.replace(known[0], refreshed=subject.refreshed)
    rejection = not_rendered(kept.plan, groups=groups)
    if rejection is not None:
        return rejection
    return _with_enough_memory(subject, Decision(kept=kept, plan_hash=known[1], made=False))


def made(
    subject: Subject, outcome: Plan | Rejection, *, groups: bool, withheld_bytes: int = 0
) -> Decision | Rejection:
    """The decision for a plan that was just made, `withheld_bytes` of each device left out of it. `groups`:
    can a replica span nodes?"""
    if isinstance(outcome, Rejection):
        return outcome
    rejection = not_rendered(outcome, groups=groups)
    if rejection is not None:
        return rejection
    accelerator = Accelerator.CPU if outcome.gpu is None else Accelerator.GPU
    inputs = _REPLANNED.join(filter(None, (_inputs(subject, accelerator=accelerator), subject.replan)))
    if withheld_bytes and outcome.gpu is not None:
        inputs += f"{WITHHELD}{withheld_bytes}"
    kept = _keep(subject, inputs=inputs, plan=outcome)
    plan_hash = hash_of(kept, spec=subject.spec)
    return _with_enough_memory(subject, Decision(kept=kept, plan_hash=plan_hash, made=True))


def contender_of(
    subject: Subject,
    *,
    key: str,
    created: str,
    priority: int,
    surges: bool,
    in_force: Plan | None = None,
    withheld_bytes: int = 0,
) -> Contender | Rejection:
    """The object as one that wants a plan on GPUs; see `Contender`."""
    try:
        engine = gpu_rules_for(subject.engine_version)
    except UnknownEngineVersionError as error:
        return Rejection(reason="UnknownEngineVersion", message=str(error))
    spec = subject.spec
    wrong = uncounted(spec.engine.extra_args)
    if wrong:
        return Rejection(reason="UncountedArgument", message=wrong)
    return Contender(
        key=key,
        created=created,
        priority=priority,
        demand=demand_of(spec),
        model=subject.model.profile,
        engine=engine,
        hardware=hardware_of(spec),
        placement=placement_of(spec),
        replicas=spec.wanted_replicas,
        surges=surges and not spec.rollout.allow_downtime,
        in_force=in_force,
        withheld_bytes=withheld_bytes,
        adapters=_adapters(spec),
        plain=not spec.engine.extra_args,
    )


def beside_the_plan(subject: Subject, plan: Plan) -> str:
    """What the condition Planned adds of memory that no law is known for; empty where all is counted."""
    multimodal = Trait.MULTIMODAL in subject.model.profile.shape.traits
    if plan.gpu is None or not multimodal or not loads_encoders(subject.spec.engine.extra_args):
        return ""
    return (
        "; what the model's encoders take while they compute is not counted but in the margins: "
        "--language-model-only in engine.extraArgs does without them"
    )


def _adapters(spec: Spec) -> Adapters | None:
    """LoRA adapters that are to be held beside the weights; what cannot be read was refused before."""
    found = adapters_of(spec.engine.extra_args)
    return None if isinstance(found, Unclear) else found


def _accelerators(spec: Spec) -> tuple[Accelerator, ...]:
    """What plans may be for: one that was made stays, also where the cluster has got GPUs since. One on CPU
    nodes does not where the spec says what means nothing there."""
    stated = spec.hardware.accelerator
    possible = tuple(Accelerator) if stated is None else (stated,)
    return tuple(each for each in possible if each is Accelerator.GPU or not _only_on_gpus(spec))


def _is_for(kept: str, inputs: Sequence[str], *, replan: str) -> bool:
    """Was a plan made for one of these inputs, and since a new one was last asked for?"""
    base, _, replanned = kept.partition(WITHHELD)[0].partition(_REPLANNED)
    return base in inputs and replan in ("", replanned)


def _with_enough_memory(subject: Subject, decision: Decision) -> Decision | Rejection:
    given, needed = subject.spec.template.resources.memory, decision.kept.plan.request_bytes
    if given is not None and quantities.whole_bytes(given) < needed:
        return _too_little(given, needed_bytes=needed)
    return decision


def _keep(subject: Subject, *, inputs: str, plan: Plan) -> Kept:
    model = subject.model
    return Kept(
        inputs=inputs,
        source=subject.source,
        revision=model.revision,
        download_bytes=model.download_bytes,
        model=to_wire(model.profile),
        plan=plan,
        refreshed=subject.refreshed,
    )


def _inputs(subject: Subject, *, accelerator: Accelerator) -> str:
    """Identity of everything that may replace a plan.

    Nodes are not in it: one that joins changes nothing; nor are prices, which count when a plan is made.
    """
    spec = subject.spec
    inputs: list[Any] = [
        dataclasses.asdict(demand_of(spec)),
        dataclasses.asdict(placement_of(spec)),
        subject.source,
        subject.model.revision,
        subject.engine_version,
        spec.engine.verification.value,
    ]
    if accelerator is Accelerator.GPU:
        inputs += [accelerator.value, dataclasses.asdict(hardware_of(spec))]
        adapters = _adapters(spec)
        # without them what was planned before there were any stays
        inputs += [] if adapters is None else [dataclasses.asdict(adapters)]
    return short_hash(inputs)


def plan_on_nodes(subject: Subject, *, nodes: Iterable[Node] | None) -> Plan | Rejection:
    """The plan on CPU nodes, or why there is none."""
    try:
        engine = rules_for(subject.engine_version)
    except UnknownEngineVersionError as error:
        return Rejection(reason="UnknownEngineVersion", message=str(error))
    needless = _only_on_gpus(subject.spec)
    if needless:
        return Rejection(
            reason="NeedsGpus",
            message=(
                f"the plan is for CPU nodes, where nothing can be made of {', '.join(needless)}: remove it, "
                "or set hardware.accelerator: GPU"
            ),
        )
    demand, placement = demand_of(subject.spec), placement_of(subject.spec)
    model, known = subject.model.profile, None if nodes is None else tuple(nodes)
    return plan_for(demand, model=model, nodes=known, engine=engine, placement=placement)


def _only_on_gpus(spec: Spec) -> list[str]:
    """What is stated of hardware or weights that means nothing on CPU nodes, each as users write it."""
    hardware = hardware_of(spec)
    stated = {
        "hardware.products": hardware.products,
        "hardware.parallelism.tensor": (hardware.tensor_parallel or 1) > 1,
        "hardware.parallelism.pipeline": (hardware.pipeline_parallel or 1) > 1,
        "hardware.maxGPUsPerReplica": hardware.max_gpus is not None,
        "weights.quantization": hardware.quantization not in (None, AS_SHIPPED),
    }
    return [name for name, is_there in stated.items() if is_there]


def _too_little(given: str | int, *, needed_bytes: int) -> Rejection:
    return Rejection(
        reason="MemoryRequestTooSmall",
        message=(
            f"spec.template.resources.memory is {given}, the plan needs {quantities.gib(needed_bytes)}: "
            f"remove it or set at least {quantities.memory_quantity(needed_bytes)}"
        ),
        numbers={"needed_bytes": needed_bytes},
    )
