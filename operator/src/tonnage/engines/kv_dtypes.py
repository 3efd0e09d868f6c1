"""KV dtypes: what one stored state of a head takes, by the kernel that packs it.

Read in vLLM 0.32: config/cache.py `CacheDType`, each backend's `customize_spec`,
model_executor/layers/quantization/turboquant/config.py, utils/torch_utils.py `STR_DTYPE_TO_TORCH_DTYPE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KV_ELEMENT_BYTES: Final[Mapping[str, int]] = {
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}
"""Bytes of one stored KV element by KV dtype name; "auto" is absent (the model's own dtype), and so are
packed dtypes, whose bytes depend on the kernel."""

PLAIN_KV_DTYPES: Final = frozenset({"auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"})

PACKED_KV_DTYPES: Final = frozenset(
    {
        "int8_per_token_head",
        "fp8_per_token_head",
        "int4_per_token_head",
        "nvfp4",
        "nvfp4_4over6",
        "turboquant_k8v4",
        "turboquant_4bit_nc",
        "turboquant_k3v4_nc",
        "turboquant_3bit_nc",
    }
)

KV_DTYPES: Final = PLAIN_KV_DTYPES | PACKED_KV_DTYPES | {"fp8_ds_mla"}
"""All that can be asked for here; the engine knows some more, for other hardware."""

LATENT_STATE_BYTES: Final[Mapping[str, int]] = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}
"""Bytes of one latent state in DeepSeek's own packed layouts (mla_attention.py `get_kv_cache_spec`)."""

_SCALE_BYTES: Final = 4
_TURBOQUANT_BITS: Final = {
    "turboquant_k8v4": (8, 4),
    "turboquant_4bit_nc": (4, 4),
    "turboquant_k3v4_nc": (3, 4),
    "turboquant_3bit_nc": (3, 3),
}


def is_quantized(kv_dtype: str) -> bool:
    """Whether states are stored in fewer bits than the model computes with."""
    return kv_dtype not in {"auto", "float16", "bfloat16", "float32"}


def element_bytes(kv_dtype: str, *, model_bytes: int) -> int:
    """Bytes of one stored element before any packing; packed dtypes count single bytes."""
    if kv_dtype == "auto":
        return model_bytes
    return KV_ELEMENT_BYTES.get(kv_dtype, 1)


def head_state_bytes(
    kv_dtype: str, *, kernel: str, head_size: int, head_size_v: int, model_bytes: int
) -> int:
    """Bytes that one KV head stores per token, key and value together, as `kernel` packs them.

    A kernel that does not pack a dtype stores single bytes: that is what CPU nodes do with every packed
    dtype they are given, computing garbage from it (measured).
    """
    if kernel == "TRITON_ATTN" and kv_dtype in {"int8_per_token_head", "fp8_per_token_head"}:
        return head_size + head_size_v + 2 * _SCALE_BYTES
    if kernel == "TRITON_ATTN" and kv_dtype == "int4_per_token_head":
        return head_size // 2 + head_size_v // 2 + 2 * _SCALE_BYTES
    if kernel == "FLASHINFER" and kv_dtype in {"nvfp4", "nvfp4_4over6"}:
        return 2 * (head_size // 2 + head_size // 16)
    if kernel == "TURBOQUANT" and kv_dtype in _TURBOQUANT_BITS:
        return _turboquant_slot(kv_dtype, head_size)
    return (head_size + head_size_v) * element_bytes(kv_dtype, model_bytes=model_bytes)


def _turboquant_slot(kv_dtype: str, head_size: int) -> int:
    key_bits, value_bits = _TURBOQUANT_BITS[kv_dtype]
    keys = head_size if key_bits == 8 else -(-head_size * key_bits // 8) + 2
    values = -(-head_size * value_bits // 8) + 4
    return keys + values + (keys + values) % 2
