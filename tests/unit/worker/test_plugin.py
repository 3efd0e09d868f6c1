"""The plug-in that makes page cache count as available memory."""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from tonnage_worker import plugin

ROOT = Path(__file__).parents[3]
V2 = "anon 1000\nfile 900\nshmem 100\ninactive_anon 700\nactive_file 300\ninactive_file 500\nunevictable 0\n"
V1 = "cache 900\nrss 1000\nactive_file 1\ninactive_file 2\ntotal_active_file 300\ntotal_inactive_file 500\n"


@pytest.mark.parametrize(("text", "reclaimable"), [(V2, 800), (V1, 800), ("", 0), ("garbage", 0)])
def test_page_cache_of_the_container(tmp_path: Path, text: str, reclaimable: int) -> None:
    path = tmp_path / "memory.stat"
    path.write_text(text)
    assert plugin.reclaimable_bytes([str(path)]) == reclaimable


def test_no_cgroup(tmp_path: Path) -> None:
    assert plugin.reclaimable_bytes([str(tmp_path / "none")]) == 0


@pytest.fixture
def engine_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Stands for vLLM's module; the names are those of 0.32.0."""
    module = ModuleType("vllm.utils.cpu_resource_utils")
    module.get_cgroup_memory_usage = lambda: 1000  # type: ignore[attr-defined]
    for name in ("vllm", "vllm.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize(("reclaimable", "usage"), [(0, 1000), (800, 200), (5000, 0)])
def test_usage_without_page_cache(
    engine_module: ModuleType, monkeypatch: pytest.MonkeyPatch, reclaimable: int, usage: int
) -> None:
    monkeypatch.setattr(plugin, "reclaimable_bytes", lambda: reclaimable)
    plugin.register()
    plugin.register()  # a second call must not subtract twice
    assert engine_module.get_cgroup_memory_usage() == usage


def test_an_unknown_usage_stays_unknown(engine_module: ModuleType) -> None:
    engine_module.get_cgroup_memory_usage = lambda: None  # type: ignore[attr-defined]
    plugin.register()
    assert engine_module.get_cgroup_memory_usage() is None


def test_versions_without_the_function_are_left_alone(engine_module: ModuleType) -> None:
    del engine_module.get_cgroup_memory_usage
    plugin.register()
    assert not hasattr(engine_module, "get_cgroup_memory_usage")


def test_without_vllm_it_does_nothing() -> None:
    assert "vllm" not in sys.modules
    plugin.register()


def test_the_package_announces_it_to_vllm() -> None:
    project = tomllib.loads((ROOT / "worker/pyproject.toml").read_text(encoding="utf-8"))["project"]
    (value,) = project["entry-points"]["vllm.general_plugins"].values()
    point = EntryPoint(name="tonnage", value=value, group="vllm.general_plugins")
    assert point.load() is plugin.register
