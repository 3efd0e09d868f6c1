"""Loaded into a vLLM engine by `bench.gpu`: tells what the engine allocates in each phase of its start.

A `vllm.general_plugins` entry. In the processes that vLLM's server starts it wraps methods of the engine's
core and worker (names as in vLLM 0.26 and 0.32) and changes nothing of what they do. Each process writes
what it knows to `engine-PID.json` in the directory `TONNAGE_PROBE`, after each phase, so that a start that
dies leaves what came before.

Two files in that directory are the bench's: while `hold` is there the engine's core waits before it touches
the device (its imports overlap with the row before), and a new text in `phase` closes one phase of load and
begins the next.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DIRECTORY_VARIABLE = "TONNAGE_PROBE"
_POLL_SECONDS = 0.05
_ROW: dict[str, Any] = {"phases": {}, "mem": {}, "snap": {}, "load": {}}


def register() -> None:
    """Wrap the engine's methods, then wait until the device is free for this engine."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if not directory or "pid" in _ROW or multiprocessing.parent_process() is None:
        return
    _ROW["pid"] = os.getpid()
    began = time.monotonic()
    with contextlib.suppress(ImportError, AttributeError):
        _wrap_worker()
        _wrap_core()
    import torch
    import vllm

    _ROW.update(vllm=vllm.__version__, torch=torch.__version__)
    waited = time.monotonic()
    while Path(directory, "hold").exists():
        time.sleep(_POLL_SECONDS)
    _ROW["phases"]["probe_import"] = round(waited - began, 2)
    _ROW["phases"]["held"] = round(time.monotonic() - waited, 2)


# --- wrapping


def _wrap_worker() -> None:
    import vllm.v1.worker.gpu.model_runner as second
    import vllm.v1.worker.gpu_model_runner as first
    import vllm.v1.worker.gpu_worker as workers

    worker = workers.Worker
    _wrap(worker, "init_device", "init_device")
    _wrap(worker, "load_model", "load_model")
    _wrap(worker, "determine_available_memory", "profile")
    _wrap(worker, "initialize_from_config", "kv_init")
    _wrap(worker, "compile_or_warm_up_model", "warmup", after=_warmed_up)
    for runner in (first.GPUModelRunner, second.GPUModelRunner):
        _wrap(runner, "profile_run", "profile_run", before=_begin_profile, after=_end_profile)
        _wrap(runner, "profile_cudagraph_memory", "profile_cudagraph", after=_keep("cudagraph_estimate"))
        _wrap(runner, "capture_model", "capture", after=_keep("cudagraph_actual"))
        _wrap_peak(runner, "_dummy_run", "forward_peak")
        _wrap_peak(runner, "_dummy_sampler_run", "sampler_peak")


def _wrap_core() -> None:
    from vllm.v1.engine.core import EngineCore

    _wrap(EngineCore, "_initialize_kv_caches", "ready", after=_sized)


def _sized(core: Any, cache: Any) -> None:
    _ROW["mem"]["available_kv"] = int(core.available_gpu_memory_for_kv_cache)
    _describe_config(core.vllm_config)
    _describe_cache(cache)


def _warmed_up(worker: Any, _: Any) -> None:
    threading.Thread(target=_watch_load, daemon=True).start()
    _describe_worker(worker)


def _wrap(
    owner: type,
    name: str,
    key: str,
    *,
    before: Callable[[], None] | None = None,
    after: Callable[[Any, Any], None] | None = None,
) -> None:
    wrapped = owner.__dict__.get(name)
    if wrapped is None:
        return

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        began = time.monotonic()
        if before is not None:
            before()
        result = wrapped(self, *arguments, **options)
        phases = _ROW["phases"]
        phases[key] = round(phases.get(key, 0) + time.monotonic() - began, 3)
        if after is not None:
            _tell(after, self, result)
        _snap(key)
        _save()
        return result

    setattr(owner, name, call)


def _wrap_peak(owner: type, name: str, key: str) -> None:
    """The allocator's peak after each call within the profile run: which of its parts set the peak."""
    wrapped = owner.__dict__.get(name)
    if wrapped is None:
        return

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        result = wrapped(self, *arguments, **options)
        if "profile_base" in _ROW["mem"] and _ROW.get("profiling") and _cuda():
            import torch

            _ROW["mem"][key] = torch.cuda.max_memory_allocated() - _ROW["mem"]["profile_base"]
        return result

    setattr(owner, name, call)


def _tell(what: Callable[[Any, Any], None], owner: Any, result: Any) -> None:
    """What cannot be told of another version must not end the engine."""
    try:
        what(owner, result)
    except Exception as error:
        _ROW.setdefault("errors", []).append(repr(error)[:300])


def _begin_profile() -> None:
    if not _cuda():
        return
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    _ROW["mem"]["profile_base"] = torch.cuda.memory_allocated()
    _ROW["profiling"] = True


def _end_profile(_: Any, __: Any) -> None:
    _ROW["profiling"] = False
    if not _cuda():
        return
    import torch

    _ROW["mem"]["profile_peak"] = torch.cuda.max_memory_allocated() - _ROW["mem"]["profile_base"]


def _keep(name: str) -> Callable[[Any, Any], None]:
    return lambda _, result: _ROW["mem"].__setitem__(name, result)


# --- what is told


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _memory() -> dict[str, int]:
    """Bytes now: of the device and of torch's allocator; on a CPU the resident set."""
    if not _cuda():
        with open("/proc/self/statm", encoding="ascii") as statm:
            return {"resident": int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")}
    import torch

    free, total = torch.cuda.mem_get_info()
    return {
        "free": free,
        "total": total,
        "torch_alloc": torch.cuda.memory_allocated(),
        "torch_reserved": torch.cuda.memory_reserved(),
    }


def _snap(key: str) -> None:
    try:
        _ROW["snap"][key] = _memory()
    except Exception as error:
        _ROW["snap"][key] = {"error": repr(error)[:200]}


def _save() -> None:
    path = Path(os.environ[DIRECTORY_VARIABLE], f"engine-{os.getpid()}.json")
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(_ROW, default=str), encoding="utf-8")
    scratch.replace(path)


def _describe_config(config: Any) -> None:
    cache, scheduler, model = config.cache_config, config.scheduler_config, config.model_config
    compilation = config.compilation_config
    _ROW.update(
        block_size=cache.block_size,
        kv_cache_size_tokens=getattr(cache, "kv_cache_size_tokens", None),
        max_concurrency=getattr(cache, "kv_cache_max_concurrency", None),
        v2_runner=bool(getattr(config, "use_v2_model_runner", False)),
        max_model_len=model.max_model_len,
        vocab=model.get_vocab_size(),
        dtype=str(model.dtype),
        quant=model.quantization,
        architectures=model.architectures,
        hidden=model.get_hidden_size(),
    )
    _ROW["sched"] = {
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "async_scheduling": scheduler.async_scheduling,
        "chunked": scheduler.enable_chunked_prefill,
    }
    _ROW["cache"] = {
        "dtype": cache.cache_dtype,
        "prefix": cache.enable_prefix_caching,
        "util": cache.gpu_memory_utilization,
        "kv_cache_memory_bytes": cache.kv_cache_memory_bytes,
        "mamba_cache_mode": getattr(cache, "mamba_cache_mode", None),
        "mamba_block_size": getattr(cache, "mamba_block_size", None),
        "mamba_page_size_padded": getattr(cache, "mamba_page_size_padded", None),
    }
    _ROW["compile"] = {
        "mode": str(compilation.mode),
        "cudagraph_mode": str(compilation.cudagraph_mode),
        "sizes": len(compilation.cudagraph_capture_sizes or []),
        "max_size": compilation.max_cudagraph_capture_size,
        "seconds": compilation.compilation_time,
    }


def _describe_cache(cache: Any) -> None:
    _ROW.update(
        num_gpu_blocks=cache.num_blocks,
        n_kv_tensors=len(cache.kv_cache_tensors),
        kv_tensor_bytes=sum(tensor.size for tensor in cache.kv_cache_tensors),
        groups=[
            {
                "n_layers": len(group.layer_names),
                "first": group.layer_names[0],
                "spec": _describe_spec(group.kv_cache_spec),
            }
            for group in cache.kv_cache_groups
        ],
    )


_SPEC_FIELDS = (
    "block_size",
    "page_size_bytes",
    "num_kv_heads",
    "head_size",
    "head_size_v",
    "dtype",
    "sliding_window",
    "attention_chunk_size",
    "page_size_padded",
    "mamba_type",
    "mamba_cache_mode",
    "cache_dtype_str",
    "shapes",
    "dtypes",
)


def _describe_spec(spec: Any) -> dict[str, Any]:
    values = {name: getattr(spec, name, None) for name in _SPEC_FIELDS}
    told = {
        name: value if isinstance(value, int | float) else str(value)
        for name, value in values.items()
        if value is not None
    }
    return {"kind": type(spec).__name__, **told}


def _describe_worker(worker: Any) -> None:
    memory = _ROW["mem"]
    memory["weights"] = int(getattr(worker.model_runner, "model_memory_usage", 0))
    for name, attribute in (
        ("non_torch", "non_torch_memory"),
        ("peak_activation", "peak_activation_memory"),
        ("requested", "requested_memory"),
    ):
        memory[name] = getattr(worker, attribute, None)
    snapshot = getattr(worker, "init_snapshot", None)
    if snapshot is not None:
        memory["total"], memory["free_at_start"] = snapshot.total_memory, snapshot.free_memory
    storages = {
        parameter.untyped_storage().data_ptr(): parameter.untyped_storage().nbytes()
        for parameter in worker.model_runner.model.parameters()
    }
    memory["param_bytes"] = sum(storages.values())
    groups = getattr(worker.model_runner, "attn_groups", None) or []
    with contextlib.suppress(Exception):
        _ROW["attn_backends"] = sorted({g.backend.get_name() for found in groups for g in found})


# --- load


def _watch_load() -> None:
    """Close a phase of load whenever the bench names the next one."""
    path = Path(os.environ[DIRECTORY_VARIABLE], "phase")
    phase = ""
    while True:
        time.sleep(_POLL_SECONDS)
        with contextlib.suppress(OSError):
            named = path.read_text(encoding="ascii")
            if named != phase:
                _close_phase(phase)
                phase = named


def _close_phase(phase: str) -> None:
    found: dict[str, Any] = dict(_memory())
    if _cuda():
        import torch

        statistics = torch.cuda.memory_stats()
        found["peak_alloc"] = statistics.get("allocated_bytes.all.peak")
        found["peak_reserved"] = statistics.get("reserved_bytes.all.peak")
        found["alloc_retries"] = statistics.get("num_alloc_retries")
        found["ooms"] = statistics.get("num_ooms")
        torch.cuda.reset_peak_memory_stats()
    if phase:
        _ROW["load"][phase] = found
    _save()
