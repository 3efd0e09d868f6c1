"""Slots of LoRA adapters: the tensors that the engine makes of every matrix, on each rank."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.gpus.inventory import Inventory
from tonnage.models import parse_config
from tonnage.planning.adapters import RANKS, Adapters, slot_bytes
from tonnage.planning.gpu.choose import gpu_question, plan_on_gpus
from tonnage.planning.plan import Demand, Plan, Rejection
from unit.models.samples import published_configs
from unit.planning.gpu.samples import ENGINE, LLAMA_8B, node, pool
from unit.planning.starts import shape_named

MIB = 2**20
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}


def answer_with(adapters: Adapters | None) -> Plan | Rejection:
    return plan_on_gpus(
        gpu_question(
            Demand(context_length=8192),
            model=LLAMA_8B,
            inventory=Inventory(pools=(pool("H100-80GB", node(devices=1)),)),
            engine=ENGINE,
            adapters=adapters,
        )
    )


def with_adapters(adapters: Adapters | None) -> Plan:
    found = answer_with(adapters)
    assert isinstance(found, Plan), found
    return found


@pytest.mark.parametrize(("name", "measured_mib"), [("Qwen/Qwen3-4B", 79.0), ("Qwen/Qwen3-8B", 93.2)])
def test_a_slot_is_what_engines_took_for_it(name: str, measured_mib: float) -> None:
    """C152 and C155 (63 slots took 4.86 GiB); qwen3-8b-lora-8 less qwen3-8b-lora-1 (0.637 GiB for 7)."""
    found = slot_bytes(shape_named(name), rank=16) / MIB
    assert measured_mib - 0.1 < found < 1.09 * measured_mib


def test_joined_matrices_have_factors_of_their_own_and_the_vocabulary_too() -> None:
    """Qwen3-4B: queries, keys, values, output, gate, up, down; 36 layers; token table and head."""
    layer = 3 * 2560 + 6144 + (2560 + 4096) + 2 * 2560 + 2 * 9728 + (2560 + 9728)
    elements = 36 * layer + 2 * (151936 + 2560)
    assert slot_bytes(shape_named("Qwen/Qwen3-4B"), rank=1) == int(1.09 * 2 * elements)


def test_every_expert_has_factors() -> None:
    """Qwen3-30B-A3B: 128 experts of 768 on 48 layers make most of it."""
    experts = 2 * 16 * 48 * 128 * 3 * (2048 + 768)
    assert experts < slot_bytes(shape_named("Qwen/Qwen3-30B-A3B"), rank=16) < 1.2 * experts


def test_ranks_share_one_side_of_each_matrix_only() -> None:
    one, eight = (slot_bytes(shape_named("Qwen/Qwen3-8B"), rank=16, tensor=each) for each in (1, 8))
    assert one / 8 < eight < 0.6 * one


@pytest.mark.parametrize("method", [{}, AWQ, GPTQ])
def test_how_weights_are_stored_is_nothing_to_adapters(method: dict[str, object]) -> None:
    """Qwen3-32B in fp8 with scales of tiles, and packed in words of eight."""
    name = "Qwen--Qwen3-32B-FP8"
    config = published_configs()[f"{name}_config.json"]
    stored = {**config, "quantization_config": method} if method else config
    bare = {key: value for key, value in config.items() if key != "quantization_config"}
    packed, whole = (slot_bytes(parse_config(each), rank=16) for each in (stored, bare))
    assert whole <= packed < 1.05 * whole


@given(rank=st.sampled_from(RANKS), more=st.sampled_from(RANKS), tensor=st.sampled_from([1, 2, 4, 8]))
def test_more_rank_never_takes_less(rank: int, more: int, tensor: int) -> None:
    low, high = sorted((rank, more))
    shape = LLAMA_8B.shape
    assert slot_bytes(shape, rank=low, tensor=tensor) <= slot_bytes(shape, rank=high, tensor=tensor)


def test_a_plan_holds_the_slots_on_the_safe_side_and_says_so() -> None:
    """Eight slots of Llama-3.1-8B and their graphs, out of the KV cache and nothing else."""
    eight = Adapters(slots=8, rank=32, kept=16)
    plain, slotted = with_adapters(None), with_adapters(eight)
    slots = 8 * slot_bytes(LLAMA_8B.shape, rank=32, capability=(9, 0))
    assert slotted.memory.weights - plain.memory.weights == int(1.25 * slots)
    assert slotted.memory.graphs > plain.memory.graphs
    assert slotted.memory.activation == plain.memory.activation
    assert abs(plain.memory.total - slotted.memory.total) < plain.bytes_per_block
    assert slotted.request_bytes - plain.request_bytes == 16 * slot_bytes(LLAMA_8B.shape, rank=32)
    assert "weights with 8 slots of LoRA adapters of rank 32 take" in slotted.reason
    assert "LoRA" not in plain.reason


def test_what_adapters_leave_no_room_for_is_rejected() -> None:
    found = answer_with(Adapters(slots=64, rank=512))
    assert isinstance(found, Rejection)
    assert found.reason == "NotEnoughMemory"


@pytest.mark.parametrize(
    ("adapters", "cases"),
    [
        (Adapters(), 2),
        (Adapters(slots=64), 2),
        # as often as starts with --specialize-active-lora captured: 4.5 times (C164, C165)
        (Adapters(slots=64, by_active=True), 9),
        (Adapters(slots=1, by_active=True), 3),
    ],
)
def test_graphs_are_captured_with_and_without_adapters(adapters: Adapters, cases: int) -> None:
    assert adapters.graph_cases == cases
