"""Step 6: what do the workers say? A verified engine is asked rarely, one that starts often."""

from __future__ import annotations

import asyncio

from tonnage.control.queue import growing_pause
from tonnage.control.world import Asked, Pass, World
from tonnage.rendering.findings import MISMATCH, REPORTED, VERIFIED, Worker
from tonnage.rendering.names import COMPONENT, WORKER
from tonnage.rendering.observations import Pod, Report

STARTING_SECONDS = 2.0
# the worker looks again by itself every 5 s
MISMATCH_SECONDS = 15.0
SETTLED_SECONDS = 60.0


async def observe_workers(p: Pass, world: World) -> bool:
    """Attach to each worker pod what its worker said last, asking again where that is too old."""
    pods = [pod for pod in world.store.pods(p.key) if pod.labels.get(COMPONENT) == WORKER]
    reports = await asyncio.gather(*(_report(p, world, pod) for pod in pods))
    p.workers = [Worker(pod=pod, report=report) for pod, report in zip(pods, reports, strict=True)]
    alive = {_container(pod) for pod in pods}
    p.memory.asked = {container: asked for container, asked in p.memory.asked.items() if container in alive}
    return True


async def _report(p: Pass, world: World, pod: Pod) -> Report | None:
    if not pod.running or not pod.ip or pod.deleting:
        return None
    now = world.clock.monotonic()
    asked = p.memory.asked.get(_container(pod))
    if asked is None or asked.ready != pod.ready or asked.again_at <= now:
        asked = _noted(await world.scraper.report(pod), pod=pod, before=asked, now=now)
        p.memory.asked[_container(pod)] = asked
    p.again_in(asked.again_at - now)
    return asked.report


def _noted(report: Report | None, *, pod: Pod, before: Asked | None, now: float) -> Asked:
    """An answer, or its absence: then the last answer stands, and the pauses grow from 2 s to a minute."""
    if report is not None:
        return Asked(report=report, ready=pod.ready, again_at=now + _period(report, pod))
    misses = before.misses + 1 if before is not None and before.ready == pod.ready else 1
    pause = growing_pause(misses - 1, first_seconds=STARTING_SECONDS, most_seconds=SETTLED_SECONDS)
    last = before.report if before is not None else None
    return Asked(report=last, ready=pod.ready, again_at=now + pause, misses=misses)


def _period(report: Report, pod: Pod) -> float:
    """Seconds until a report is too old: a worker whose readiness disagrees with it is asked soon."""
    if report.state == MISMATCH:
        return MISMATCH_SECONDS
    settled = report.state in (VERIFIED, REPORTED)
    return SETTLED_SECONDS if settled and pod.ready else STARTING_SECONDS


def _container(pod: Pod) -> str:
    """A restarted container starts anew: it must be verified again."""
    return f"{pod.uid}/{pod.container_id}"
