"""Step 6: what do the workers say? A verified engine is asked rarely, one that starts often."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tonnage.control.queue import growing_pause
from tonnage.control.world import Asked, Pass, World
from tonnage.rendering.findings import MISMATCH, REPORTED, VERIFIED, Worker
from tonnage.rendering.names import COMPONENT, FOLLOWER, GROUP_OF_PODS, PLAN, WORKER
from tonnage.rendering.observations import Pod, Report

# a first question may come a moment too early; the next comes before a status is written of it
UNANSWERED_SECONDS = 0.5
STARTING_SECONDS = 2.0
# the worker looks again by itself every 5 s
MISMATCH_SECONDS = 15.0
SETTLED_SECONDS = 60.0
# of all workers together: asking must not cost more the more of them there are. One that becomes ready is
# asked at once all the same.
STARTING_PER_SECOND = 20.0
SETTLED_PER_SECOND = 2.0
# a worker answers within milliseconds; a pass waits no longer for one that does not
ANSWER_SECONDS = 0.1


async def observe_workers(p: Pass, world: World) -> bool:
    """Attach to each worker pod what its worker said last, asking again where that is too old.

    An answer that takes long comes to the next pass, which it brings about.
    """
    pods = [pod for pod in world.store.pods(p.key) if pod.labels.get(COMPONENT) == WORKER]
    p.followers = [pod for pod in world.store.pods(p.key) if pod.labels.get(COMPONENT) == FOLLOWER]
    _remember_ended(p, [*pods, *p.followers])
    asked = [pod for pod in pods if pod.running and pod.ip and not pod.deleting]
    _forget_others(p, {container_of(pod) for pod in asked})
    for pod in asked:
        if _is_due(p, world, pod) and container_of(pod) not in p.memory.asking:
            p.memory.asking[container_of(pod)] = asyncio.create_task(_ask(p, world, pod))
    if p.memory.asking:
        answered, late = await asyncio.wait(list(p.memory.asking.values()), timeout=ANSWER_SECONDS)
        for task in answered:
            task.result()
        for task in late:
            task.add_done_callback(lambda _: world.store.touch(p.key))
    p.workers = [Worker(pod=pod, report=_report(p, pod)) for pod in pods]
    p.unanswered = any(container_of(pod) not in p.memory.asked for pod in asked)
    now = world.clock.monotonic()
    for container, answer in p.memory.asked.items():
        if container not in p.memory.asking:
            p.ask_again.append(answer.again_at - now)
    return True


def _remember_ended(p: Pass, pods: Sequence[Pod]) -> None:
    """A pod of a group that failed takes all of its group with it: what it said is kept while no leader of
    its plan is ready."""
    failed = [
        pod for pod in pods if GROUP_OF_PODS in pod.labels and pod.last_exit and pod.last_exit.exit_code
    ]
    if failed:
        p.memory.ended = failed[0]
    ended = p.memory.ended
    if ended is not None and any(
        pod.ready and pod.labels.get(COMPONENT) == WORKER and pod.labels.get(PLAN) == ended.labels.get(PLAN)
        for pod in pods
    ):
        p.memory.ended = None


def _forget_others(p: Pass, alive: set[str]) -> None:
    """Containers that are gone were asked for the last time."""
    p.memory.asked = {container: asked for container, asked in p.memory.asked.items() if container in alive}
    for container in p.memory.asking.keys() - alive:
        p.memory.asking.pop(container).cancel()


def _is_due(p: Pass, world: World, pod: Pod) -> bool:
    asked = p.memory.asked.get(container_of(pod))
    return asked is None or asked.ready != pod.ready or asked.again_at <= world.clock.monotonic()


def _report(p: Pass, pod: Pod) -> Report | None:
    asked = p.memory.asked.get(container_of(pod))
    return asked.report if asked is not None else None


async def _ask(p: Pass, world: World, pod: Pod) -> None:
    container = container_of(pod)
    try:
        report = await world.scraper.report(pod)
        before, now = p.memory.asked.get(container), world.clock.monotonic()
        pauses = _pauses(world.store.pod_count(), spread=random.uniform(0.75, 1.25))  # noqa: S311
        p.memory.asked[container] = _noted(report, pod=pod, before=before, now=now, pauses=pauses)
    finally:
        p.memory.asking.pop(container, None)


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds until a worker is asked again: one that did not answer (doubled each time), one that starts,
    one that differs from its plan, one at rest."""

    unanswered: float
    starting: float
    mismatch: float
    settled: float


def _pauses(pods: int, *, spread: float) -> Pauses:
    """`spread` keeps those that were asked together from being asked together for ever."""
    return Pauses(
        unanswered=max(UNANSWERED_SECONDS, pods / STARTING_PER_SECOND),
        starting=max(STARTING_SECONDS, pods / STARTING_PER_SECOND),
        mismatch=max(MISMATCH_SECONDS, pods / STARTING_PER_SECOND),
        settled=max(SETTLED_SECONDS, pods / SETTLED_PER_SECOND) * spread,
    )


def _noted(report: Report | None, *, pod: Pod, before: Asked | None, now: float, pauses: Pauses) -> Asked:
    """An answer, or its absence: then the last answer stands, and the pauses grow up to the longest."""
    if report is not None:
        return Asked(report=report, ready=pod.ready, again_at=now + _period(report, pod, pauses))
    misses = before.misses + 1 if before is not None and before.ready == pod.ready else 1
    pause = growing_pause(misses - 1, first_seconds=pauses.unanswered, most_seconds=pauses.settled)
    last = before.report if before is not None else None
    return Asked(report=last, ready=pod.ready, again_at=now + pause, misses=misses)


def _period(report: Report, pod: Pod, pauses: Pauses) -> float:
    """Seconds until a report is too old: a worker whose readiness disagrees with it is asked soon."""
    if report.state == MISMATCH:
        return pauses.mismatch
    return pauses.settled if report.state in (VERIFIED, REPORTED) and pod.ready else pauses.starting


def container_of(pod: Pod) -> str:
    """A restarted container starts anew: it must be verified again."""
    return f"{pod.uid}/{pod.container_id}"
