"""Loaded by vLLM in every engine process (`vllm.general_plugins`): checks the device against the plan (see
`preflight`), and lets a cold start fit its limit.

Before vLLM allocates the KV cache on a CPU it requires `limit - usage >= KV bytes` of the container
(utils/cpu_resource_utils.py get_memory_node_info, v1/worker/cpu_worker.py; 0.32.0). It takes `usage` from the
cgroup, and that holds the page cache: on a node that has not read the image and the weights before, reading
them fills the container to its limit, and the engine refuses to start although the kernel would give the
memory back at once. For whole nodes vLLM counts the page cache as available; this makes it do so for
containers too.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Sequence

from . import preflight

_STATISTICS = ("/sys/fs/cgroup/memory.stat", "/sys/fs/cgroup/memory/memory.stat")  # cgroup v2, v1
_RECLAIMABLE = ("active_file", "inactive_file")
_Usage = Callable[[], int | None]


def register() -> None:
    """Install both; each does nothing where this version of vLLM has no place for it."""
    preflight.install(reclaimable_bytes)
    _count_without_page_cache()


def _count_without_page_cache() -> None:
    try:
        module = importlib.import_module("vllm.utils.cpu_resource_utils")
        read = module.get_cgroup_memory_usage
    except (ImportError, AttributeError):
        return
    if not isinstance(read, _UsageWithoutPageCache):  # vLLM may call a plugin more than once
        module.get_cgroup_memory_usage = _UsageWithoutPageCache(read)  # type: ignore[attr-defined]


class _UsageWithoutPageCache:
    def __init__(self, read: _Usage) -> None:
        self._read = read

    def __call__(self) -> int | None:
        """Bytes in use that the kernel cannot give back by dropping page cache; None where unknown."""
        usage = self._read()
        return None if usage is None else max(0, usage - reclaimable_bytes())


def reclaimable_bytes(paths: Sequence[str] = _STATISTICS) -> int:
    """Bytes of page cache that count as this container's; 0 where the kernel does not tell.

    Memory of tmpfs (/dev/shm) is not among them: the kernel lists it with anonymous memory.
    """
    for path in paths:
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as statistics:
            values = dict(line.split() for line in statistics)
            # v1 gives the container's own and, with `total_`, its descendants' too, as v2 always does
            return sum(int(values.get(f"total_{name}", values.get(name, 0))) for name in _RECLAIMABLE)
    return 0
