"""Weight bytes that follow from the card, by cases computed by hand; tests/unit/planning/test_oracle.py has
the engine's own figures."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from tonnage.models import parse_config
from tonnage.planning.weights import IndivisibleError, stored_in_fp8, weight_bytes
from unit.models.samples import llama_config
from unit.planning.gpu.samples import model


@pytest.mark.parametrize(
    ("renormalized", "capability", "padded"),
    [
        # 1,408 columns over 4 ranks are 352, and 384 in multiples of 128, in each of 3 matrices.
        (True, (10, 0), 4 * 8 * 3 * 512 * (384 - 352) * 2),
        (True, (9, 0), 0),
        (True, None, 0),
        # Blackwell's kernel renormalizes the weights of the chosen experts; others keep their width.
        (False, (10, 0), 0),
    ],
)
def test_blackwell_pads_plain_experts_that_its_kernel_runs(
    renormalized: bool, capability: tuple[int, int] | None, padded: int
) -> None:
    config = llama_config(
        architectures=["Qwen2MoeForCausalLM"],
        model_type="qwen2_moe",
        num_experts=8,
        moe_intermediate_size=1408,
        shared_expert_intermediate_size=1024,
        norm_topk_prob=renormalized,
    )
    shape = parse_config(config)
    plain = weight_bytes(shape, dtype="bfloat16", tensor_parallel=4, capability=(8, 0))
    held = weight_bytes(shape, dtype="bfloat16", tensor_parallel=4, capability=capability)
    assert held[0] - plain[0] == padded


@pytest.mark.parametrize(("capability", "refused"), [((8, 0), True), ((8, 9), False), ((9, 0), False)])
def test_cards_without_fp8_take_whole_tiles_of_experts(capability: tuple[int, int], refused: bool) -> None:
    """1536 over 8 ranks are one and a half tiles of 128: the engine refuses that on an A100 ("No FP8 MoE
    backend supports the deployment configuration"), over 4 ranks it takes it."""
    shape = model("Qwen--Qwen3-235B-A22B-FP8").shape
    weight_bytes(shape, dtype="bfloat16", tensor_parallel=4, capability=capability)
    refusal = pytest.raises(IndivisibleError, match="whole tiles") if refused else nullcontext()
    with refusal:
        weight_bytes(shape, dtype="bfloat16", tensor_parallel=8, capability=capability)


def test_mixers_of_mamba_1_stay_as_shipped_where_weights_are_stored_in_fp8() -> None:
    """Jamba's defaults: the engine makes 55,064,485,632 bytes of it, of which seven of eight layers' mixers
    stay in two bytes each."""
    shape = stored_in_fp8(model("tfdefault--jamba").shape)
    stored = weight_bytes(shape, dtype="bfloat16", capability=(8, 9))[0]
    assert 0 <= stored - 55_064_485_632 < 55_064_485_632 // 500
