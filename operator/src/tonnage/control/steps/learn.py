"""Step 7: what do starts teach of the laws? Each container once; no plan in force changes by it."""

from __future__ import annotations

from tonnage.cluster.records import seconds_of
from tonnage.control.steps.observe import container_of
from tonnage.control.world import Pass, World
from tonnage.rendering.findings import VERIFIED
from tonnage.rendering.lessons import lesson_of
from tonnage.rendering.names import PLAN


async def learn_from_workers(p: Pass, world: World) -> bool:
    """Take what verified workers of the plan in force have told of their devices.

    Nothing of engines with arguments of the user's own: what those take, no law estimates.
    """
    p.memory.heard &= {container_of(worker.pod) for worker in p.workers}
    if not world.learning.enabled or p.kept is None or p.known is None or p.spec is None:
        return True
    if p.kept.plan.gpu is None or p.spec.engine.extra_args:
        return True
    for pod, report in ((worker.pod, worker.report) for worker in p.workers):
        if report is None or report.memory is None or report.state != VERIFIED:
            continue
        container = container_of(pod)
        if container in p.memory.heard or pod.labels.get(PLAN) != p.plan_hash:
            continue
        p.memory.heard.add(container)
        if not world.learning.listens_to(pod, now=seconds_of(world.clock.now())):
            continue
        lesson = lesson_of(p.kept.plan, plan_hash=p.plan_hash, model=p.known.model.profile, report=report)
        if lesson is not None:
            world.learning.teach(lesson, started_at=pod.started_at)
    return True
