"""What a declaration of quantization means: the method, and its reader.

What the engine makes of a declaration: vllm/config/model.py `_verify_quantization`,
transformers_utils/config.py and model_arch_config_convertor.py `_normalize_quantization_config`,
utils/torch_utils.py `get_kv_cache_quant_algo_string` (0.32.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tonnage.models.fields import Fields
from tonnage.models.parameters import Tile, whole
from tonnage.models.quantization import compressed
from tonnage.models.quantization.awq import read_awq
from tonnage.models.quantization.checkpoint import WHERE, Quantization
from tonnage.models.quantization.compressed import read_compressed
from tonnage.models.quantization.deepseek import read_deepseek_v4
from tonnage.models.quantization.formats import Format
from tonnage.models.quantization.fp4 import PaddedMxfp4
from tonnage.models.quantization.fp8 import read_fp8
from tonnage.models.quantization.gptq import read_gptq
from tonnage.models.quantization.modelopt import ALGORITHMS, MIXED, algorithm_of, read_mixed, read_modelopt
from tonnage.models.quantization.names import NAMINGS, Naming
from tonnage.models.quantization.select import Declaration, Module, Reader, Selected, unsupported
from tonnage.models.schemes import Matrix, Scheme, Unquantized

_KIMI_K3: Final = "KimiK3ForConditionalGeneration"
_DEEPSEEK_V4: Final = ("deepseek_v4", "deepseek_v4_text", "deepseek_v41", "deepseek_v41_text")
_HEADS: Final = ("lm_head", "language_model.lm_head")
_KV_ALGORITHMS: Final = {"fp8": "fp8_e4m3", "nvfp4": "nvfp4"}


def read_declared(
    declared: Fields, root: Fields, text: Fields, hf_quant_config: Mapping[str, object] | None
) -> Quantization:
    """What a declaration means; `text` is the text part of a wrapper.

    Raises `ConfigError` for declarations that the engine refuses too.
    """
    method = _method(declared, root)
    if method is None:
        return Quantization(method=None, scheme=Unquantized(), declared_plain=True)
    # MiniCPM3 has latent projections, but the engine caches its full keys and values.
    latent = text.raw("kv_lora_rank") is not None and text.optional_text("model_type") != "minicpm3"
    declaration = Declaration(
        method=method,
        fields=declared,
        root=root,
        text=text,
        naming=_naming(root),
        hf_quant_config=hf_quant_config,
        latent=latent,
    )
    reader = READERS[method]
    scheme = None if reader is None else reader(declaration)
    if scheme is not None and _tied(root, text) and _quantizes_head(scheme):
        scheme = None
    return Quantization(
        method=method,
        scheme=Unquantized() if scheme is None else scheme,
        kv_dtype=_kv_dtype(declared, method, latent=latent),
        known=scheme is not None,
    )


def _method(declared: Fields, root: Fields) -> str | None:
    """The engine's name of the method, None where the declaration names none."""
    stated = _stated_method(declared)
    if not stated:
        return None
    method = _ALIASES.get(stated, stated)
    model_type = root.optional_text("model_type")
    if method == "fp8" and model_type in _DEEPSEEK_V4:
        method = "deepseek_v4_fp8"
    elif method == "mxfp4" and model_type == "gpt_oss":
        method = "gpt_oss_mxfp4"
    elif method == "compressed-tensors" and _is_mxfp4_kimi(declared, root):
        method = "mxfp4"
    elif method.startswith("modelopt"):
        method = _modelopt_method(algorithm_of(declared) or "", method)
    if method in _DEPRECATED:
        raise unsupported(f"{method} is deprecated; the engine starts it only with a switch of its own")
    if method not in READERS:
        raise unsupported(f"quant_method {method[:40]!r} is not one that the engine knows")
    return method


def _stated_method(declared: Fields) -> str:
    """`_normalize_quantization_config`: ModelOpt's own file names an algorithm instead of a method."""
    producer = Fields(declared.optional_object("producer") or {}, where=WHERE)
    inner = declared.raw("quantization")
    own = Fields(inner if isinstance(inner, dict) else {}, where=WHERE)
    algorithm = own.optional_text("quant_algo")
    is_modelopt = producer.optional_text("name") == "modelopt" or own.raw("modelopt_quant_config") is not None
    if is_modelopt and algorithm is not None:
        name = algorithm.upper()
        if name not in ("FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "NVFP4"):
            raise unsupported(
                f"Unknown ModelOpt quant algo: {algorithm[:40]}; the engine reads it only from "
                "quantization_config in config.json"
            )
        return ALGORITHMS[name]
    method = (declared.optional_text("quant_method") or "").lower()
    return method.replace("compressed_tensors", "compressed-tensors")


def _modelopt_method(algorithm: str, stated: str) -> str:
    """The `override_quantization_method` of ModelOpt's configs, in the engine's order."""
    if algorithm == "FP8":
        return "modelopt"
    if "FP4" in algorithm:
        return "modelopt_fp4"
    if "MXFP8" in algorithm:
        return "modelopt_mxfp8"
    return "modelopt_mixed" if algorithm == MIXED else stated


def _is_mxfp4_kimi(declared: Fields, root: Fields) -> bool:
    """models/config.py `KimiK3ForConditionalGenerationConfig`."""
    packed = declared.optional_text("format") == "mxfp4-pack-quantized"
    return packed and _architecture(root) == _KIMI_K3


def _architecture(root: Fields) -> str:
    names = root.optional_texts("architectures", max_items=16)
    return names[0] if names else ""


def _naming(root: Fields) -> Naming:
    return NAMINGS.get(_architecture(root), Naming())


def _tied(root: Fields, text: Fields) -> bool:
    return root.flag("tie_word_embeddings") or text.flag("tie_word_embeddings")


def _quantizes_head(scheme: Scheme) -> bool:
    """Whether a head tied to the token table would keep tensors of its own, which are not planned."""
    heads = [Matrix(name=name, rows=(whole(4096),), columns=whole(4096)) for name in _HEADS]
    return any(scheme.head(head) != Unquantized().head(head) for head in heads)


def _kv_dtype(declared: Fields, method: str, *, latent: bool) -> str | None:
    """What "auto" becomes. Raises `ConfigError`."""
    if method == "compressed-tensors":
        return None if latent else compressed.kv_dtype_of(declared)
    if not _stated_method(declared).startswith("modelopt"):
        return None
    inner = declared.raw("quantization")
    places = [Fields(inner, where=WHERE)] if isinstance(inner, dict) else []
    for key in ("kv_cache_scheme", "kv_cache_quant_algo"):
        for fields in (*places, declared):
            value = fields.raw(key)
            if value:
                return _kv_of(value)
    return None


def _kv_of(value: object) -> str | None:
    if isinstance(value, str):
        return _KV_ALGORITHMS.get(value.lower())
    if not isinstance(value, dict) or value.get("type") != "float":
        return None
    if value.get("dynamic") is False and value.get("num_bits") == 8:
        return _KV_ALGORITHMS["fp8"]
    return "nvfp4" if value.get("num_bits") == 4 else None


def _mxfp4(tile: Tile) -> Reader:
    """Experts in MXFP4, everything else as it is (mxfp4.py `Mxfp4Config`)."""
    experts = PaddedMxfp4(tile=tile)

    def choose(name: str, module: Module) -> Format:
        return experts

    return lambda declaration: Selected(choose)


_ALIASES: Final[Mapping[str, str]] = {
    "gptq": "auto_gptq",
    "gptq_marlin": "auto_gptq",
    "awq": "auto_awq",
    "awq_marlin": "auto_awq",
    "auto-round": "inc",
}

_DEPRECATED: Final = ("fbgemm_fp8", "fp_quant")

READERS: Final[Mapping[str, Reader | None]] = {
    "auto_awq": read_awq,
    "auto_gptq": read_gptq,
    "compressed-tensors": read_compressed,
    "deepseek_v4_fp8": read_deepseek_v4,
    "experts_int8": None,
    "fp8": read_fp8,
    "gpt_oss_mxfp4": _mxfp4(Tile.MXFP4_HIDDEN),
    "humming": None,
    "inc": None,
    "modelopt": read_modelopt,
    "modelopt_fp4": read_modelopt,
    "modelopt_mixed": read_mixed,
    "modelopt_mxfp8": read_modelopt,
    "moe_wna16": None,
    "mxfp4": _mxfp4(Tile.NONE),
    "mxfp8": read_modelopt,
    "online": None,
    "quark": None,
    "torchao": None,
}
"""The engine's methods (quantization/__init__.py `QUANTIZATION_METHODS`) and who reads their declarations;
None where the tensors are not planned."""
