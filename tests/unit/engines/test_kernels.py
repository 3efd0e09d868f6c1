"""Which attention kernel a layer gets, and what it packs: one line per rule of vLLM 0.32."""

from __future__ import annotations

from typing import Any

import pytest

from tonnage.engines import Need, NoKernelError, choose_kernel, head_state_bytes


def need(capability: tuple[int, int] = (9, 0), **changes: Any) -> Need:
    sizes = {"head_size": 128, "head_size_v": changes.get("head_size", 128), "kv_dtype": "auto"}
    return Need(capability=capability, **{**sizes, **changes})


@pytest.mark.parametrize(
    ("asked", "name", "smallest"),
    [
        (need((8, 0)), "FLASH_ATTN", 16),
        (need((9, 0)), "FLASH_ATTN", 16),
        (need((10, 0)), "FLASHINFER", 16),
        (need((12, 0)), "FLASH_ATTN", 16),
        (need((7, 5)), "TRITON_ATTN", 16),
        # Head sizes: FlashInfer has four, FlashAttention multiples of 8 up to 256 (512 with version 4).
        (need((10, 0), head_size=96), "FLASH_ATTN", 16),
        (need((9, 0), head_size=512), "FLASH_ATTN", 16),
        (need((8, 0), head_size=512), "FLASHINFER", 16),
        (need((9, 0), head_size=100), "TRITON_ATTN", 16),
        # fp8: FlashAttention 3 on 9.0; FlashInfer elsewhere; e5m2 never on FlashAttention.
        (need((9, 0), kv_dtype="fp8"), "FLASH_ATTN", 16),
        (need((9, 0), kv_dtype="fp8", head_size=512), "FLASH_ATTN", 64),
        (need((8, 0), kv_dtype="fp8"), "FLASHINFER", 16),
        (need((8, 9), kv_dtype="fp8", head_size=96), "TRITON_ATTN", 16),
        (need((8, 0), kv_dtype="int8_per_token_head"), "TRITON_ATTN", 16),
        (need((9, 0), kv_dtype="fp8_e5m2"), "FLASHINFER", 16),
        # Sinks: FlashAttention from 9.0, FlashInfer on 10.x, Triton before.
        (need((9, 0), sinks=True), "FLASH_ATTN", 16),
        (need((10, 0), sinks=True), "FLASHINFER", 16),
        (need((8, 0), sinks=True), "TRITON_ATTN", 16),
        # Packed dtypes have one kernel each.
        (need((9, 0), kv_dtype="int4_per_token_head"), "TRITON_ATTN", 16),
        (need((10, 0), kv_dtype="nvfp4"), "FLASHINFER", 16),
        (need((9, 0), kv_dtype="nvfp4"), "FLASHINFER", 16),
        (need((9, 0), kv_dtype="turboquant_4bit_nc"), "TURBOQUANT", 16),
        # Images that attend both ways.
        (need((9, 0), head_size=256, bidirectional_images=True), "TRITON_FLASH_ATTN", 16),
        (need((10, 0), head_size=256, bidirectional_images=True), "TRITON_FLASHINFER", 64),
        (need((8, 0), head_size=256, bidirectional_images=True), "TRITON_ATTN", 16),
        # Values of another size than keys.
        (need((9, 0), head_size=192, head_size_v=128), "FLASH_ATTN_DIFFKV", 16),
        (need((8, 0), head_size=192, head_size_v=128), "TRITON_ATTN_DIFFKV", 16),
        # Latent attention.
        (need((9, 0), latent=True, head_size=576), "FLASH_ATTN_MLA", 16),
        (need((9, 0), latent=True, head_size=576, kv_dtype="fp8"), "TRITON_MLA", 16),
        (need((10, 0), latent=True, head_size=576), "FLASHINFER_MLA", 32),
        (need((8, 0), latent=True, head_size=576), "TRITON_MLA", 16),
        (need((9, 0), latent=True, sparse=True, head_size=576), "FLASH_ATTN_MLA_SPARSE", 64),
        (need((9, 0), latent=True, sparse=True, head_size=576, kv_dtype="fp8"), "FLASHMLA_SPARSE", 64),
        (need((10, 0), latent=True, sparse=True, head_size=576, query_heads=16), "FLASHINFER_MLA_SPARSE", 32),
        (need((10, 0), latent=True, sparse=True, head_size=576, query_heads=32), "FLASHMLA_SPARSE", 64),
    ],
)
def test_choice(asked: Need, name: str, smallest: int) -> None:
    found = choose_kernel(asked)
    assert (found.name, found.smallest_block) == (name, smallest)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (need((9, 0), head_size=16, kv_dtype="fp8_e5m2"), "head size 16"),
        (need((8, 0), latent=True, sparse=True, head_size=576), "compute capability 8"),
        (need((9, 0), block_tokens=24), "not in blocks of 24"),
        (need((8, 0), kv_dtype="fp8", head_size=96), "needs compute capability 8.9"),
        (need((8, 0), kv_dtype="fp8", latent=True, head_size=576), "needs compute capability 8.9"),
        (need((9, 0), kv_dtype="turboquant_3bit_nc", sinks=True), "sinks"),
    ],
)
def test_no_kernel_says_why(asked: Need, says: str) -> None:
    with pytest.raises(NoKernelError) as caught:
        choose_kernel(asked)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("kv_dtype", "kernel", "state"),
    [
        ("auto", "FLASH_ATTN", 512),
        ("fp8", "FLASH_ATTN", 256),
        ("int8_per_token_head", "TRITON_ATTN", 264),
        ("int4_per_token_head", "TRITON_ATTN", 136),
        ("nvfp4", "FLASHINFER", 144),
        ("turboquant_k8v4", "TURBOQUANT", 196),
        ("turboquant_4bit_nc", "TURBOQUANT", 134),
        ("turboquant_k3v4_nc", "TURBOQUANT", 118),
        ("turboquant_3bit_nc", "TURBOQUANT", 102),
        # CPU nodes store single bytes whatever the dtype.
        ("turboquant_4bit_nc", "CPU_ATTN", 256),
    ],
)
def test_bytes_of_one_head_of_128(kv_dtype: str, kernel: str, state: int) -> None:
    found = head_state_bytes(kv_dtype, kernel=kernel, head_size=128, head_size_v=128, model_bytes=2)
    assert found == state
