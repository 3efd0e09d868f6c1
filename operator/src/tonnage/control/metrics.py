"""The operator's own metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Counters and gauges of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "tonnage_reconciles", "Reconcile passes by result.", ["result"], registry=self.registry
        )
        self.seconds = Histogram(
            "tonnage_reconcile_seconds",
            "Duration of a reconcile pass.",
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
            registry=self.registry,
        )
        self.learned = Counter(
            "tonnage_learned_starts",
            "Starts of engines that taught what they hold of a device.",
            registry=self.registry,
        )
        self.queue = Gauge("tonnage_queue_length", "Objects waiting for a pass.", registry=self.registry)
        self.leader = Gauge("tonnage_leader", "1 while this process may write.", registry=self.registry)
        self.contact = Gauge(
            "tonnage_watch_silence_seconds",
            "Seconds since the API server was last heard of on a watch.",
            ["kind", "namespace"],
            registry=self.registry,
        )
