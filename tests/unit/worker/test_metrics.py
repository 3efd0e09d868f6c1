"""The joined metrics page stays valid whatever the engine's page looks like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tonnage_worker.metrics import page
from tonnage_worker.status import Status
from unit.worker.test_status import PLAN, PLANNED, READY, STARTING

ENGINE_PAGE = (Path(__file__).parent / "data" / "metrics_vllm_0.32.0.txt").read_text(encoding="utf-8")


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample once; fails where a family or a sample comes twice."""
    found = {}
    names = set()
    for family in text_string_to_metric_families(text):
        assert family.name not in names
        names.add(family.name)
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def test_a_verified_worker_beside_a_real_engine_page() -> None:
    found = samples(page(READY, engine_page=ENGINE_PAGE))
    expected = {
        ("tonnage_planned_kv_blocks", ()): 182,
        ("tonnage_planned_kv_tokens", ()): 5824,
        ("tonnage_planned_kv_concurrency", ()): 2.84375,
        ("tonnage_observed_kv_blocks", (("engine", "0"),)): 182,
        ("tonnage_observed_kv_tokens", (("engine", "0"),)): 5824,
        ("tonnage_observed_kv_concurrency", (("engine", "0"),)): 2.84375,
        ("tonnage_capacity_verified", ()): 1,
        ("tonnage_worker_draining", ()): 0,
        ("tonnage_engine_up", ()): 1,
        ("tonnage_engine_start_seconds", ()): pytest.approx(31.2),
        ("tonnage_worker_state", (("state", "Verified"),)): 1,
        ("tonnage_worker_state", (("state", "Starting"),)): 0,
    }
    assert {key: found[key] for key in expected} == expected
    info = next(key for key in found if key[0] == "tonnage_plan_info")
    assert dict(info[1]) == {
        "hash": "h",
        "engine_version": "0.32.0",
        "verification": "Strict",
        "kv_dtype": "auto",
        "block_size": "32",
    }
    engine = samples(ENGINE_PAGE)
    assert engine.items() <= found.items()
    assert len(engine) > 20


def test_while_starting_there_is_no_observed_capacity_and_no_start_time() -> None:
    names = {name for name, _ in samples(page(STARTING, engine_page=None))}
    assert "tonnage_engine_start_seconds" not in names
    assert "tonnage_observed_kv_blocks" not in names
    assert samples(page(STARTING, engine_page=None))["tonnage_engine_up", ()] == 0


def test_every_data_parallel_engine_has_its_series() -> None:
    status = replace(READY, observed={"0": PLANNED, "1": replace(PLANNED, blocks=7, tokens=None)})
    found = samples(page(status, engine_page=None))
    assert found["tonnage_observed_kv_blocks", (("engine", "1"),)] == 7
    assert ("tonnage_observed_kv_tokens", (("engine", "1"),)) not in found


@pytest.mark.parametrize(
    "engine_page",
    ["a 1", "a 1\n# EOF\n", "# TYPE tonnage_capacity_verified gauge\ntonnage_capacity_verified 7\na 1\n"],
    ids=["no newline at the end", "OpenMetrics end mark", "series of ours"],
)
def test_pages_that_would_clash(engine_page: str) -> None:
    text = page(READY, engine_page=engine_page)
    found = samples(text)
    assert (found["a", ()], found["tonnage_capacity_verified", ()]) == (1, 1)
    assert "# EOF" not in text


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_in_a_label_is_escaped(hash_: str, version: str) -> None:
    status: Status = replace(STARTING, plan=replace(PLAN, hash=hash_, engine_version=version))
    info = next(key for key in samples(page(status, engine_page=None)) if key[0] == "tonnage_plan_info")
    assert (dict(info[1])["hash"], dict(info[1])["engine_version"]) == (hash_, version)
