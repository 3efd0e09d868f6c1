"""Before weights load: has the device what the plan counts on?

Runs within the engine (see `plugin`), right after a worker has opened its device: that is where torch tells
what is really free, of the very device that this rank got, with the engine's own context already in place.
A shortage ends the start with one line instead of an allocation that fails minutes later. On a CPU only what
is sure to be needed is asked for: how much memory the processes take is an estimate there, and the kernel
gives page cache back.

On an accelerator it also tells the supervisor what is free then, and again when the engine is warm: what the
plan's estimates are measured by.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .device_memory import DeviceMemory, write_memory
from .plan import Memory, PlanError, parse_plan

PLAN_VARIABLE = "TONNAGE_PLAN"
_GIB = 2**30
_LIMITS = (  # cgroup v2, v1: limit and usage
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)

log = logging.getLogger("vllm.tonnage")  # below the engine's own logger, so that it is written


class PreflightError(RuntimeError):
    """The device lacks what the plan counts on; `exits` knows the name of this class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a rank allocates: bytes that are free now, of how many."""

    name: str
    free: int
    total: int


def shortage(memory: Memory, place: Place) -> str | None:
    """What is missing, in one line; None where the plan has room."""
    needed = memory.weights + memory.kv + (0 if memory.device is None else memory.overheads)
    if place.free >= needed:
        return None
    parts = f"{_gib(memory.weights)} weights and {_gib(memory.kv)} KV cache"
    if memory.device is not None:
        parts += f", {_gib(memory.overheads)} activations, graphs and bursts"
    return (
        f"{place.name} has {_gib(place.free)} free of {_gib(place.total)}, "
        f"the plan needs {_gib(needed)} more ({parts}): {_cause(memory, place)}"
    )


def _cause(memory: Memory, place: Place) -> str:
    if memory.device is not None and place.total < memory.device:
        return f"the device is smaller than the {_gib(memory.device)} that the plan counts on"
    used = _gib(place.total - place.free)
    return f"{used} are in use before any weights are loaded; is another process there?"


def _gib(amount: int) -> str:
    return f"{amount / _GIB:.2f} GiB"


def install(reclaimable_bytes: Callable[[], int]) -> None:
    """Look after each worker of this process has opened its device, and when it is warm.

    Does nothing without a plan that tells, and where this version of vLLM has no such place.
    """
    memory = _planned()
    try:
        wrapper = importlib.import_module("vllm.v1.worker.worker_base").WorkerWrapperBase
        init_device = wrapper.init_device
    except (ImportError, AttributeError):
        return
    if memory is None or hasattr(init_device, "checked"):  # vLLM may call a plugin more than once
        return

    def init_device_and_check(worker: Any) -> Any:
        try:
            result = init_device(worker)
        except ValueError as error:  # the engine's own check of free memory, which knows less
            if "memory" in str(error):
                _check(memory, reclaimable_bytes)
            raise
        opened.append(_check(memory, reclaimable_bytes))
        return result

    def warm_up_and_tell(worker: Any) -> Any:
        result = worker.worker.compile_or_warm_up_model()
        if memory.device is not None and opened and opened[-1] is not None:
            _tell(opened[-1])
        return result

    opened: list[Place | None] = []
    init_device_and_check.checked = True  # type: ignore[attr-defined]
    wrapper.init_device = init_device_and_check
    # The wrapper hands what it does not know to its worker; executors ask the wrapper by this name
    # (vllm/v1/executor/abstract.py initialize_from_config).
    wrapper.compile_or_warm_up_model = warm_up_and_tell


def _tell(opened: Place) -> None:
    ready = _accelerator()
    if ready is not None:
        write_memory(
            DeviceMemory(
                total=ready.total,
                free_at_start=opened.free,
                free_at_ready=ready.free,
                compiled=_has_compiled(),
            )
        )


def _has_compiled() -> bool:
    """Whether this process compiled code for its engine (vllm/compilation/counter.py 0.26 and 0.32). Its time
    does not tell: a small model compiles in 17 s, and a large one's cache loads in 14. A release that does
    not count is taken to have compiled: that is the larger need."""
    try:
        counter = importlib.import_module("vllm.compilation.counter").compilation_counter
        return bool(counter.num_aot_compiles or counter.num_cache_entries_updated)
    except (ImportError, AttributeError):
        return True


def _planned() -> Memory | None:
    path = os.environ.get(PLAN_VARIABLE)
    if not path:
        return None
    try:
        return parse_plan(Path(path).read_text(encoding="utf-8")).memory
    except (OSError, UnicodeDecodeError, PlanError):
        return None


def _check(memory: Memory, reclaimable_bytes: Callable[[], int]) -> Place | None:
    """What there is; raises PreflightError where it is not enough."""
    place = _accelerator() if memory.device is not None else container_memory(reclaimable_bytes())
    if place is None:
        return None
    missing = shortage(memory, place)
    if missing is not None:
        raise PreflightError(missing)
    log.info("preflight: %s has %s free of %s", place.name, _gib(place.free), _gib(place.total))
    return place


def _accelerator() -> Place | None:
    """This process's device as torch sees it; None where torch sees none."""
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return None
    index = torch.cuda.current_device()
    free, total = torch.cuda.mem_get_info(index)
    if getattr(torch.cuda.get_device_properties(index), "is_integrated", False):
        # Memory is the system's, and the driver does not count page cache as free (vLLM 0.32
        # utils/mem_utils.py MemorySnapshot.measure).
        free = _system_memory().get("MemAvailable", free)
    return Place(name=f"device {index}", free=free, total=total)


def container_memory(
    reclaimable_bytes: int, *, paths: Sequence[tuple[str, str]] = _LIMITS, meminfo: str = "/proc/meminfo"
) -> Place | None:
    """What this container may still take: of its limit, else of the node; None where the kernel tells
    neither."""
    system = _system_memory(meminfo)
    if "MemTotal" not in system or "MemAvailable" not in system:
        return None
    for limit, usage in paths:
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            most, used = (int(Path(path).read_text(encoding="ascii")) for path in (limit, usage))
            if most < system["MemTotal"]:
                free = most - max(0, used - reclaimable_bytes)
                return Place(name="the container", free=max(0, free), total=most)
    return Place(name="the node", free=system["MemAvailable"], total=system["MemTotal"])


def _system_memory(path: str = "/proc/meminfo") -> dict[str, int]:
    found: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            found[name] = int(value.split()[0]) * 1024
    return found
