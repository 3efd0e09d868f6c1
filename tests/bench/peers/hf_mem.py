"""hf-mem: bytes of one request from the config, over all GPUs.

Read in hf-mem 0.5.6 as published on PyPI (alvarobartt/hf-mem): `compute_safetensors_kv_cache_size`,
`_resolve_attention_layer_counts` and `resolve_kv_cache_dtype` in hf_mem/safetensors/kv_cache.py, which config
is read in `arun` of hf_mem/run.py. It knows no ranks, so it is given the bytes of all of them.
"""

from __future__ import annotations

from typing import Any, Final

from bench.peers.question import Config, Peer, Question, UnansweredError, needed, part

_CHOICES: Final = {"bfloat16": 2, "fp8": 1, "fp8_ds_mla": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "fp8_inc": 1}
_FP8: Final = {"float8_e4m3", "float8_e4m3fn", "float8_e5m2"}
_FULL: Final = {"attention", "full_attention", "global_attention"}


def tokens(question: Question) -> float:
    """Tokens of the bytes of all ranks, counted in requests of the row's length."""
    config = config_of(question)
    request = request_bytes(config, element_bytes(config, question.kv_dtype), question.context_tokens)
    return question.kv_bytes * question.ranks * question.context_tokens / request


def config_of(question: Question) -> dict[str, Any]:
    """The part of config.json that it reads; raises `UnansweredError` where it declines."""
    config = dict(question.config)
    if not any(word in question.architecture for word in ("ForCausalLM", "ForConditionalGeneration")):
        raise UnansweredError("neither ...ForCausalLM nor ...ForConditionalGeneration")
    if "ForConditionalGeneration" in question.architecture and "text_config" in config:
        shared = ("dtype", "torch_dtype", "quantization_config")
        outer: dict[str, Any] = {key: config[key] for key in shared if key in config}
        config = {**outer, **part(config, "text_config")}
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
        needed(config, name)
    return config


def request_bytes(config: Config, element: int, length_tokens: int) -> int:
    """KV bytes of one request. A mixture with windows counts as if all layers remembered everything."""
    heads = needed(config, "num_attention_heads")
    kv_heads = config.get("num_key_value_heads", heads)
    head_size = config.get("head_dim", needed(config, "hidden_size") // heads)
    if not isinstance(kv_heads, int) or not isinstance(head_size, int):
        raise UnansweredError("num_key_value_heads or head_dim is null")
    full, windows = _layer_counts(config)
    window = config.get("sliding_window") or length_tokens
    windowed = length_tokens if full and windows else min(window, length_tokens)
    return 2 * (full * length_tokens + windows * windowed) * kv_heads * head_size * element


def _layer_counts(config: Config) -> tuple[int, int]:
    layers = needed(config, "num_hidden_layers")
    if "sliding_window_pattern" in config:
        full = layers // needed(config, "sliding_window_pattern")
    elif "layer_types" in config:
        full = sum(kind in _FULL for kind in config["layer_types"] or ())
    else:
        full = layers
    return full, layers - full


def element_bytes(config: Config, kv_dtype: str) -> int:
    """Bytes of one KV element: what was asked for, else by the weights' quantization, else the dtype."""
    if kv_dtype != "auto":
        if kv_dtype not in _CHOICES:
            raise UnansweredError(f"knows no KV dtype {kv_dtype}")
        return _CHOICES[kv_dtype]
    quantization = part(config, "quantization_config")
    method = quantization.get("quant_method")
    if method in ("fp8", "modelopt"):
        return _element_of_format(quantization)
    if method == "compressed-tensors" and quantization.get("kv_cache_scheme") is not None:
        raise UnansweredError("declines a kv_cache_scheme of compressed-tensors")
    if method not in (None, "compressed-tensors"):
        raise UnansweredError(f"declines weights quantized by {method}")
    dtype = config.get("torch_dtype") or config.get("dtype")
    if not isinstance(dtype, str):
        raise UnansweredError("config.json names no dtype")
    return {"float32": 4, "int8": 1, **dict.fromkeys(_FP8, 1)}.get(dtype.removeprefix("torch."), 2)


def _element_of_format(quantization: Config) -> int:
    # Without a format it takes the 8-bit float of the checkpoint's tensors; fp8 and ModelOpt files have one.
    stated = quantization.get("fmt", quantization.get("format"))
    if isinstance(stated, str) and f"float8_{stated.removeprefix('float8_')}" not in _FP8:
        raise UnansweredError(f"declines the format {stated}")
    return 1


PEER = Peer(name="hf-mem", source="PyPI hf-mem 0.5.6", tokens=tokens)
