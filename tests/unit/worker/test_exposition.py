"""Reading an engine's metrics page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tonnage_worker.exposition import read_page
from tonnage_worker.plan import Capacity

PAGE = (Path(__file__).parent / "data" / "metrics_vllm_0.32.0.txt").read_text(encoding="utf-8")


def test_a_real_page() -> None:
    page = read_page(PAGE)
    assert page.capacities == {
        "0": Capacity(blocks=364, tokens=11648, concurrency=5.6875, block_size=32, kv_dtype="fp8")
    }
    assert page.kv_usage == 0.0
    assert page.requests == 0


def test_data_parallel_engines_are_told_apart_and_summed() -> None:
    page = read_page(
        """
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="1",model_name="m"} 5.0
vllm:num_requests_waiting_by_reason{engine="1",model_name="m",reason="capacity"} 5.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="10"} 1.0
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="1",num_gpu_blocks="11"} 1.0
"""
    )
    assert {engine: figures.blocks for engine, figures in page.capacities.items()} == {"0": 10, "1": 11}
    assert (page.requests, page.kv_usage) == (12, 0.75)


def test_an_older_page_without_engine_label_tokens_and_concurrency() -> None:
    page = read_page(
        'vllm:cache_config_info{block_size="16",cache_dtype="auto",num_gpu_blocks="7162"} 1.0\n'
        'vllm:gpu_cache_usage_perc{model_name="m"} 0.5\n'
    )
    assert page.capacities == {
        "0": Capacity(blocks=7162, tokens=None, concurrency=None, block_size=16, kv_dtype="auto")
    }
    assert page.kv_usage == 0.5
    assert page.requests is None


def test_labels_that_read_none_are_not_reported() -> None:
    page = read_page(
        'vllm:cache_config_info{block_size="None",engine="0",kv_cache_max_concurrency="None",'
        'kv_cache_size_tokens="None",num_gpu_blocks="None"} 1.0\n'
    )
    assert page.capacities == {
        "0": Capacity(blocks=None, tokens=None, concurrency=None, block_size=None, kv_dtype=None)
    }


def test_a_page_without_anything() -> None:
    page = read_page("")
    assert (page.capacities, page.kv_usage, page.requests) == ({}, None, None)


def test_other_lines_may_be_broken_but_a_needed_one_may_not() -> None:
    assert read_page("nonsense{{{\n" + PAGE).capacities
    with pytest.raises(ValueError):
        read_page('vllm:cache_config_info{engine="0" 1.0\n')
