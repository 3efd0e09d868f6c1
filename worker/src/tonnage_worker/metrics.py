"""The worker's own series, appended to the engine's metrics page. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from .plan import Capacity
from .status import State, Status, state_of

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OWN = "tonnage_"


def page(status: Status, *, engine_page: str | None) -> str:
    """One page of both; `engine_page` None: the engine did not answer."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Own(status, engine_answers=engine_page is not None))
    return _engine_lines(engine_page or "") + generate_latest(registry).decode()


def _engine_lines(text: str) -> str:
    """The engine's page without what would clash: series under our prefix, and OpenMetrics' end mark."""
    kept = [line for line in text.splitlines() if not _clashes(line)]
    return "".join(line + "\n" for line in kept)


def _clashes(line: str) -> bool:
    if line.startswith(("# HELP ", "# TYPE ", "# UNIT ")):
        return line.split(" ", 3)[2].startswith(_OWN)
    return line.startswith(_OWN) or line.strip() == "# EOF"


class _Own(Collector):
    def __init__(self, status: Status, *, engine_answers: bool) -> None:
        self._status = status
        self._engine_answers = engine_answers

    def collect(self) -> Iterator[GaugeMetricFamily]:
        status = self._status
        yield _plan_info(status)
        yield from _capacity("planned", {"": status.plan.expected}, what="by the plan")
        yield from _capacity("observed", dict(status.observed), what="by the engine itself")
        yield _gauge(
            "capacity_verified",
            "1 once the engine's capacity satisfies the plan under its verification mode.",
            float(status.verdict is not None and status.verdict.ok),
        )
        yield _gauge("worker_draining", "1 while the worker drains.", float(status.draining))
        yield _gauge("engine_up", "1 if the engine answered this scrape.", float(self._engine_answers))
        if status.start_seconds is not None:
            yield _gauge(
                "engine_start_seconds",
                "Seconds from the engine's start to its first healthy answer.",
                status.start_seconds,
            )
        yield _states(status)


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(_OWN + name, documentation, value=value)


def _plan_info(status: Status) -> GaugeMetricFamily:
    expected = status.plan.expected
    labels = {
        "hash": status.plan.hash,
        "engine_version": status.plan.engine_version,
        "verification": status.plan.verification.value,
        "kv_dtype": expected.kv_dtype or "",
        "block_size": str(expected.block_size),
    }
    family = GaugeMetricFamily(_OWN + "plan_info", "The plan this worker keeps.", labels=list(labels))
    family.add_metric(list(labels.values()), 1.0)
    return family


def _capacity(kind: str, engines: dict[str, Capacity], *, what: str) -> Iterator[GaugeMetricFamily]:
    series: tuple[tuple[str, str, Callable[[Capacity], float | None]], ...] = (
        ("blocks", f"KV blocks of one engine {what}.", lambda c: c.blocks),
        ("tokens", f"Tokens that one engine's KV cache holds {what}.", lambda c: c.tokens),
        ("concurrency", f"Requests of full context length one engine holds {what}.", lambda c: c.concurrency),
    )
    for name, documentation, read in series:
        labels = ["engine"] if kind == "observed" else []
        family = GaugeMetricFamily(f"{_OWN}{kind}_kv_{name}", documentation, labels=labels)
        for engine, capacity in engines.items():
            value = read(capacity)
            if value is not None:
                family.add_metric([engine] if labels else [], float(value))
        yield family


def _states(status: Status) -> GaugeMetricFamily:
    family = GaugeMetricFamily(_OWN + "worker_state", "1 for the worker's state.", labels=["state"])
    for state in State:
        family.add_metric([state.value], float(state is state_of(status)))
    return family
