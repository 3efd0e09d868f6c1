"""DeepSeek-V4 checkpoints (`deepseek_v4_fp8`): FP8 tiles, and experts in MXFP4, NVFP4 or FP8.

vllm/models/deepseek_v41/quant_config.py (0.32.0), which serves V4 too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from typing import Final

from tonnage.models.quantization.formats import Format
from tonnage.models.quantization.fp4 import Mxfp8, Nvfp4, PaddedMxfp4
from tonnage.models.quantization.fp8 import (
    PLAIN,
    BlockFp8,
    activation_scheme,
    block_of,
    ignored_names,
)
from tonnage.models.quantization.names import Match, listed_exactly, texts
from tonnage.models.quantization.select import Declaration, Module, Selected, unsupported
from tonnage.models.schemes import Scheme

_MX_TILES: Final = (32, 32)
_EXPERTS: Final = re.compile(r"(?:^|\.)(layers\.\d+\.ffn\.experts)$")


def read_deepseek_v4(declaration: Declaration) -> Scheme | None:
    """The scheme of a DeepSeek-V4 checkpoint. Raises `ConfigError`."""
    fields = declaration.fields
    block = block_of(fields)
    activation_scheme(fields, block)
    ignored = ignored_names(declaration)
    narrow = _narrow(declaration)
    if block is None or block[0] != block[1]:
        return None
    scale = "uint8" if narrow else "float32"
    linear: Format = BlockFp8(rows=block[0], columns=block[1], scale=scale)
    if narrow and block == _MX_TILES:
        linear = Mxfp8()
    experts = BlockFp8(rows=block[0], columns=block[1])
    nvfp4 = _nvfp4_experts(declaration)

    def choose(name: str, module: Module) -> Format:
        if module is Module.HEAD or listed_exactly(name, ignored):
            return PLAIN
        if module is Module.LINEAR:
            return linear
        if not narrow:
            return experts
        return Nvfp4() if nvfp4 is not None and nvfp4(name) else PaddedMxfp4()

    return Selected(choose, attention=declaration.kv_scales)


def _narrow(declaration: Declaration) -> bool:
    """`expert_dtype`: experts of four bits, and scales of one byte in all linear layers."""
    expert_dtype = declaration.root.optional_text("expert_dtype") or "fp4"
    if expert_dtype not in ("fp4", "fp8"):
        raise unsupported(f"expert_dtype {expert_dtype[:40]!r}: the engine serves fp4 and fp8")
    return expert_dtype == "fp4"


def _nvfp4_experts(declaration: Declaration) -> Match | None:
    """Which experts are NVFP4; None where the checkpoint has none (`_is_nvfp4_expert_layer`)."""
    fields = declaration.fields
    if (fields.optional_text("moe_quant_algo") or "").upper() != "NVFP4":
        return None
    return _not_ignored(texts(fields, "ignore"))


def _not_ignored(ignored: Sequence[str]) -> Match:
    patterns = [re.compile(translate(name)).match for name in ignored]

    def is_nvfp4(name: str) -> bool:
        found = _EXPERTS.search(name)
        return found is None or not any(match(found[1]) for match in patterns)

    return is_nvfp4
