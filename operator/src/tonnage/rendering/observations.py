"""What was seen of the workers, as plain records: status is computed from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Termination:
    """How a container ended: the message is what the container wrote."""

    exit_code: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod of one of our Deployments or Jobs; `container_id` is empty until the container runs, since
    `started_at`, in seconds since the epoch. `image` is that which the node says it runs."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    phase: str
    ip: str
    ready: bool
    deleting: bool
    unschedulable: str
    waiting_reason: str
    waiting_message: str
    container_id: str
    running: bool
    restarts: int
    last_exit: Termination | None
    started_at: int = 0
    image: str = ""

    @property
    def address(self) -> str:
        """The pod's IP as it stands in a URL."""
        return f"[{self.ip}]" if ":" in self.ip else self.ip


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """KV capacity as the engine itself counts it; `concurrency` is a number as text."""

    blocks: int
    tokens: int
    concurrency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Bytes of the fullest device of a worker: its total, what was free before anything was loaded and once
    the engine was warm; and whether it compiled code in this start."""

    total_bytes: int
    free_at_start_bytes: int
    free_at_ready_bytes: int
    compiled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A worker's answer on /capacity. `kv_usage` is a share from 0 to 1, None where it is not known;
    `memory` None where the worker has no device, or said of it what cannot be."""

    state: str
    plan_hash: str
    observed: Capacity | None
    engine_version: str
    start_seconds: float | None
    reason: str
    message: str
    kv_usage: float | None
    memory: DeviceMemory | None = None
