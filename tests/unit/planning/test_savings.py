"""What architectures save, with published models and by hand, and what-if changes."""

from __future__ import annotations

from typing import Any

import pytest

from tonnage.models import ModelShape, parse_config
from tonnage.planning.savings import WhatIfError, savings, what_if
from unit.models.samples import llama_config, published_configs

LLAMA2_70B = llama_config(
    hidden_size=8192,
    intermediate_size=28672,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
    vocab_size=32000,
)


def shape(config: dict[str, Any]) -> ModelShape:
    return parse_config(config)


def test_gqa_of_llama2_70b() -> None:
    """80 layers, 8 of 64 heads: 327,680 bytes per token against 2,621,440, eight times less."""
    found = savings(shape(LLAMA2_70B), dtype="bfloat16")
    assert found.bytes_per_token == 2 * 80 * 8 * 2 * 128
    assert found.plain_bytes_per_token == 2 * 80 * 64 * 2 * 128
    assert found.factor == 8
    assert found.context_bytes == 4096 * found.bytes_per_token
    assert found.techniques == ("GQA: 8 KV heads for 64 heads",)


def test_fp8_halves_both_sides() -> None:
    found = savings(shape(LLAMA2_70B), dtype="bfloat16", kv_dtype="fp8")
    assert (found.bytes_per_token, found.factor) == (80 * 8 * 2 * 128, 8)


def test_mla_of_deepseek_v3() -> None:
    """61 vectors of 576 elements against 128 heads of 128 + 64 + 128."""
    found = savings(shape(published_configs()["deepseek-ai--DeepSeek-V3_config.json"]), dtype="bfloat16")
    assert found.bytes_per_token == 2 * 61 * 576
    assert found.plain_bytes_per_token == 2 * 61 * 128 * 320
    assert found.techniques[0] == "MLA: one vector of 576 for 128 heads"


def test_windows_save_only_beyond_their_length() -> None:
    config = llama_config(sliding_window=512, layer_types=["sliding_attention", "full_attention"] * 2)
    token = 2 * 2 * 2 * 64
    short, long = (savings(shape(config), dtype="bfloat16", context_tokens=length) for length in (512, 4096))
    assert short.context_bytes == 4 * token * 512
    assert long.context_bytes == 2 * token * 512 + 2 * token * 4096
    assert "2 of 4 layers forget all but the last 512 tokens" in long.techniques


def test_a_state_does_not_grow() -> None:
    config = published_configs()["tfdefault--mamba2_config.json"]
    one, more = (savings(shape(config), dtype="bfloat16", context_tokens=length) for length in (1, 10**6))
    assert one.bytes_per_token == 0
    assert one.context_bytes == more.context_bytes > 0


@pytest.mark.parametrize(
    ("change", "bytes_per_token"),
    [
        ("kv_heads=1", 2 * 4 * 1 * 128),
        ("kv_heads=8", 2 * 4 * 8 * 128),
        ("window=1024", 2 * 4 * 2 * 128),
        ("mla=512+64", 2 * 4 * 576),
        ("kv_heads=1, window=64", 2 * 4 * 1 * 128),
    ],
)
def test_what_if(change: str, bytes_per_token: int) -> None:
    changed = what_if(shape(llama_config()), change)
    assert savings(changed, dtype="bfloat16").bytes_per_token == bytes_per_token
    assert not changed.weights_known


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("", "kv_heads=N"),
        ("kv_heads", "not a number"),
        ("kv_heads=3", "does not divide the 8"),
        ("kv_heads=2", "no layer"),
        ("kv_heads=99999999", "not a number"),
        ("window=0", "between 1"),
        ("mla=512", "512+64"),
        ("mla=0+0", "between 1"),
        ("heads=4", "not one of"),
        ("mla=512+64,kv_heads=1", "latent attention"),
        ("mla=512+64,window=9", "latent attention"),
    ],
)
def test_what_cannot_be_changed_is_refused(change: str, says: str) -> None:
    with pytest.raises(WhatIfError) as caught:
        what_if(shape(llama_config()), change)
    assert says in str(caught.value)
