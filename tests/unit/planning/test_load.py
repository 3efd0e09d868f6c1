"""The widths of a start's tensors, by hand."""

from __future__ import annotations

import pytest

from tonnage.planning.fit import Device, EngineOptions, lay_out
from tonnage.planning.load import Load, load_of
from unit.planning.starts import shape_named


def of(name: str, *, tensor: int = 1) -> Load:
    options = EngineOptions(
        tensor_parallel=tensor, context_tokens=1024, max_num_seqs=64, max_num_batched_tokens=512
    )
    laid = lay_out(shape_named(name), device=Device(compute_capability=(9, 0)), options=options)
    return load_of(laid, weights=1, graph_sizes=(1, 8, 64, 128))


@pytest.mark.parametrize(
    ("name", "tensor", "wide"),
    [
        ("Qwen/Qwen3-8B", 1, 3 * 12288),
        ("Qwen/Qwen3-8B", 4, 3 * 12288 // 4),
        ("bigcode/starcoder2-7b", 1, 2 * 18432),
        ("openai-community/gpt2", 1, 2 * 4 * 768),
        ("Qwen/Qwen3-30B-A3B", 1, 1.5 * (32 + 4 + 4) * 128),
    ],
)
def test_what_a_token_holds_on_its_way_through_the_widest_matrix(name: str, tensor: int, wide: float) -> None:
    assert of(name, tensor=tensor).wide_elements == wide


@pytest.mark.parametrize(
    ("name", "tensor", "widths", "each"),
    [
        ("Qwen/Qwen3-30B-A3B", 1, (2048, 2048), 8),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", 1, (2 * 1408, 2048), 6),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", 2, (2048, 2048), 6),
        ("Qwen/Qwen1.5-MoE-A2.7B-Chat", 1, (2 * 1408, 2048), 4),
        ("Qwen/Qwen3-8B", 1, (0, 0), 0),
    ],
)
def test_routed_experts(name: str, tensor: int, widths: tuple[int, int], each: int) -> None:
    load = of(name, tensor=tensor)
    assert (load.expert_widths, load.experts_per_token) == (widths, each)
    assert load.packed_experts is False


def test_experts_in_four_bits() -> None:
    assert of("openai/gpt-oss-20b").packed_experts


def test_whole_decode_graphs_are_those_up_to_the_sequences() -> None:
    assert of("Qwen/Qwen3-8B").full_graphs == 3
