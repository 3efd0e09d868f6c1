"""What is in force where a pass decided nothing: the plan that the workload runs, and its devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tonnage.cluster.port import CONFIG_MAP, WORKLOADS, Object
from tonnage.control.children import child_id, own_child, own_children
from tonnage.control.room import Accepted
from tonnage.control.world import Pass, World
from tonnage.gpus.placement import Placement
from tonnage.gpus.records import ANYWHERE
from tonnage.planning.plan import Plan
from tonnage.rendering.names import PLAN, plan_name
from tonnage.rendering.plan import Kept, read_kept
from tonnage.rendering.workloads import Stands, as_deployment

Workload = Mapping[str, Any]


def own_workloads(p: Pass, world: World) -> list[Object]:
    """All that makes workers of this object, as last seen."""
    return [body for kind in WORKLOADS for body in own_children(p, world, kind)]


def other_workloads(p: Pass, world: World) -> list[Object]:
    """Those of them that the wanted one takes over from, in a fixed order."""
    found = [body for body in own_workloads(p, world) if child_id(body) != p.workload]
    return sorted(found, key=lambda body: (body["kind"], body["metadata"]["name"]))


def workload_in_force(p: Pass, world: World) -> Workload | None:
    """The workload that is wanted, in the words of a Deployment; where there is none yet, the one of which
    most is ready."""
    known = {child_id(body): body for body in own_workloads(p, world)}
    wanted = known.get(p.workload) if p.workload is not None else None
    if wanted is None:
        ranked = sorted(known.values(), key=lambda body: (Stands.of(body).ready, _made_at(body)))
        wanted = ranked[-1] if ranked else None
    paused = p.spec is not None and p.spec.rollout.paused
    return None if wanted is None else as_deployment(wanted, paused=paused)


def _made_at(body: Object) -> str:
    return str(body["metadata"].get("creationTimestamp", ""))


def plan_in_force(p: Pass, world: World, deployment: Workload | None) -> tuple[Plan | None, str]:
    """The plan of this pass; where there is none, the one that the workload still runs."""
    kept, plan_hash = kept_in_force(p, world, deployment)
    return (kept.plan, plan_hash) if kept is not None else (None, "")


def kept_in_force(p: Pass, world: World, deployment: Workload | None) -> tuple[Kept | None, str]:
    """The same with what the plan was made for."""
    if p.kept is not None:
        return p.kept, p.plan_hash
    if deployment is None:
        return None, ""
    plan_hash = deployment["spec"]["template"]["metadata"]["labels"].get(PLAN, "")
    config_map = own_child(p, world, CONFIG_MAP, plan_name(p.owner, plan_hash))
    kept = read_kept(config_map) if config_map is not None else None
    return (kept, plan_hash) if kept is not None else (None, "")


def replicas_in_force(p: Pass, deployment: Workload | None) -> int:
    """Of this pass; where its spec was refused, those of the workload: what serves is judged by its own."""
    if p.spec is not None and (p.kept is not None or deployment is None):
        return p.spec.wanted_replicas
    return int(deployment["spec"].get("replicas", 1)) if deployment is not None else 0


def keep_devices(p: Pass, world: World) -> None:
    """Where no plan was made, the one before stays in force: its pods keep their first call on their devices.

    A process that has just started does not know it from a pass of its own, and asks the workload.
    """
    if p.kept is not None or world.arbiter.holds(p.key):
        return
    deployment = workload_in_force(p, world)
    plan, plan_hash = plan_in_force(p, world, deployment)
    if plan is None or plan.gpu is None or deployment is None:
        return
    pod = deployment["spec"]["template"]["spec"]
    accept_plan(
        p,
        world,
        plan=plan,
        plan_hash=plan_hash,
        replicas=replicas_in_force(p, deployment),
        priority_class=pod.get("priorityClassName"),
        # the spec may say something else by now
        placement=ANYWHERE,
    )


def accept_plan(
    p: Pass,
    world: World,
    *,
    plan: Plan,
    plan_hash: str,
    replicas: int,
    priority_class: str | None,
    placement: Placement,
) -> None:
    """A plan is in force: its pods have first call on their devices, until they have them."""
    if plan.gpu is None:
        world.arbiter.leave(p.key)
        return
    accepted = Accepted(
        plan_hash=plan_hash,
        pool=plan.pool,
        pods=replicas * plan.gpu.nodes_per_replica,
        devices=plan.gpu.devices_per_pod,
        memory_bytes=placement.memory_bytes or plan.request_bytes,
        priority=world.hardware.priority(priority_class),
        created=str(p.body["metadata"].get("creationTimestamp", "")),
        placement=placement,
    )
    world.arbiter.accept(p.key, accepted)
