"""Reading a model by a Job: one at a time for all objects of a namespace that want the same, retried with a
growing pause."""

from __future__ import annotations

from tonnage.api.conditions import Finding
from tonnage.api.demand import placement_of
from tonnage.api.status import ConditionType
from tonnage.api.v1alpha1 import Spec
from tonnage.cluster.inspected import Failure, decode
from tonnage.cluster.port import JOB, Object
from tonnage.control.children import apply_children, delete_child, own_child, own_children
from tonnage.control.queue import Key, growing_pause
from tonnage.control.world import Inspection, Known, Pass, World
from tonnage.gpus.placement import NodeSelection, select_nodes
from tonnage.models import ResolvedModel
from tonnage.planning.rules import no_usable_node
from tonnage.rendering.gpu import tolerated_taints
from tonnage.rendering.inspection import Reading, build_inspection, inspection_name, is_placed_alike
from tonnage.rendering.names import COMPONENT, DEPLOYMENT, INSPECT, REFRESHED
from tonnage.rendering.observations import Pod, Termination

FIRST_RETRY_SECONDS = 30.0
MAX_RETRY_SECONDS = 600.0
# those who wait for another object's Job are told of its end; this is for ends that nobody tells
SHARED_SECONDS = 30.0
JOB_NAME = "batch.kubernetes.io/job-name"
_NOT_CONFIGURED = "CreateContainerConfigError"


async def inspect_model(p: Pass, world: World, *, spec: Spec, reading: Reading) -> Known | None:
    """Look at the Job's pod, or start the Job; None, and ModelResolved, while there is no result."""
    inspection = world.inspection(p.key[0], reading)
    own = own_child(p, world, JOB, inspection_name(p.owner, reading))
    job = own or _job_of_another(p, world, spec=spec, reading=reading)
    if job is None:
        return await _start(p, world, spec=spec, reading=reading, inspection=inspection)
    pod = _pod_of(world, job)
    result = _result(job, pod, waited_for=inspection.progress)
    if isinstance(result, ResolvedModel):
        world.end_inspection(p.key[0], reading)
        return Known(model=result, refreshed=reading.refreshed)
    if result is not None:
        await _failed(p, world, job=job, failure=result, inspection=inspection)
    elif pod is not None and pod.waiting_reason == _NOT_CONFIGURED and spec.model.token_secret is not None:
        missing = _no_secret(pod, spec=spec, namespace=p.key[0])
        inspection.progress = missing.message
        _tell(p, inspection, missing)
    else:
        inspection.progress = _progress(pod, spec=spec)
        _tell(p, inspection, inspection.failure)
    if own is None:
        inspection.waiting.add(p.key)
        p.again_in(SHARED_SECONDS)
    return None


async def end_other_inspections(p: Pass, world: World, *, reading: Reading) -> None:
    """A Job of this object that reads what it no longer names is deleted: it may wait for a node for long.

    One that has ended is left to Kubernetes.
    """
    for job in own_children(p, world, JOB):
        if job["metadata"]["name"] != inspection_name(p.owner, reading) and not _has_ended(job):
            await delete_child(p, world, JOB, job)


def _has_ended(job: Object) -> bool:
    conditions = job.get("status", {}).get("conditions", ())
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def _tell(p: Pass, inspection: Inspection, failure: Failure | None) -> None:
    """What failed last, until something else is known; else what is being done."""
    kind = ConditionType.MODEL_RESOLVED
    if failure is not None:
        p.findings[kind] = Finding(kind, False, failure.reason, failure.message)
    else:
        p.findings[kind] = Finding(kind, None, "Inspecting", inspection.progress)


def _job_of_another(p: Pass, world: World, *, spec: Spec, reading: Reading) -> Object | None:
    """The Job by which another object of the namespace reads the same model.

    Not one whose pod runs elsewhere or by other means: it may never come to run, for reasons of its owner's.
    """
    for owner, job in world.store.of_model(JOB, namespace=p.key[0], model=reading.access):
        asked = job["metadata"].get("annotations", {}).get(REFRESHED, "")
        alike = asked == reading.refreshed and is_placed_alike(job, spec)
        if owner != p.key and alike and "deletionTimestamp" not in job["metadata"]:
            return job
    return None


def _pod_of(world: World, job: Object) -> Pod | None:
    meta = job["metadata"]
    owner: Key = (meta["namespace"], meta["labels"][DEPLOYMENT])
    pods = [
        pod
        for pod in world.store.pods(owner)
        if pod.labels.get(COMPONENT) == INSPECT
        and pod.labels.get(JOB_NAME) == meta["name"]
        and not pod.deleting
    ]
    return pods[-1] if pods else None


def _result(job: Object, pod: Pod | None, *, waited_for: str) -> ResolvedModel | Failure | None:
    if pod is not None and pod.last_exit is not None:
        return _said(pod.last_exit)
    conditions = job.get("status", {}).get("conditions", ())
    failed = next((c for c in conditions if c["type"] == "Failed" and c["status"] == "True"), None)
    if failed is None:
        return None
    last = f"; last seen: {waited_for}" if waited_for else ""
    text = f"the inspection Job failed: {failed.get('message', '')}{last}"
    return Failure(reason="InspectionFailed", message=text)


def _said(ended: Termination) -> ResolvedModel | Failure:
    if ended.message:
        return decode(ended.message)
    text = f"the inspection ended without a result: {ended.reason or 'Error'}, exit code {ended.exit_code}"
    return Failure(reason="InspectionFailed", message=text)


async def _start(
    p: Pass, world: World, *, spec: Spec, reading: Reading, inspection: Inspection
) -> Known | None:
    wait = inspection.retry_at - world.clock.monotonic()
    selection = select_nodes(world.nodes(), placement=placement_of(spec))
    tolerated = _tolerated(world, spec)
    if inspection.failure is not None and wait > 0:
        p.again_in(wait)
    elif inspection.starting:
        inspection.waiting.add(p.key)
        p.again_in(SHARED_SECONDS)
    elif not selection.usable and not tolerated:
        _no_node(p, world, selection)
        return None
    else:
        inspection.progress = "the inspection Job was started"
        inspection.starting = True
        try:
            job = build_inspection(
                spec, reading=reading, owner=p.owner, settings=world.settings, tolerated=tolerated
            )
            await apply_children(p, world, [job])
        finally:
            inspection.starting = False
        found = own_child(p, world, JOB, job["metadata"]["name"])
        if found is not None and _has_ended(found):
            # it was there, without its labels: no event will tell of its end
            p.again_in(0)
    _tell(p, inspection, inspection.failure)
    return None


def _tolerated(world: World, spec: Spec) -> tuple[str, ...]:
    """Keys of taints that the pod is to tolerate. Where nodes may not be read, but devices are stated, any of
    their nodes may have one."""
    nodes = world.nodes()
    if nodes is None:
        return world.arbiter.stated_resources(spec.hardware.accelerator)
    return tolerated_taints(nodes, placement=placement_of(spec))


def _no_node(p: Pass, world: World, selection: NodeSelection) -> None:
    """The model is read where the workers would run: without a node for them it cannot be read either."""
    world.waiting_for_room.add(p.key)
    rejection = no_usable_node(selection)
    p.found(ConditionType.MODEL_RESOLVED, None, rejection.reason, rejection.message)
    p.found(ConditionType.PLANNED, False, rejection.reason, rejection.message)


async def _failed(p: Pass, world: World, *, job: Object, failure: Failure, inspection: Inspection) -> None:
    """Say it, and try again after a pause: the files, the hub or the way there may have been mended."""
    now = world.clock.monotonic()
    if inspection.job_uid != job["metadata"]["uid"]:
        inspection.job_uid = job["metadata"]["uid"]
        inspection.retry_at = now + growing_pause(
            inspection.failures, first_seconds=FIRST_RETRY_SECONDS, most_seconds=MAX_RETRY_SECONDS
        )
        inspection.failures += 1
        inspection.failure = failure
        _wake(world, inspection)
    _tell(p, inspection, inspection.failure)
    if now < inspection.retry_at:
        p.again_in(inspection.retry_at - now)
    else:
        # the Job's end brings us back here, to start it anew; of another object's Job nothing is deleted
        await delete_child(p, world, JOB, job)


def _wake(world: World, inspection: Inspection) -> None:
    waiting, inspection.waiting = inspection.waiting, set()
    for key in waiting:
        world.store.touch(key)


def _no_secret(pod: Pod, *, spec: Spec, namespace: str) -> Failure:
    """The kubelet's words (they name the Secret or the key), and the command that mends it."""
    secret = spec.model.token_secret
    if secret is None:
        raise ValueError("no token is asked for")
    return Failure(
        reason="TokenSecretMissing",
        message=(
            f"{pod.waiting_message or f'Secret {secret.name} cannot be used'}; make it, it is picked up by "
            f"itself: kubectl create secret generic {secret.name} -n {namespace} "
            f"--from-literal={secret.key}=TOKEN"
        ),
    )


def _progress(pod: Pod | None, *, spec: Spec) -> str:
    if pod is None:
        return "the inspection Job has no pod yet; if that stays, `kubectl describe job` says why"
    if pod.unschedulable:
        return f"the inspection pod has no node: {pod.unschedulable}"
    if pod.waiting_reason:
        return f"the inspection pod waits: {pod.waiting_reason} {pod.waiting_message}".rstrip()
    return f"the inspection Job is reading {spec.model.uri}"
