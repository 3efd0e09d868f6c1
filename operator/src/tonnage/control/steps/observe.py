"""Step 6: what do the workers say? A verified engine is asked rarely, one that starts often."""

from __future__ import annotations

import asyncio

from tonnage.control.world import Pass, Silence, World
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
    p.memory.reports = {key: value for key, value in p.memory.reports.items() if key in alive}
    p.memory.silences = {key: value for key, value in p.memory.silences.items() if key in alive}
    return True


async def _report(p: Pass, world: World, pod: Pod) -> Report | None:
    if not pod.running or not pod.ip or pod.deleting:
        return None
    now = world.clock.monotonic()
    known = p.memory.reports.get(_container(pod))
    if known is not None:
        left = known[1] + _period(known[0], pod) - now
        if left > 0:
            p.again_in(left)
            return known[0]
    silence = p.memory.silences.get(_container(pod))
    if silence is not None and silence.ready == pod.ready and silence.until > now:
        p.again_in(silence.until - now)
        return known[0] if known is not None else None
    report = await world.scraper.report(pod)
    if report is None:
        silence = _longer(silence, pod, now=now)
        p.memory.silences[_container(pod)] = silence
        p.again_in(silence.until - now)
        return known[0] if known is not None else None
    p.memory.silences.pop(_container(pod), None)
    p.memory.reports[_container(pod)] = (report, now)
    p.again_in(_period(report, pod))
    return report


def _longer(before: Silence | None, pod: Pod, *, now: float) -> Silence:
    """A worker that does not answer is asked after 2 s, 4 s, ... a minute; at once when it turns ready."""
    count = before.count + 1 if before is not None and before.ready == pod.ready else 0
    return Silence(
        count=count, ready=pod.ready, until=now + min(STARTING_SECONDS * 2.0**count, SETTLED_SECONDS)
    )


def _period(report: Report, pod: Pod) -> float:
    """Seconds until a report is too old: a worker whose readiness disagrees with it is asked soon."""
    if report.state == MISMATCH:
        return MISMATCH_SECONDS
    settled = report.state in (VERIFIED, REPORTED)
    return SETTLED_SECONDS if settled and pod.ready else STARTING_SECONDS


def _container(pod: Pod) -> str:
    """A restarted container starts anew: it must be verified again."""
    return f"{pod.uid}/{pod.container_id}"
