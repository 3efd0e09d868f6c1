"""Starts real engines on a GPU, one after another, loads them, and writes what they did, a line for each.

    python gpu_run.py SPECS OUT [--deadline SECONDS] [--work DIR] [--only REGEX]

SPECS is what `bench.gpu_specs` writes. Each engine is started by `tonnage_worker.serve` with the arguments
that the operator renders; added are only dummy weights and no tokenizer (there are no model files), ports,
and paths. Needs vLLM, tonnage_worker, aiohttp, and nothing else of this repository: it runs where the GPU is.

One engine has the device at a time; while it starts and serves, the next one already imports (see
`gpu_probe`). OUT gets `rows.jsonl` as rows end, and `logs.txt` with the last lines of each. A row that has
a result in the work directory is not run again. Rows that would not end before the deadline are left for
the next call.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

GIB = 2**30
_BENCH_ONLY = ("--load-format", "dummy", "--skip-tokenizer-init")
_FIRST_PORT = 18000
_SETTLED = {"Verified", "Reported", "Mismatch", "Failed"}
_FREED_BYTES = 1.5 * GIB
_LAST_SECONDS = 6.0
_IMPORT_SECONDS = 25.0
_PROBE = "tonnage-bench-probe"


@dataclass(kw_only=True)
class Engine:
    """One worker process with its engine."""

    spec: dict[str, Any]
    directory: Path
    process: subprocess.Popen[bytes]
    port: int
    began: float = field(default_factory=time.monotonic)
    released: float = 0.0

    @property
    def engine_port(self) -> int:
        """Where the engine itself answers."""
        return self.port + 1

    def log(self) -> str:
        """Everything that worker and engine wrote."""
        return (self.directory / "log").read_text(errors="replace")


# --- the device


class Device:
    """Memory in use on GPU 0 as the driver counts it, sampled in a thread; without a GPU it tells nothing."""

    def __init__(self) -> None:
        self._peak = 0
        self._stop = threading.Event()
        self._read: Any = None
        with contextlib.suppress(Exception):
            self._read = _open_nvml()

    @property
    def present(self) -> bool:
        """Whether there is a GPU."""
        return self._read is not None

    def used(self) -> int | None:
        """Bytes in use now."""
        return None if self._read is None else self._read()

    @contextlib.contextmanager
    def sampled(self) -> Iterator[None]:
        """Sample every 10 ms within; `peak` has the largest afterwards."""
        self._peak = 0
        self._stop.clear()
        thread = threading.Thread(target=self._sample, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    @property
    def peak(self) -> int | None:
        """Most bytes in use within the last `sampled`."""
        return self._peak if self.present else None

    def _sample(self) -> None:
        while self.present and not self._stop.wait(0.01):
            self._peak = max(self._peak, self._read())


def _open_nvml() -> Any:
    pynvml: Any = importlib.import_module("pynvml")
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)

    def read() -> int:
        try:
            return int(pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2).used)
        except Exception:
            return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)

    read()
    return read


# --- starting


def _write_probe(work: Path) -> Path:
    """A directory for PYTHONPATH with the probe and the entry point by which vLLM finds it."""
    target = work / "probe"
    metadata = target / f"{_PROBE.replace('-', '_')}-1.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("gpu_probe.py"), target / "gpu_probe.py")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {_PROBE}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[vllm.general_plugins]\n{_PROBE} = gpu_probe:register\n")
    return target


def _write_model(spec: dict[str, Any], *, work: Path) -> Path:
    """The directory of a model that has a config.json and no weights."""
    if spec.get("files"):
        return Path(spec["files"])
    target: Path = work / "models" / spec["model"]
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(spec["config_json"]))
    if spec["hf_quant_config_json"]:
        (target / "hf_quant_config.json").write_text(json.dumps(spec["hf_quant_config_json"]))
    return target


def _arguments(spec: dict[str, Any], *, model: Path, port: int) -> list[str]:
    """The rendered arguments with this host's paths and ports, and the bench's own at the end."""
    found = list(spec["arguments"])
    for name, value in (("--model", str(model)), ("--port", str(port)), ("--host", "127.0.0.1")):
        found[found.index(name) + 1] = value
    return found if spec.get("files") else [*found, *_BENCH_ONLY]


def _start(spec: dict[str, Any], index: int, *, options: argparse.Namespace) -> Engine:
    work: Path = options.work
    directory = work / "rows" / spec["id"]
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "hold").touch()
    (directory / "plan.json").write_text(json.dumps(spec["plan"]))
    port = _FIRST_PORT + 2 * (index % 500)
    home = work / "home"
    home.mkdir(exist_ok=True)
    path = [str(_write_probe(work)), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        **spec["environment"],
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "TONNAGE_PROBE": str(directory),
    }
    command = [
        *(options.python, "-P", "-m", "tonnage_worker.serve"),
        *("--plan", str(directory / "plan.json"), "--port", str(port)),
        *("--termination-log", str(directory / "termination")),
        "--",
        *_arguments(spec, model=_write_model(spec, work=work), port=port + 1),
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    return Engine(spec=spec, directory=directory, process=process, port=port)


def _children(pid: int) -> list[int]:
    """All descendants of a process."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def _stop(engine: Engine) -> None:
    """End the engine at once, as SIGINT asks the worker to; whatever is left then is killed."""
    family = _children(engine.process.pid)
    if engine.process.poll() is None:
        engine.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            engine.process.wait(8)
    for pid in [*family, engine.process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    engine.process.wait(10)


# --- asking


def _get(port: int, path: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=4) as answer:
            return str(answer.read(), "utf-8", "replace")
    except urllib.error.HTTPError as error:
        return str(error.read(), "utf-8", "replace")
    except (OSError, ValueError):
        return None


def _capacity(engine: Engine) -> dict[str, Any]:
    text = _get(engine.port, "/capacity")
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _wait_until_settled(engine: Engine, *, until: float) -> dict[str, Any]:
    """The worker's report once it has a verdict; what it last said where the engine ends or time is up."""
    report: dict[str, Any] = {}
    while time.monotonic() < until:
        report = _capacity(engine) or report
        if report.get("state") in _SETTLED or engine.process.poll() is not None:
            return report
        time.sleep(0.2)
    return {**report, "timeout": True}


# --- load


_SERIES = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "kv_usage": "vllm:kv_cache_usage_perc",
    "preemptions": "vllm:num_preemptions_total",
}


def _read_series(page: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, series in _SERIES.items():
        values = re.findall(rf"^{re.escape(series)}(?:\{{[^}}]*\}})? (\S+)$", page, re.M)
        if values:
            found[name] = sum(map(float, values))
    return found


async def _watch(session: aiohttp.ClientSession, engine: Engine, most: dict[str, float]) -> None:
    url = f"http://127.0.0.1:{engine.engine_port}/metrics"
    while True:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(url, timeout=aiohttp.ClientTimeout(total=3)) as answer:
                for name, value in _read_series(await answer.text()).items():
                    most[name] = max(most.get(name, 0.0), value)
        await asyncio.sleep(0.25)


async def _complete(
    session: aiohttp.ClientSession, engine: Engine, prompt: Sequence[int], tokens: int
) -> int:
    """One completion; returns how many tokens came. Raises RuntimeError with the server's words."""
    body = {
        "model": engine.spec["served"],
        "prompt": list(prompt),
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0.8,
        "top_p": 0.95,
    }
    url = f"http://127.0.0.1:{engine.engine_port}/v1/completions"
    async with session.post(url, json=body) as answer:
        text = await answer.text()
        if answer.status != 200:
            raise RuntimeError(f"HTTP {answer.status}: {text[:300]}")
        return int(json.loads(text)["usage"]["completion_tokens"])


async def _send(engine: Engine, burst: dict[str, Any], *, limit_s: float) -> dict[str, Any]:
    """All requests of a burst at once; those that are not answered in time are cancelled."""
    choose = random.Random(burst.get("seed", 1))
    vocabulary = engine.spec["vocab"]
    most: dict[str, float] = {}
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        watching = asyncio.create_task(_watch(session, engine, most))
        prompts = [
            [choose.randrange(vocabulary) for _ in range(burst["prompt_tokens"])]
            for _ in range(burst["requests"])
        ]
        began = time.monotonic()
        tasks = [
            asyncio.create_task(_complete(session, engine, prompt, burst["output_tokens"]))
            for prompt in prompts
        ]
        done, rest = await asyncio.wait(tasks, timeout=max(1.0, limit_s))
        seconds = time.monotonic() - began
        for task in (*rest, watching):
            task.cancel()
        await asyncio.gather(*rest, watching, return_exceptions=True)
    errors = [str(task.exception() or "") for task in done if task.exception()]
    return {
        **burst,
        "completed": len(done) - len(errors),
        "failed": len(errors),
        "cancelled": len(rest),
        "errors": errors[:2],
        "seconds": round(seconds, 2),
        "generated": sum(task.result() for task in done if not task.exception()),
        "most": most,
    }


def _load(engine: Engine, burst: dict[str, Any], *, device: Device, until: float) -> dict[str, Any]:
    name = burst["name"]
    (engine.directory / "phase").write_text(name)
    time.sleep(0.15)
    with device.sampled():
        limit = min(burst["limit_s"], until - time.monotonic())
        result = asyncio.run(_send(engine, burst, limit_s=limit))
    result["peak_used"] = device.peak
    (engine.directory / "phase").write_text("idle")
    for _ in range(30):
        time.sleep(0.1)
        found = _probed(engine).get("load", {}).get(name)
        if found:
            return {**result, "engine": found}
    return result


def _probed(engine: Engine) -> dict[str, Any]:
    """What the engine's processes told, as one."""
    found: dict[str, Any] = {}
    for path in sorted(engine.directory.glob("engine-*.json")):
        with contextlib.suppress(OSError, ValueError):
            for name, value in json.loads(path.read_text()).items():
                known = found.get(name)
                found[name] = {**known, **value} if isinstance(known, dict) else value
    return found


# --- one row


_TOLD = re.compile(
    r"Model loading took|Available KV|GPU KV cache size|Maximum concurrency|[Gg]raph|[Cc]ompil"
    r"|Using .*(backend|attention|MoE|Triton|FLASH|kernel|V2)|init engine|block size|page size|hybrid"
    r"|out of memory|Error|Free memory|Actual usage|reserved .* memory|tonnage_worker|LoRA|Selected",
)
_NOT_TOLD = re.compile(r"it/s|non-default args|Initializing a V1 LLM engine|Route:|HTTP/1.1")


def _told(log: str) -> list[str]:
    """The lines of a log that say something of memory, kernels, or errors; each once."""
    lines = (line for line in log.splitlines() if _TOLD.search(line) and not _NOT_TOLD.search(line))
    return list(dict.fromkeys(line[:500] for line in lines))[:90]


def _end_of(log: str, *, limit: int) -> str:
    lines = (line for line in log.splitlines() if not re.search(r"HTTP/1\.1\" \d|it/s\]", line))
    return "\n".join(lines)[-limit:]


def _finish(engine: Engine, row: dict[str, Any]) -> None:
    page = _get(engine.port, "/metrics") or ""
    row["worker_series"] = [line for line in page.splitlines() if line.startswith("tonnage_")]
    row["engine_series"] = [line for line in page.splitlines() if line.startswith("vllm:cache_config_info")]
    row["report_after"] = _capacity(engine)


def _run(engine: Engine, *, device: Device, until: float) -> dict[str, Any]:
    spec = engine.spec
    row: dict[str, Any] = {
        name: spec.get(name) for name in ("id", "config", "patch", "kind", "note", "arguments", "environment")
    }
    row["used_before"] = device.used()
    engine.released = time.monotonic()
    (engine.directory / "hold").unlink()
    with device.sampled():
        row["report"] = _wait_until_settled(engine, until=until)
    row["start"] = {
        "imported_s": round(engine.released - engine.began, 1),
        "ready_s": round(time.monotonic() - engine.released, 1),
        "peak_used": device.peak,
    }
    row["served"] = row["report"].get("state") in _SETTLED - {"Failed"}
    row["bursts"] = []
    if row["served"]:
        for burst in spec["bursts"]:
            row["bursts"].append(_load(engine, burst, device=device, until=until))
        _finish(engine, row)
    row["survived"] = row["served"] and _survived(row)
    return row


def _survived(row: dict[str, Any]) -> bool:
    answered = all(burst["failed"] == 0 and burst["completed"] for burst in row["bursts"])
    return answered and row["report_after"].get("state") in _SETTLED - {"Failed"}


def _close(engine: Engine, row: dict[str, Any], *, device: Device) -> dict[str, Any]:
    _stop(engine)
    with contextlib.suppress(OSError, ValueError):
        row["exit"] = json.loads((engine.directory / "termination").read_text())
    row["exit_code"] = engine.process.returncode
    row.update(engine=_probed(engine), log=_told(engine.log()))
    row["wall_s"] = round(time.monotonic() - engine.released, 1)
    for _ in range(100):
        used = device.used()
        if used is None or used < _FREED_BYTES:
            break
        time.sleep(0.1)
    return row


def _line(row: dict[str, Any]) -> str:
    memory, engine = row["engine"].get("mem", {}), row["engine"]

    def gib(value: Any) -> str:
        return f"{value / GIB:.3f}" if isinstance(value, int | float) and value else "-"

    bursts = " ".join(
        f"{b['name']}:{b['completed']}/{b['requests']}ok,{b['failed']}bad,{b['seconds']}s,"
        f"peak={gib(b['peak_used'])},run={b['most'].get('running', 0):.0f},"
        f"retries={b.get('engine', {}).get('alloc_retries')}"
        for b in row["bursts"]
    )
    why = "" if row["served"] else f" {row.get('exit')} {row.get('error', '')}"
    return (
        f"{row['id']:<32} {'OK ' if row['survived'] else 'ERR'} {row['wall_s']:>5}s"
        f" ready={row['start']['ready_s']} state={row['report'].get('state')} v2={engine.get('v2_runner')}"
        f" w={gib(memory.get('weights'))}"
        f" act={gib(memory.get('peak_activation'))}/{gib(memory.get('profile_peak'))}"
        f" nt={gib(memory.get('non_torch'))} cg={gib(memory.get('cudagraph_estimate'))}"
        f"/{gib(memory.get('cudagraph_actual'))} kv={gib(memory.get('available_kv'))}"
        f" blocks={engine.get('num_gpu_blocks')} tokens={engine.get('kv_cache_size_tokens')} {bursts}{why}"
    )


# --- all rows


def _one(engine: Engine, *, device: Device, deadline: float) -> dict[str, Any]:
    until = min(deadline - _LAST_SECONDS, time.monotonic() + engine.spec["timeout_s"])
    try:
        row = _run(engine, device=device, until=until)
    except Exception as error:
        row = {"id": engine.spec["id"], "served": False, "survived": False, "bursts": [], "report": {}}
        row |= {"start": {"ready_s": None}, "error": f"{type(error).__name__}: {error}"[:500]}
    return _close(engine, row, device=device)


def _wanted(options: argparse.Namespace) -> list[dict[str, Any]]:
    specs = json.loads(Path(options.specs).read_text())
    done = {path.stem for path in (options.work / "done").glob("*.json")}
    return [spec for spec in specs if spec["id"] not in done and re.search(options.only, spec["id"])]


def _keep_row(row: dict[str, Any], log: str, *, options: argparse.Namespace) -> None:
    text = json.dumps(row, default=str)
    with (options.out / "rows.jsonl").open("a") as rows:
        rows.write(text + "\n")
    with (options.out / "logs.txt").open("a") as logs:
        logs.write(f"===== {row['id']}\n{_end_of(log, limit=2000 if row['survived'] else 20_000)}\n")
    (options.work / "done" / f"{row['id']}.json").write_text(text)
    print(_line(row), flush=True)


def _take(pending: list[dict[str, Any]], *, seconds: float) -> dict[str, Any] | None:
    """The first row that is thought to end within so many seconds, no longer pending."""
    found = next((spec for spec in pending if spec["needs_s"] <= seconds), None)
    if found is not None:
        pending.remove(found)
    return found


def _sequence(options: argparse.Namespace, *, deadline: float) -> Iterator[Engine]:
    """Engines in order, each started while the one before has the device; those that do not fit before the
    deadline are left out."""
    pending = _wanted(options)
    index = 0

    def start(seconds: float) -> Engine | None:
        nonlocal index
        spec = _take(pending, seconds=seconds)
        index += spec is not None
        return None if spec is None else _start(spec, index, options=options)

    engine = start(deadline - time.monotonic())
    ahead = None
    try:
        while engine is not None:
            left = deadline - time.monotonic()
            if left < engine.spec["needs_s"]:
                _stop(engine)
                print(f"no time for {engine.spec['id']}: {left:.0f} s are left", flush=True)
            else:
                ahead = start(left - engine.spec["needs_s"])
                yield engine
            engine, ahead = ahead or start(deadline - time.monotonic() - _IMPORT_SECONDS), None
    finally:
        if ahead is not None:
            _stop(ahead)
    print(f"left: {[spec['id'] for spec in pending]}", flush=True)


def run_all(options: argparse.Namespace) -> int:
    """Run rows in order until all are done or time is up; returns how many did not serve and survive."""
    began = time.monotonic()
    for directory in (options.out, options.work / "done"):
        directory.mkdir(parents=True, exist_ok=True)
    device = Device()
    print(f"gpu: {device.present}, bytes in use: {device.used()}", flush=True)
    deadline = began + options.deadline
    bad, served = 0, False
    for engine in _sequence(options, deadline=deadline):
        row = _one(engine, device=device, deadline=deadline)
        _keep_row(row, engine.log(), options=options)
        bad += not row["survived"] and engine.spec["kind"] != "refused"
        served = served or row["served"]
        if not served and engine.spec["kind"] != "refused":
            print(_end_of(engine.log(), limit=5000), "\nthe first row did not serve: stopped", flush=True)
            break
    print(f"took {time.monotonic() - began:.0f} s, {bad} bad", flush=True)
    return bad


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_run.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("specs")
    parser.add_argument("out", type=Path)
    parser.add_argument("--deadline", type=float, default=36_000.0, help="seconds from now (default 10 h)")
    parser.add_argument("--work", type=Path, default=Path("build/bench-gpu"))
    parser.add_argument("--only", default="", help="rows whose id matches")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has vLLM")
    options = parser.parse_args(arguments)
    options.work = options.work.resolve()
    return options


if __name__ == "__main__":
    sys.exit(min(1, run_all(_parse(sys.argv[1:]))))
