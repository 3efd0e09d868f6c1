"""CUDA graphs: which batch sizes are captured, and what they take of a device."""

from __future__ import annotations

from typing import Final

from tonnage.planning.load import Load
from tonnage.planning.term import MIB, Term, nothing, term

_FINE_SIZES: Final = (1, 2, 4)
_MOST_CAPTURED: Final = 512
_MOST_CAPTURED_BLACKWELL: Final = 1024
_SPLITS: Final = 32
_ACCUMULATOR_BYTES: Final = 4
_HEAD_OF_LATENT: Final = 512


def captured_sizes(
    *, sequences: int, tokens: int, capability: tuple[int, int] | None = None
) -> tuple[int, ...]:
    """The engine's own list (vllm/config/vllm.py 0.32 `_set_cudagraph_sizes`): 1, 2, 4, multiples of 8 below
    256, of 16 up to twice the sequences or 512 (1024 on Blackwell), no more than the tokens of a step."""
    most = _MOST_CAPTURED_BLACKWELL if capability and capability[0] == 10 else _MOST_CAPTURED
    top = min(2 * sequences, most, tokens)
    found = {*_FINE_SIZES, *range(8, 256, 8), *range(256, top + 1, 16), sequences}
    return tuple(sorted(size for size in found if size <= top))


def graphs(load: Load) -> Term:
    """What captured graphs take: their nodes, by layers and whole decode graphs, and what attention splits of
    the largest one accumulate in, in float32 (vllm/v1/attention/backends/flash_attn.py:
    `flash_attn_max_num_splits_for_cuda_graph` 32).

    Dense: within 0.1 GiB in qwen3-8b-graph, qwen3-8b-press-bf16 and 22 of 25 starts of 0.19 (C001 to C062).
    With adapters every graph is captured twice: 1.28 GiB of Qwen3-4B, 1.11 by this law (C152 to C161).
    Routed experts add 0.25, once 0.5 GiB; latent attention 0.5 to 0.7 (C002, C039). A hybrid of 64 layers
    took 0.46 for a single size (C112), which the upper figure leaves room for.
    """
    if not load.graph_sizes:
        return nothing("eager")
    nodes = 0.4 * MIB * load.layers * load.full_graphs * load.graph_cases
    likely = nodes + _accumulators(load)
    if load.expert_widths[0]:
        likely += 0.25 * nodes + 64 * MIB
    return term(
        likely, lower=0.6 * likely, upper=1.35 * likely + 448 * MIB, source="H200, 0.26, and H100, 0.19"
    )


def estimated_graphs(load: Load) -> Term:
    """What the engine itself subtracts for graphs from the KV cache when it measures: an extrapolation of the
    first two of each kind (v1/worker/gpu_model_runner.py 0.26 `profile_cudagraph_memory`), 0 on the second
    runner and before 0.21.

    0.12 MiB for each layer and graph, partial ones included: 0.36, 0.49 and 0.53 GiB in qwen3-8b-v1-graph,
    qwen3-30b-a3b-graph, gpt-oss-20b-graph.
    """
    if not load.graph_sizes or load.second_runner or not load.rules.graphs_within:
        return nothing("not counted within the utilization")
    count = (len(load.graph_sizes) + load.full_graphs) * load.graph_cases
    likely = (0.14 if load.expert_widths[0] else 0.118) * MIB * load.layers * count
    return term(likely, lower=0.5 * likely, upper=1.6 * likely + 128 * MIB, source="three starts on an H200")


def _accumulators(load: Load) -> int:
    shape = load.shape
    largest = max((size for size in load.graph_sizes if size <= load.sequences), default=0)
    heads = -(-shape.num_attention_heads // load.tensor)
    size = _HEAD_OF_LATENT if shape.latent else shape.head_size
    return _SPLITS * largest * heads * size * _ACCUMULATOR_BYTES
