"""Step 2: what does the model need? Known already, kept with a plan, or read by an inspection Job.

What was read once stays in force until the spec names other files or the annotation tonnage.dev/refresh-model
asks for another look; while that is under way or fails, what is known stays.
"""

from __future__ import annotations

from collections.abc import Iterable

from tonnage.api.status import ConditionType
from tonnage.cluster.port import CONFIG_MAP, Object
from tonnage.control.children import own_children
from tonnage.control.in_force import workload_in_force
from tonnage.control.steps.inspect import end_other_inspections, inspect_model
from tonnage.control.world import Known, Pass, World
from tonnage.models import ResolvedModel
from tonnage.rendering.inspection import Reading, reading_of
from tonnage.rendering.names import PLAN, plan_name
from tonnage.rendering.plan import read_kept


async def resolve_model(p: Pass, world: World) -> bool:
    """Find the model's profile, starting an inspection Job where nothing is known of it."""
    if p.spec is None:
        return False
    p.reading = reading_of(p.spec, annotations=p.body["metadata"].get("annotations", {}))
    _turn_to(p, world, reading=p.reading)
    await end_other_inspections(p, world, reading=p.reading)
    own = _own(p, world, source=p.reading.source)
    known = _fresh(own, p.reading) or _of_others(p, world, reading=p.reading)
    if known is None:
        known = await inspect_model(p, world, spec=p.spec, reading=p.reading)
    if known is None:
        return _with_what_was(p, own)
    p.known = p.memory.known = known
    world.models[p.key[0], p.reading.attempt] = known
    p.found(ConditionType.MODEL_RESOLVED, True, "Resolved", _described(known.model))
    return True


def _turn_to(p: Pass, world: World, *, reading: Reading) -> None:
    """Another model than before: nobody may wait for this object to read the old one."""
    before = p.memory.reading
    if before is not None and before.attempt != reading.attempt:
        world.end_inspection(p.key[0], before)
        # kept with plans; else each refresh would leave one more in memory
        world.models.pop((p.key[0], before.attempt), None)
    if before is not None and before.source != reading.source:
        p.memory.known = None
    p.memory.reading = reading


def _own(p: Pass, world: World, *, source: str) -> list[Known]:
    """What this object was planned with, whatever refresh is asked for now; the plan in force first."""
    if p.memory.known is not None:
        return [p.memory.known]
    deployment = workload_in_force(p, world)
    labels = deployment["spec"]["template"]["metadata"]["labels"] if deployment is not None else {}
    in_force = plan_name(p.owner, labels.get(PLAN, ""))
    maps = own_children(p, world, CONFIG_MAP)
    maps.sort(key=lambda body: (body["metadata"]["name"] == in_force, _made_at(body)), reverse=True)
    return _read(maps, source=source)


def _of_others(p: Pass, world: World, *, reading: Reading) -> Known | None:
    """What another object of the namespace knows of the same model, read by the same credentials."""
    known = world.models.get((p.key[0], reading.attempt))
    if known is not None:
        return known
    found = world.store.of_model(CONFIG_MAP, namespace=p.key[0], model=reading.access)
    # not by one that had this name before: an object made anew reads anew
    bodies = sorted((body for owner, body in found if owner != p.key), key=_made_at, reverse=True)
    return _fresh(_read(bodies, source=reading.source), reading)


def _fresh(found: Iterable[Known], reading: Reading) -> Known | None:
    """The first that was read for the refresh that is asked for, if one is."""
    return next((one for one in found if reading.refreshed in ("", one.refreshed)), None)


def _read(config_maps: Iterable[Object], *, source: str) -> list[Known]:
    """The models of plans that were made for the same files."""
    kept = (read_kept(body) for body in config_maps)
    read = ((one, one.resolved()) for one in kept if one is not None and one.source == source)
    return [Known(model=model, refreshed=one.refreshed) for one, model in read if model is not None]


def _made_at(body: Object) -> str:
    return str(body["metadata"].get("creationTimestamp", ""))


def _with_what_was(p: Pass, own: list[Known]) -> bool:
    """A refresh is under way or fails: what was known before stays in force."""
    if not own:
        return False
    p.known = p.memory.known = own[0]
    looking = p.findings[ConditionType.MODEL_RESOLVED]
    reason = "RefreshFailed" if looking.status is False else "Refreshing"
    text = f"{_described(own[0].model)} stays in force; {looking.reason}: {looking.message}"
    p.found(ConditionType.MODEL_RESOLVED, True, reason, text)
    return True


def _described(model: ResolvedModel) -> str:
    return f"{model.profile.shape.architecture}, revision {model.revision}"
