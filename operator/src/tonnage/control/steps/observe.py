"""Step 6: what do the workers say? A verified engine is asked rarely, one that starts often."""

from __future__ import annotations

import asyncio
import random

from tonnage.control.queue import growing_pause
from tonnage.control.world import Asked, Pass, World
from tonnage.rendering.findings import MISMATCH, REPORTED, VERIFIED, Worker
from tonnage.rendering.names import COMPONENT, WORKER
from tonnage.rendering.observations import Pod, Report

STARTING_SECONDS = 2.0
# the worker looks again by itself every 5 s
MISMATCH_SECONDS = 15.0
SETTLED_SECONDS = 60.0
# of all workers together: what is at rest must not cost more the more of it there is
SETTLED_PER_SECOND = 2.0
# a worker answers within milliseconds; a pass waits no longer for one that does not
ANSWER_SECONDS = 0.25


async def observe_workers(p: Pass, world: World) -> bool:
    """Attach to each worker pod what its worker said last, asking again where that is too old.

    An answer that takes long comes to the next pass, which it brings about.
    """
    pods = [pod for pod in world.store.pods(p.key) if pod.labels.get(COMPONENT) == WORKER]
    asked = [pod for pod in pods if pod.running and pod.ip and not pod.deleting]
    _forget_others(p, {_container(pod) for pod in asked})
    for pod in asked:
        if _is_due(p, world, pod) and _container(pod) not in p.memory.asking:
            p.memory.asking[_container(pod)] = asyncio.create_task(_ask(p, world, pod))
    if p.memory.asking:
        answered, late = await asyncio.wait(list(p.memory.asking.values()), timeout=ANSWER_SECONDS)
        for task in answered:
            task.result()
        for task in late:
            task.add_done_callback(lambda _: world.store.touch(p.key))
    p.workers = [Worker(pod=pod, report=_report(p, pod)) for pod in pods]
    p.unanswered = any(_container(pod) not in p.memory.asked for pod in asked)
    now = world.clock.monotonic()
    for container, answer in p.memory.asked.items():
        if container not in p.memory.asking:
            p.ask_again.append(answer.again_at - now)
    return True


def _forget_others(p: Pass, alive: set[str]) -> None:
    """Containers that are gone were asked for the last time."""
    p.memory.asked = {container: asked for container, asked in p.memory.asked.items() if container in alive}
    for container in p.memory.asking.keys() - alive:
        p.memory.asking.pop(container).cancel()


def _is_due(p: Pass, world: World, pod: Pod) -> bool:
    asked = p.memory.asked.get(_container(pod))
    return asked is None or asked.ready != pod.ready or asked.again_at <= world.clock.monotonic()


def _report(p: Pass, pod: Pod) -> Report | None:
    asked = p.memory.asked.get(_container(pod))
    return asked.report if asked is not None else None


async def _ask(p: Pass, world: World, pod: Pod) -> None:
    container = _container(pod)
    try:
        report = await world.scraper.report(pod)
        before, now = p.memory.asked.get(container), world.clock.monotonic()
        settled = max(SETTLED_SECONDS, world.store.pod_count() / SETTLED_PER_SECOND)
        p.memory.asked[container] = _noted(report, pod=pod, before=before, now=now, settled_seconds=settled)
    finally:
        p.memory.asking.pop(container, None)


def _noted(
    report: Report | None, *, pod: Pod, before: Asked | None, now: float, settled_seconds: float
) -> Asked:
    """An answer, or its absence: then the last answer stands, and the pauses grow from 2 s to the longest."""
    spread = random.uniform(0.75, 1.25)  # noqa: S311
    if report is not None:
        period = _period(report, pod, settled_seconds=settled_seconds * spread)
        return Asked(report=report, ready=pod.ready, again_at=now + period)
    misses = before.misses + 1 if before is not None and before.ready == pod.ready else 1
    pause = growing_pause(misses - 1, first_seconds=STARTING_SECONDS, most_seconds=settled_seconds * spread)
    last = before.report if before is not None else None
    return Asked(report=last, ready=pod.ready, again_at=now + pause, misses=misses)


def _period(report: Report, pod: Pod, *, settled_seconds: float) -> float:
    """Seconds until a report is too old: a worker whose readiness disagrees with it is asked soon."""
    if report.state == MISMATCH:
        return MISMATCH_SECONDS
    settled = report.state in (VERIFIED, REPORTED)
    return settled_seconds if settled and pod.ready else STARTING_SECONDS


def _container(pod: Pod) -> str:
    """A restarted container starts anew: it must be verified again."""
    return f"{pod.uid}/{pod.container_id}"
