"""Step 2: what does the model need? Known already, kept with the plan, or read by an inspection Job."""

from __future__ import annotations

from tonnage.api.conditions import Finding
from tonnage.api.demand import placement_of
from tonnage.api.status import ConditionType
from tonnage.api.v1alpha1 import Spec
from tonnage.cluster.inspection import Failure, decode
from tonnage.cluster.port import CONFIG_MAP, JOB, Object
from tonnage.control.children import apply_child, delete_child, own_child, own_children
from tonnage.control.queue import growing_pause
from tonnage.control.world import Inspection, Pass, World
from tonnage.gpus.placement import NodeSelection, select_nodes
from tonnage.models import ConfigError, ModelProfile
from tonnage.models.wire import from_wire
from tonnage.planning.rules import no_usable_node
from tonnage.rendering.inspection import build_inspection, inspection_name, source_of
from tonnage.rendering.names import COMPONENT, INSPECT
from tonnage.rendering.observations import Pod, Termination
from tonnage.rendering.plan import read_kept

FIRST_RETRY_SECONDS = 30.0
MAX_RETRY_SECONDS = 600.0
JOB_NAME = "batch.kubernetes.io/job-name"


async def resolve_model(p: Pass, world: World) -> bool:
    """Find the model's profile, starting an inspection Job where nothing is known of it."""
    if p.spec is None:
        return False
    p.source = source_of(p.spec)
    p.model = _known(p, world)
    if p.model is None:
        return await _inspect(p, world, spec=p.spec)
    _resolved(p, world, p.model)
    return True


def _resolved(p: Pass, world: World, model: ModelProfile) -> None:
    p.model = model
    p.memory.inspection = Inspection(source=p.source)
    world.models[p.key[0], p.source] = model
    p.found(ConditionType.MODEL_RESOLVED, True, "Resolved", model.shape.architecture)


def _known(p: Pass, world: World) -> ModelProfile | None:
    """The profile from memory, or from a plan that was made for the same files."""
    known = world.models.get((p.key[0], p.source))
    if known is not None:
        return known
    for config_map in own_children(p, world, CONFIG_MAP):
        kept = read_kept(config_map)
        if kept is not None and kept.source == p.source:
            try:
                return from_wire(dict(kept.model))
            except ConfigError:
                continue
    return None


async def _inspect(p: Pass, world: World, *, spec: Spec) -> bool:
    """Look at the Job's pod, or start the Job; a failed one is started again after a pause."""
    if p.memory.inspection.source != p.source:
        p.memory.inspection = Inspection(source=p.source)
    job = own_child(p, world, JOB, inspection_name(p.owner, p.source))
    if job is None:
        return await _start(p, world, spec=spec)
    pod = _pod_of(p, world, job)
    if pod is not None and pod.last_exit is not None:
        return await _finish(p, world, job=job, result=_result(pod.last_exit))
    if _failed(job):
        text = _why_failed(job, waited_for=p.memory.inspection.waiting)
        return await _finish(p, world, job=job, result=Failure(reason="InspectionFailed", message=text))
    p.memory.inspection.waiting = _waiting_text(pod)
    p.findings[ConditionType.MODEL_RESOLVED] = p.memory.inspection.finding or Finding(
        ConditionType.MODEL_RESOLVED, None, "Inspecting", p.memory.inspection.waiting
    )
    return False


def _result(ended: Termination) -> ModelProfile | Failure:
    if ended.message:
        return decode(ended.message)
    text = f"the inspection ended without a result: {ended.reason or 'Error'}, exit code {ended.exit_code}"
    return Failure(reason="InspectionFailed", message=text)


def _pod_of(p: Pass, world: World, job: Object) -> Pod | None:
    name = job["metadata"]["name"]
    pods = [
        pod
        for pod in world.store.pods(p.key)
        if pod.labels.get(COMPONENT) == INSPECT and pod.labels.get(JOB_NAME) == name and not pod.deleting
    ]
    return pods[-1] if pods else None


async def _start(p: Pass, world: World, *, spec: Spec) -> bool:
    before = p.memory.inspection
    wait = before.retry_at - world.clock.monotonic()
    if before.finding is not None and wait > 0:
        p.again_in(wait)
    elif not (selection := select_nodes(world.nodes(), placement=placement_of(spec))).usable:
        return _no_node(p, world, selection)
    else:
        await apply_child(p, world, JOB, build_inspection(spec, owner=p.owner, settings=world.settings))
    p.findings[ConditionType.MODEL_RESOLVED] = before.finding or Finding(
        ConditionType.MODEL_RESOLVED, None, "Inspecting", "the inspection Job was started"
    )
    return False


def _no_node(p: Pass, world: World, selection: NodeSelection) -> bool:
    """The model lies where the workers would run: without a node for them it cannot be read either."""
    world.waiting_for_room.add(p.key)
    rejection = no_usable_node(selection)
    p.found(ConditionType.MODEL_RESOLVED, None, rejection.reason, rejection.message)
    p.found(ConditionType.PLANNED, False, rejection.reason, rejection.message)
    return False


async def _finish(p: Pass, world: World, *, job: Object, result: ModelProfile | Failure) -> bool:
    if isinstance(result, ModelProfile):
        _resolved(p, world, result)
        return True
    memory, now = p.memory.inspection, world.clock.monotonic()
    if memory.job_uid != job["metadata"]["uid"]:
        memory.job_uid = job["metadata"]["uid"]
        memory.retry_at = now + growing_pause(
            memory.failures, first_seconds=FIRST_RETRY_SECONDS, most_seconds=MAX_RETRY_SECONDS
        )
        memory.failures += 1
        memory.finding = Finding(ConditionType.MODEL_RESOLVED, False, result.reason, result.message)
    if memory.finding is not None:
        p.findings[ConditionType.MODEL_RESOLVED] = memory.finding
    if now < memory.retry_at:
        p.again_in(memory.retry_at - now)
    else:
        # the files may have been mended: the Job's end brings us back here, to start it anew
        await delete_child(p, world, JOB, job)
    return False


def _failed(job: Object) -> bool:
    conditions = job.get("status", {}).get("conditions", ())
    return any(c["type"] == "Failed" and c["status"] == "True" for c in conditions)


def _why_failed(job: Object, *, waited_for: str) -> str:
    conditions = job.get("status", {}).get("conditions", ())
    text = next((c.get("message", "") for c in conditions if c["type"] == "Failed"), "")
    last = f"; last seen: {waited_for}" if waited_for else ""
    return f"the inspection Job failed: {text}{last}"


def _waiting_text(pod: Pod | None) -> str:
    if pod is None:
        return "the inspection Job has no pod yet; if that stays, `kubectl describe job` says why"
    if pod.unschedulable:
        return f"the inspection pod has no node: {pod.unschedulable}"
    if pod.waiting_reason:
        return f"the inspection pod waits: {pod.waiting_reason} {pod.waiting_message}".rstrip()
    return "the inspection Job is reading the model"
