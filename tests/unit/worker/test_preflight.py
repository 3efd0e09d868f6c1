"""Free memory against the plan, before weights load."""
# ruff: noqa: E501  log lines stay in one piece

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage_worker import preflight
from tonnage_worker.device_memory import DIRECTORY_VARIABLE, DeviceMemory, read_memory
from tonnage_worker.exits import explain
from tonnage_worker.plan import Memory, parse_plan
from tonnage_worker.preflight import Place, PreflightError, container_memory, shortage
from unit.worker.test_plan import document

GIB = 2**30
ON_H200 = Memory(weights=16 * GIB, kv=118 * GIB, overheads=4 * GIB, device=139 * GIB)
ON_CPU = Memory(weights=GIB, kv=2 * GIB, overheads=4 * GIB, device=None)
BYTES = st.integers(min_value=0, max_value=2**40)


def place(free: float, total: float = 139.8) -> Place:
    return Place(name="device 0", free=int(free * GIB), total=int(total * GIB))


@given(weights=BYTES, kv=BYTES, overheads=BYTES, free=BYTES, used=BYTES)
def test_it_is_short_exactly_where_less_is_free_than_will_be_allocated(
    weights: int, kv: int, overheads: int, free: int, used: int
) -> None:
    here = Place(name="device 0", free=free, total=free + used)
    memory = Memory(weights=weights, kv=kv, overheads=overheads, device=0)
    assert (shortage(memory, here) is None) == (free >= weights + kv + overheads)
    without = Memory(weights=weights, kv=kv, overheads=overheads, device=None)
    assert (shortage(without, here) is None) == (free >= weights + kv)


def test_it_says_who_has_the_memory() -> None:
    assert shortage(ON_H200, place(139.2)) is None
    found = shortage(ON_H200, place(98.25))
    assert found is not None
    assert "98.25 GiB free of 139.80 GiB, the plan needs 138.00 GiB more" in found
    assert "16.00 GiB weights and 118.00 GiB KV cache, 4.00 GiB activations" in found
    assert "41.55 GiB are in use before any weights are loaded" in found


def test_it_says_that_the_device_is_another() -> None:
    found = shortage(ON_H200, place(78.5, total=79.19))
    assert found is not None
    assert "the device is smaller than the 139.00 GiB that the plan counts on" in found


def test_the_end_has_reason_and_figures() -> None:
    text = shortage(ON_H200, place(98.25, total=139.75))
    for line in (
        f"(EngineCore pid=57) ERROR 11-24 05:06:05 [core.py:1510] tonnage_worker.preflight.PreflightError: {text}",
        f"RuntimeError: Worker failed with error 'tonnage_worker.preflight.PreflightError: {text}', please check "
        "the stack trace above for the root cause",
    ):
        exit_ = explain(returncode=1, tail=[line, "RuntimeError: Engine core initialization failed."])
        assert (exit_.reason, exit_.message) == ("InsufficientMemory", text)
        assert exit_.figures == {
            "freeBytes": 393 * GIB // 4,
            "neededBytes": 138 * GIB,
            "totalBytes": 559 * GIB // 4,
        }


# what the plan tells


def told(memory: dict[str, Any] | None = None, **placed: Any) -> dict[str, Any]:
    purposes = ("context", "nonTorch", "weights", "activation", "graphs", "burstMargin", "kv")
    amounts = {name: 10**index for index, name in enumerate(purposes)} if memory is None else memory
    return document(plan={"memoryBytes": amounts, "placement": placed})


def test_a_plan_tells_its_bytes() -> None:
    memory = parse_plan(json.dumps(told(deviceBytes=7))).memory
    assert memory == Memory(weights=100, kv=10**6, overheads=111_000, device=7)
    on_cpu = parse_plan(json.dumps(told())).memory
    assert on_cpu is not None
    assert on_cpu.device is None


@pytest.mark.parametrize(
    "plan", [None, {}, {"memoryBytes": []}, {"memoryBytes": {"kv": "x"}, "placement": {}}]
)
def test_one_that_does_not_is_still_a_plan(plan: Any) -> None:
    changed = {**document(), "plan": plan} if plan is not None else document()
    assert parse_plan(json.dumps(changed)).memory is None


# within the engine


class Engine:
    """Stands for vLLM and torch in this process; names as in vLLM 0.26 and 0.32."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, plan_file: Path) -> None:
        self.free, self.total, self.opened, self.error = 139 * GIB, 140 * GIB, 0, ""
        engine = self

        class Worker:
            def compile_or_warm_up_model(self) -> str:
                engine.free = 2 * GIB
                return "warm"

        class WorkerWrapperBase:
            worker = Worker()

            def __getattr__(self, name: str) -> Any:
                return getattr(self.worker, name)

            def init_device(self) -> str:
                engine.opened += 1
                if engine.error:
                    raise ValueError(engine.error)
                return "opened"

        module = ModuleType("vllm.v1.worker.worker_base")
        module.WorkerWrapperBase = WorkerWrapperBase  # type: ignore[attr-defined]
        torch = ModuleType("torch")
        torch.cuda = SimpleNamespace(  # type: ignore[attr-defined]
            is_available=lambda: True,
            current_device=lambda: 1,
            mem_get_info=lambda _: (engine.free, engine.total),
            get_device_properties=lambda _: SimpleNamespace(is_integrated=False),
        )
        for name in ("vllm", "vllm.v1", "vllm.v1.worker"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setenv(preflight.PLAN_VARIABLE, str(plan_file))
        self.wrapper: Any = WorkerWrapperBase

    def open(self) -> Any:
        preflight.install(lambda: 0)
        return self.wrapper().init_device()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    amounts = dict.fromkeys(("context", "nonTorch", "weights", "activation", "graphs", "burstMargin"), GIB)
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(told({**amounts, "kv": 100 * GIB}, deviceBytes=139 * GIB)))
    return Engine(monkeypatch, file)


def test_an_engine_with_room_starts(engine: Engine) -> None:
    engine.free = 104 * GIB
    assert engine.open() == "opened"


def test_one_that_is_warm_tells_what_it_left(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = tmp_path / "told"
    directory.mkdir()
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(directory))
    preflight.install(lambda: 0)
    rank = engine.wrapper()
    rank.init_device()
    assert read_memory(str(directory)) is None
    assert rank.compile_or_warm_up_model() == "warm"
    assert read_memory(str(directory)) == DeviceMemory(
        total=140 * GIB, free_at_start=139 * GIB, free_at_ready=2 * GIB, compiled=True
    )


@pytest.mark.parametrize(
    ("counted", "compiled"),
    [
        ({"num_aot_compiles": 1, "num_cache_entries_updated": 1}, True),
        ({"num_aot_compiles": 0, "num_cache_entries_updated": 2}, True),
        ({"num_aot_compiles": 0, "num_cache_entries_updated": 0, "num_aot_artifacts_loaded": 1}, False),
        ({"num_aot_compiles": 0}, True),
        (None, True),
    ],
)
def test_the_engine_counts_what_it_compiles(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    counted: dict[str, int] | None,
    compiled: bool,
) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    if counted is not None:
        module = ModuleType("vllm.compilation.counter")
        module.compilation_counter = SimpleNamespace(**counted)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "vllm.compilation", ModuleType("vllm.compilation"))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    preflight.install(lambda: 0)
    rank = engine.wrapper()
    rank.init_device()
    rank.compile_or_warm_up_model()
    found = read_memory(str(tmp_path))
    assert found is not None
    assert found.compiled is compiled


def test_one_without_ends_after_its_device_is_open(engine: Engine) -> None:
    engine.free = 104 * GIB - 1
    with pytest.raises(
        PreflightError, match=r"device 1 has 104\.00 GiB free of 140\.00 GiB, the plan needs 104"
    ):
        engine.open()
    assert engine.opened == 1


def test_the_engines_own_check_is_told_in_the_plans_words(engine: Engine) -> None:
    engine.free, engine.error = (
        9 * GIB,
        "Free memory on device cuda:0 (9/140 GiB) on startup is less than desired",
    )
    with pytest.raises(PreflightError, match="the plan needs"):
        engine.open()


def test_other_errors_stay_as_they_are(engine: Engine) -> None:
    engine.free, engine.error = 9 * GIB, "not this"
    with pytest.raises(ValueError, match="not this"):
        engine.open()


def test_installed_twice_it_checks_once(engine: Engine) -> None:
    preflight.install(lambda: 0)
    installed = engine.wrapper.init_device
    preflight.install(lambda: 0)
    assert engine.wrapper.init_device is installed


@pytest.mark.parametrize(
    "break_it",
    [
        lambda e, p: p.delenv(preflight.PLAN_VARIABLE),
        lambda e, p: p.setenv(preflight.PLAN_VARIABLE, "/nowhere"),
    ],
)
def test_without_a_plan_nothing_is_checked(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, break_it: Callable[[Engine, pytest.MonkeyPatch], None]
) -> None:
    break_it(engine, monkeypatch)
    engine.free = 0
    assert engine.open() == "opened"


def test_versions_without_the_place_are_left_alone(engine: Engine) -> None:
    del engine.wrapper.init_device
    preflight.install(lambda: 0)
    assert not hasattr(engine.wrapper, "init_device")


# on a CPU


def cgroup(directory: Path, *, limit: str, usage: int) -> list[tuple[str, str]]:
    for name, text in (("max", limit), ("current", str(usage))):
        (directory / name).write_text(text)
    return [(str(directory / "max"), str(directory / "current"))]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (str(8 * GIB), Place(name="the container", free=6 * GIB, total=8 * GIB)),
        ("max", Place(name="the node", free=10 * GIB, total=16 * GIB)),
        (str(2**63 - 4096), Place(name="the node", free=10 * GIB, total=16 * GIB)),  # v1: no limit
    ],
)
def test_what_a_container_may_still_take(tmp_path: Path, limit: str, expected: Place) -> None:
    paths = cgroup(tmp_path, limit=limit, usage=5 * GIB)
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {16 * 2**20} kB\nMemFree: 9 kB\nMemAvailable: {10 * 2**20} kB\n")
    assert container_memory(3 * GIB, paths=paths, meminfo=str(meminfo)) == expected
    assert container_memory(0, paths=paths, meminfo=str(tmp_path / "none")) is None


def test_on_a_cpu_only_weights_and_cache_are_asked_for() -> None:
    assert shortage(ON_CPU, Place(name="the container", free=3 * GIB, total=8 * GIB)) is None
    found = shortage(ON_CPU, Place(name="the container", free=3 * GIB - 1, total=8 * GIB))
    assert found is not None
    assert "(1.00 GiB weights and 2.00 GiB KV cache)" in found
