"""The bytes of a GPU by purpose: never less than any real start took, and the laws they follow."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.engines.overheads import memory_rules_for
from tonnage.models import parse_config
from tonnage.planning.adapters import Adapters
from tonnage.planning.budget import Budget, budget, share_of
from tonnage.planning.fit import Device, EngineOptions, lay_out
from tonnage.planning.graphs import captured_sizes
from tonnage.planning.load import load_of
from tonnage.planning.term import GIB, MIB, Term
from tonnage.planning.weights import stored_in_fp8, weight_bytes
from unit.models.samples import published_configs
from unit.planning.starts import shape_named

LLAMA = parse_config(published_configs()["meta-llama--Meta-Llama-3.1-8B_config.json"])


def of(
    *,
    tensor: int = 1,
    pipeline: int = 1,
    sequences: int = 64,
    tokens: int = 2048,
    graphs: bool = True,
    capability: tuple[int, int] = (9, 0),
    second: bool | None = None,
    version: str = "0.32.0",
) -> Budget:
    options = EngineOptions(
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        context_tokens=32768,
        max_num_seqs=sequences,
        max_num_batched_tokens=tokens,
    )
    laid = lay_out(LLAMA, device=Device(compute_capability=capability), options=options)
    weights = weight_bytes(
        LLAMA,
        dtype="bfloat16",
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        capability=capability,
    )
    load = load_of(
        laid,
        weights=max(weights),
        graph_sizes=captured_sizes(sequences=sequences, tokens=tokens) if graphs else (),
        rules=memory_rules_for(version),
        second_runner=second,
    )
    return budget(load, total_bytes=80 * GIB)


def test_llama_8b_on_one_h100_by_hand() -> None:
    """2048 tokens, 64 sequences, eager, the second runner of today: 2 x 2048 x (3 x 14336 + 3 x 4096) and the
    matrix products' workspace; 2 bytes of each logit of 128,256 tokens are profiled, 14.07 are needed. Beside
    the tensors stands one table of 131,072 positions."""
    found = of(sequences=64, tokens=2048, graphs=False)
    logits, vector = 64 * 128256, 2 * 2048 * 4096
    forward = 2 * 2048 * (3 * 14336 + 3 * 4096) + 32 * MIB
    sampler = int(14.07 * logits) + vector + 115 * MIB
    assert found.activation.likely == max(forward, 2 * logits + vector + 42 * MIB) == forward
    assert found.activation.upper == int(1.1 * forward + 2 * vector + 64 * MIB)
    assert abs(found.burst_margin.likely - (sampler + logits * 33 // 8)) <= 2
    tables = 131_072 * 128 * 2
    assert found.weights.likely == 16_060_522_496 + tables + 16 * MIB
    assert found.graphs.upper == found.graphs_within.upper == 0
    assert found.kv_bytes == 80 * GIB - found.other_bytes
    memory = found.memory(kv_bytes=found.kv_bytes)
    assert memory.total == 80 * GIB


def test_what_a_measuring_engine_leaves_by_hand() -> None:
    """The same start at 0.9: weights, non-torch memory and what is profiled count, context and bursts do
    not."""
    found = of(sequences=64, tokens=2048, graphs=False)
    left = found.measured_kv(utilization=0.9)
    counted = found.weights.likely + found.non_torch.likely + found.activation.likely
    assert left.likely == int(0.9 * found.total_bytes) - counted
    assert left.lower < left.likely < left.upper
    outside = found.outside(utilization=0.9, bursts=True)
    beyond = found.total_bytes - int(0.9 * found.total_bytes)
    assert outside.likely == beyond - found.context.likely - found.burst_margin.likely


def test_graphs_count_within_the_share_on_the_first_runner_of_today_alone() -> None:
    sizes = {"sequences": 64, "tokens": 2048}
    assert of(**sizes, second=False, version="0.26.0").graphs_within.likely > 0
    assert of(**sizes, second=False, version="0.19.0").graphs_within.likely == 0
    assert of(**sizes, second=True, version="0.26.0").graphs_within.likely == 0
    assert of(**sizes, second=True).graphs.likely == of(**sizes, second=False).graphs.likely > 0


def test_the_sampler_is_paid_for_whether_it_was_profiled_or_not() -> None:
    """The second runner's profile finds less, and bursts so much more: not a byte more is left for the
    cache."""
    first, second = (of(sequences=1024, graphs=False, second=each) for each in (False, True))
    assert second.activation.likely < first.activation.likely - GIB
    assert second.warm_up.likely > first.warm_up.likely + GIB
    assert second.kv_bytes <= first.kv_bytes


def test_every_term_says_where_it_is_from() -> None:
    found = of()
    for name in ("context", "non_torch", "weights", "activation", "graphs", "burst_margin", "warm_up"):
        each = getattr(found, name)
        assert each.source
        assert each.lower <= each.likely <= each.upper


def test_a_term_whose_bounds_do_not_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="does not hold"):
        Term(2, 1, 3, "a mistake")


def test_adapters_take_their_slots() -> None:
    """C155 less C152: 63 slots of Qwen3-4B at rank 16 took 4.86 GiB."""
    shape = shape_named("Qwen/Qwen3-4B")
    laid = lay_out(
        shape, device=Device(compute_capability=(8, 9)), options=EngineOptions(context_tokens=8192)
    )
    load = load_of(laid, weights=8 * GIB, adapters=Adapters(slots=63))
    plain, slotted = (
        budget(replace(load, adapters=None), total_bytes=24 * GIB),
        budget(load, total_bytes=24 * GIB),
    )
    assert abs(slotted.weights.likely - plain.weights.likely - 4.86 * GIB) < 0.05 * GIB
    assert slotted.weights.upper - plain.weights.upper > 4.86 * GIB


def test_a_start_that_compiles_holds_more_for_a_while() -> None:
    """fill-8b-control and fill-8b-pinned: 1316 and 800 MiB; a plan's bytes are those of the worse."""
    shape = parse_config(published_configs()["Qwen--Qwen3-8B_config.json"])
    options = EngineOptions(context_tokens=4096, max_num_seqs=256, max_num_batched_tokens=8192)
    laid = lay_out(shape, device=Device(compute_capability=(9, 0)), options=options, engine_version="0.26.0")
    sizes = captured_sizes(sequences=256, tokens=8192)
    load = load_of(laid, weights=16 * GIB, graph_sizes=sizes)
    cold, warm = (budget(replace(load, cold=each), total_bytes=80 * GIB) for each in (True, False))
    assert (cold.profile.likely, warm.profile.likely) == (1316 * MIB, 800 * MIB)
    assert cold.activation == warm.activation
    assert cold.kv_bytes == warm.kv_bytes
    assert cold.measured_kv(utilization=0.9).lower == warm.measured_kv(utilization=0.9).lower


def test_ranks_share_weights_and_pay_for_their_links() -> None:
    one, two, bridged = of(), of(tensor=2), of(tensor=2, capability=(8, 9))
    assert two.weights.likely < 0.52 * one.weights.likely
    assert two.context.upper > one.context.upper
    assert two.non_torch.upper > bridged.non_torch.upper > one.non_torch.upper


def test_stages_pay_for_their_links_too() -> None:
    """A rank that only passes activations on has a communicator all the same."""
    for capability in ((9, 0), (8, 9)):
        stages, ranks = of(pipeline=2, capability=capability), of(tensor=2, capability=capability)
        assert stages.context == ranks.context
        assert stages.non_torch.upper == ranks.non_torch.upper


def test_a_shared_device_gives_each_client_its_part() -> None:
    assert share_of(24 * GIB, clients=4) == 6 * GIB


def test_fp8_weights_leave_embeddings_and_narrow_tensors() -> None:
    """C019: 8.49 GiB were loaded."""
    found = weight_bytes(stored_in_fp8(LLAMA), dtype="bfloat16")[0]
    outside = 2 * 128256 * 4096 * 2
    norms = (2 * 32 + 1) * 4096 * 2
    assert found == (16_060_522_496 - outside - norms) // 2 + outside + norms
    assert abs(found / GIB - 8.49) < 0.04


@given(
    sequences=st.integers(1, 1024),
    more_sequences=st.integers(0, 512),
    tokens=st.integers(512, 8192),
    more_tokens=st.integers(0, 8192),
    graphs=st.booleans(),
    more_graphs=st.booleans(),
    tensor=st.sampled_from([1, 2, 4, 8]),
    second=st.booleans(),
)
def test_more_work_never_leaves_more(
    sequences: int,
    more_sequences: int,
    tokens: int,
    more_tokens: int,
    graphs: bool,
    more_graphs: bool,
    tensor: int,
    second: bool,
) -> None:
    less = of(sequences=sequences, tokens=tokens, graphs=graphs, tensor=tensor, second=second)
    more = of(
        sequences=sequences + more_sequences,
        tokens=tokens + more_tokens,
        graphs=graphs or more_graphs,
        tensor=tensor,
        second=second,
    )
    assert more.kv_bytes <= less.kv_bytes
    # Compiled code needs a vector less than eager code does, and the second runner counts no graphs within
    # its share: an engine that measures may then leave more with graphs (fill-8b-control-warm, qwen3-8b).
    if graphs or not more_graphs:
        for share in (0.5, 0.9):
            assert more.measured_kv(utilization=share).lower <= less.measured_kv(utilization=share).lower
    activation, burst = more.activation, more.burst_margin
    assert activation.likely + burst.likely <= activation.upper + burst.upper
    assert more.warm_up.likely <= more.burst_margin.likely


def test_latent_attention_keeps_its_up_projections_once_more() -> None:
    """DeepSeek-V3 on eight ranks: 61 layers, 16 heads each, 512 latent elements into keys and values of
    128."""
    shape = parse_config(published_configs()["deepseek-ai--DeepSeek-V3_config.json"])
    options = EngineOptions(
        tensor_parallel=8, context_tokens=8192, max_num_seqs=8, max_num_batched_tokens=512
    )
    laid = lay_out(shape, device=Device(compute_capability=(9, 0)), options=options)
    found = budget(load_of(laid, weights=80 * GIB), total_bytes=140 * GIB)
    slack = 80 * GIB // 500 + 2**27
    assert found.weights.upper >= 80 * GIB + slack + 61 * 16 * 512 * (128 + 128) * 2


def test_cpu_nodes_have_no_budget() -> None:
    laid = lay_out(LLAMA, device=Device(compute_capability=None), options=EngineOptions(context_tokens=2048))
    with pytest.raises(ValueError, match="GPUs"):
        budget(load_of(laid, weights=1), total_bytes=1)
    assert replace(of(), total_bytes=0).kv_bytes < 0
