"""Attention kernels of vLLM 0.32 on NVIDIA GPUs and CPU nodes: which one a layer gets, which block sizes it
runs, how it packs keys and values.

Read in vllm/platforms/cuda.py `_get_backend_priorities`, vllm/v1/attention/backend.py
`validate_configuration` and the backends' own files. That the kernels' packages are installed is assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from tonnage.engines.kv_dtypes import PLAIN_KV_DTYPES, is_quantized

Capability = tuple[int, int]


@dataclass(frozen=True, slots=True)
class BlockSize:
    """A block size that a kernel runs: exactly `tokens`, or any multiple of it.

    Blocks of the cache may be any multiple of either: the engine splits them.
    """

    tokens: int
    multiple: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one attention layer asks of a kernel; heads are those of one rank.

    `block_tokens` is the block size that a user fixed, None where the engine is free. `kv_dtype` is what
    the layer stores ("auto": the model's dtype). `quantized_run` says that the run's KV dtype is a
    quantized one, which decides the FlashAttention version even for layers that skip it.
    """

    capability: Capability
    head_size: int
    head_size_v: int
    kv_dtype: str
    dtype: str = "bfloat16"
    latent: bool = False
    sparse: bool = False
    sinks: bool = False
    softcap: bool = False
    bidirectional_images: bool = False
    encoder: bool = False
    query_heads: int = 1
    kv_heads: int = 1
    block_tokens: int | None = None
    context_parallel: bool = False
    quantized_run: bool = False
    uniform_flash_attention: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel as one layer gets it."""

    name: str
    block_sizes: tuple[BlockSize, ...]

    def runs_blocks_of(self, tokens: int) -> bool:
        """Whether cache blocks of `tokens` can be split into blocks this kernel runs."""
        return any(tokens % size.tokens == 0 for size in self.block_sizes)

    @property
    def smallest_block(self) -> int:
        """The smallest block it runs."""
        return min(size.tokens for size in self.block_sizes)

    def preferred_block(self, default_tokens: int) -> int:
        """The block size the engine takes when nobody says."""
        if self.name in _AT_LEAST_SMALLEST:
            return max(default_tokens, self.smallest_block)
        return default_tokens if self.runs_blocks_of(default_tokens) else self.smallest_block

    def largest_block_within(self, budget_tokens: int) -> int:
        """The largest block it runs unsplit that has at most `budget_tokens`, else its smallest
        (vllm/model_executor/layers/attention/attention.py `_largest_kernel_block_within`)."""
        sizes = [
            max(size.tokens, budget_tokens // size.tokens * size.tokens) if size.multiple else size.tokens
            for size in self.block_sizes
        ]
        return max((size for size in sizes if size <= budget_tokens), default=min(sizes))


class NoKernelError(ValueError):
    """No kernel of the engine runs this layer; the message says why each was left out."""


_ANY_16: Final = (BlockSize(16, multiple=True),)
_ANY_64: Final = (BlockSize(64, multiple=True),)
_AT_LEAST_SMALLEST: Final = frozenset({"FLASH_ATTN"})

CPU_ATTENTION: Final = Kernel(name="CPU_ATTN", block_sizes=(BlockSize(32, multiple=True),))
CPU_LATENT: Final = Kernel(name="CPU_MLA", block_sizes=(BlockSize(16),))
SPARSE_INDEXER: Final = Kernel(name="DEEPSEEK_V32_INDEXER", block_sizes=(BlockSize(64),))


def choose_kernel(need: Need) -> Kernel:
    """The kernel of highest priority that runs the layer. Raises `NoKernelError`."""
    reasons = []
    for name in _priorities(need):
        reason = _CHECKS[name](need)
        if reason is None:
            _check_float8(name, need)
            kernel = kernel_named(name, need)
            if need.block_tokens is None or kernel.runs_blocks_of(need.block_tokens):
                return kernel
            reason = f"not in blocks of {need.block_tokens}"
        reasons.append(f"{name}: {reason}")
    raise NoKernelError("; ".join(reasons))


def _check_float8(name: str, need: Need) -> None:
    # The engine refuses this after it has chosen (triton_attn.py, mla/triton_mla.py) and tries no other.
    if name in {"TRITON_ATTN", "TRITON_MLA"} and need.kv_dtype.startswith("fp8") and need.capability < (8, 9):
        raise NoKernelError(f"{name}: {need.kv_dtype} KV needs compute capability 8.9")


def flash_attention_version(need: Need, *, hd256: bool = True) -> int:
    """2, 3 or 4: the FlashAttention that serves a layer (fa_utils.py `get_flash_attn_version`).

    `hd256`: the caller can run the Blackwell kernel for head size 256.
    """
    major = need.capability[0]
    version = need.uniform_flash_attention or {9: 3, 10: 4}.get(major, 2)
    if version == 3 and (need.head_size > 256 or (need.sinks and need.head_size != need.head_size_v)):
        version = 4
    square_256 = need.head_size == need.head_size_v == 256
    if version == 4 and square_256 and major in {10, 11} and not (hd256 and _hd256_runs(need)):
        return 2
    small = need.head_size <= 128 or square_256 or (need.head_size, need.head_size_v) == (192, 128)
    return 2 if version == 4 and major >= 10 and not small else version


def _hd256_runs(need: Need) -> bool:
    """fa_utils.py `_fa4_hd256_fallback_reason`."""
    return not (
        need.sinks
        or need.softcap
        or need.quantized_run
        or (need.block_tokens is not None and need.block_tokens % 128)
        or need.bidirectional_images
        or need.context_parallel
    )


def _priorities(need: Need) -> tuple[str, ...]:
    major = need.capability[0]
    if need.latent:
        return _latent_priorities(need, major)
    if need.head_size != need.head_size_v:
        return ("FLASH_ATTN_DIFFKV", "TRITON_ATTN_DIFFKV")
    images = need.bidirectional_images
    if major == 10:
        first = ("TRITON_FLASHINFER",) if images else ()
        return (*first, "FLASHINFER", "FLASH_ATTN", "TRITON_ATTN", "FLEX_ATTENTION", "TURBOQUANT")
    first = ("TRITON_FLASH_ATTN",) if images and major == 9 else ()
    return (*first, "FLASH_ATTN", "FLASHINFER", "TRITON_ATTN", "FLEX_ATTENTION", "TURBOQUANT")


def _latent_priorities(need: Need, major: int) -> tuple[str, ...]:
    if major == 10:
        dense = ("FLASHINFER_MLA", "CUTLASS_MLA", "TRITON_MLA")
        flashinfer_first = is_quantized(need.kv_dtype) or need.query_heads <= 16
        sparse = ("FLASHINFER_MLA_SPARSE", "FLASHMLA_SPARSE")
        return (*dense, *(sparse if flashinfer_first else reversed(sparse)))
    if major == 12:
        return ("TRITON_MLA", "FLASHINFER_MLA_SPARSE_SM120")
    return ("FLASH_ATTN_MLA", "FLASHMLA", "TRITON_MLA", "FLASH_ATTN_MLA_SPARSE", "FLASHMLA_SPARSE")


def _flash_attention(need: Need) -> str | None:
    major, minor = need.capability
    if major < 8:
        return "needs compute capability 8.0"
    if need.dtype == "float32":
        return "not in float32"
    most = 512 if major in {9, 10, 11} else 256
    if need.head_size % 8 or need.head_size > most:
        return f"head size {need.head_size}"
    version = flash_attention_version(need)
    if is_quantized(need.kv_dtype):
        if need.kv_dtype not in {"fp8", "fp8_e4m3"}:
            return f"KV dtype {need.kv_dtype}"
        on_hopper = major == 9 and (version == 3 or (version == 4 and need.head_size == 512))
        if not on_hopper and not (major == 10 and version == 4):
            return "fp8 KV needs FlashAttention 3 on 9.0 or 4 on 10.x"
        if need.bidirectional_images and (major, minor) == (9, 0):
            return "fp8 KV with bidirectional images on 9.0"
    if need.sinks and major < 9:
        return "attention sinks need compute capability 9.0"
    if need.sinks and _model_version(need) not in {3, 4}:
        return "attention sinks need FlashAttention 3 or 4"
    if need.bidirectional_images and (major not in {9, 10, 11} or version != 4):
        return "bidirectional images need FlashAttention 4"
    return None


def _model_version(need: Need) -> int:
    return {9: 3, 10: 4}.get(need.capability[0], 2)


def _flashinfer(need: Need) -> str | None:
    major = need.capability[0]
    if not (8, 0) <= need.capability <= (12, 1):
        return "needs compute capability 8.0 to 12.1"
    if need.head_size not in {64, 128, 256, 512}:
        return f"head size {need.head_size}"
    if need.dtype == "float32":
        return "not in float32"
    if need.bidirectional_images:
        return "bidirectional images"
    if need.encoder:
        return "encoder attention"
    if need.sinks and major != 10:
        return "attention sinks need compute capability 10.x"
    if need.kv_dtype in {"nvfp4", "nvfp4_4over6"}:
        return _nvfp4(need, major)
    return None if need.kv_dtype in PLAIN_KV_DTYPES else f"KV dtype {need.kv_dtype}"


def _nvfp4(need: Need, major: int) -> str | None:
    if major == 10:
        return None
    if major not in {8, 9, 12} or need.kv_dtype != "nvfp4":
        return f"KV dtype {need.kv_dtype} on compute capability {major}"
    return "nvfp4 KV at head size 64" if need.head_size == 64 else None


def _triton(need: Need) -> str | None:
    if need.head_size < 32:
        return f"head size {need.head_size}"
    packed = {"int4_per_token_head", "int8_per_token_head", "fp8_per_token_head"}
    if need.kv_dtype not in PLAIN_KV_DTYPES | packed:
        return f"KV dtype {need.kv_dtype}"
    return None


def _flex(need: Need) -> str | None:
    if is_quantized(need.kv_dtype):
        return f"KV dtype {need.kv_dtype}"
    return "attention sinks" if need.sinks else None


def _turboquant(need: Need) -> str | None:
    if not need.kv_dtype.startswith("turboquant_"):
        return f"KV dtype {need.kv_dtype}"
    if need.sinks or need.bidirectional_images:
        return "attention sinks or bidirectional images"
    return None


def _triton_with_flash_attention(need: Need) -> str | None:
    if need.head_size not in {256, 512}:
        return f"head size {need.head_size}"
    causal = _without_images(need)
    if _triton(need) or _flash_attention(causal):
        return _triton(need) or _flash_attention(causal)
    return None if flash_attention_version(causal) in {3, 4} else "needs FlashAttention 3 or 4"


def _triton_with_flashinfer(need: Need) -> str | None:
    if need.head_size not in {256, 512}:
        return f"head size {need.head_size}"
    return _triton(need) or _flashinfer(_without_images(need))


def _without_images(need: Need) -> Need:
    return replace(need, bidirectional_images=False)


def _flash_attention_values(need: Need) -> str | None:
    return _flash_attention(need) or (
        None if flash_attention_version(need) in {3, 4} else "needs FlashAttention 3 or 4"
    )


def _triton_values(need: Need) -> str | None:
    if need.kv_dtype not in {"auto", "bfloat16", "fp8", "fp8_e4m3"}:
        return f"KV dtype {need.kv_dtype}"
    return _triton(need)


def _dense_latent(
    dtypes: frozenset[str], majors: frozenset[int] | None = None
) -> Callable[[Need], str | None]:
    def check(need: Need) -> str | None:
        if need.sparse:
            return "not sparse"
        if majors is not None and need.capability[0] not in majors:
            return f"compute capability {need.capability[0]}"
        return None if need.kv_dtype in dtypes else f"KV dtype {need.kv_dtype}"

    return check


def _sparse_latent(dtypes: frozenset[str], majors: frozenset[int]) -> Callable[[Need], str | None]:
    def check(need: Need) -> str | None:
        if not need.sparse:
            return "only sparse"
        if need.capability[0] not in majors:
            return f"compute capability {need.capability[0]}"
        return None if need.kv_dtype in dtypes else f"KV dtype {need.kv_dtype}"

    return check


_HALF: Final = frozenset({"auto", "float16", "bfloat16"})
_HALF_FP8: Final = _HALF | {"fp8", "fp8_e4m3"}
_CHECKS: Final[dict[str, Callable[[Need], str | None]]] = {
    "FLASH_ATTN": _flash_attention,
    "FLASHINFER": _flashinfer,
    "TRITON_ATTN": _triton,
    "FLEX_ATTENTION": _flex,
    "TURBOQUANT": _turboquant,
    "TRITON_FLASH_ATTN": _triton_with_flash_attention,
    "TRITON_FLASHINFER": _triton_with_flashinfer,
    "FLASH_ATTN_DIFFKV": _flash_attention_values,
    "TRITON_ATTN_DIFFKV": _triton_values,
    "FLASH_ATTN_MLA": _dense_latent(_HALF, frozenset({9})),
    # FlashMLA's dense kernels exist for 9.0 alone, and the engine's own check wants its extension: where
    # FlashAttention is there it is never reached for 16-bit caches, and fp8 goes to Triton.
    "FLASHMLA": lambda _need: "its extension is not assumed",
    "FLASHINFER_MLA": _dense_latent(_HALF_FP8, frozenset({10})),
    "CUTLASS_MLA": _dense_latent(_HALF_FP8, frozenset({10})),
    "TRITON_MLA": _dense_latent(_HALF_FP8),
    "FLASH_ATTN_MLA_SPARSE": _sparse_latent(_HALF, frozenset({9})),
    "FLASHMLA_SPARSE": _sparse_latent(
        frozenset({"auto", "bfloat16", "fp8_ds_mla", "fp8"}), frozenset({9, 10})
    ),
    "FLASHINFER_MLA_SPARSE": _sparse_latent(_HALF_FP8, frozenset({10})),
    "FLASHINFER_MLA_SPARSE_SM120": _sparse_latent(
        frozenset({"auto", "fp8", "fp8_e4m3", "fp8_ds_mla"}), frozenset({12})
    ),
}


def kernel_named(name: str, need: Need) -> Kernel:
    """A kernel by its name, with the block sizes it runs for this need."""
    if name == "FLASHINFER":
        return Kernel(name=name, block_sizes=_flashinfer_blocks(need))
    if name == "TRITON_FLASHINFER":
        return Kernel(name=name, block_sizes=(BlockSize(64),))
    if name in {"FLASH_ATTN", "TRITON_FLASH_ATTN"}:
        return Kernel(name=name, block_sizes=_flash_attention_blocks(_without_images(need)))
    return Kernel(name=name, block_sizes=_BLOCKS.get(name, _ANY_16))


_BLOCKS: Final = {
    "TURBOQUANT": (BlockSize(16), BlockSize(32), BlockSize(64), BlockSize(128)),
    "FLASHINFER_MLA": (BlockSize(32), BlockSize(64)),
    "CUTLASS_MLA": (BlockSize(128),),
    "FLASH_ATTN_MLA_SPARSE": _ANY_64,
    "FLASHMLA_SPARSE": _ANY_64,
    "FLASHINFER_MLA_SPARSE_SM120": _ANY_64,
    "FLASHINFER_MLA_SPARSE": (BlockSize(32, multiple=True),),
}


def _flashinfer_blocks(need: Need) -> tuple[BlockSize, ...]:
    # Pages of 128 tokens and more run on Blackwell's kernels for grouped queries alone.
    large = need.capability[0] == 10 and need.kv_heads > 0 and need.query_heads // need.kv_heads > 1
    sizes = (
        (16, 32, 64, 128, 256, 512, 1024) if large and need.query_heads % need.kv_heads == 0 else (16, 32, 64)
    )
    return tuple(BlockSize(size) for size in sizes)


def _flash_attention_blocks(need: Need) -> tuple[BlockSize, ...]:
    version = flash_attention_version(need)
    major = need.capability[0]
    if major == 9 and need.kv_dtype in {"fp8", "fp8_e4m3"} and need.head_size == 512 and version == 4:
        return (BlockSize(64),)
    if major in {10, 11} and need.head_size == need.head_size_v == 256 and version == 4:
        return (BlockSize(128),)
    return _ANY_16
