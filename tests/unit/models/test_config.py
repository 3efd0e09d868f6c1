"""config.json -> ModelShape: one table per question, and hostile input."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonnage.models import (
    FAMILIES,
    ConfigError,
    FullAttention,
    LatentAttention,
    SlidingWindow,
    Trait,
    parse_config,
    parse_json,
)
from unit.models.samples import (
    latent_config,
    llama_config,
    outcome,
    published_configs,
    published_quantization,
    smollm2_config,
)


def refused(config: dict[str, Any], **options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_config(config, **options)
    return caught.value


def test_smollm2_is_read_field_by_field() -> None:
    shape = parse_config(smollm2_config())
    full = FullAttention(kv_heads=3, head_size=64, head_size_v=64)
    assert list(shape.cache_runs) == [(full, 30)]
    assert (shape.architecture, shape.dtype) == ("LlamaForCausalLM", "bfloat16")
    assert (shape.vocab_size, shape.hidden_size, shape.num_attention_heads) == (49152, 576, 9)
    assert (shape.max_context_tokens, shape.default_context_tokens) == (8192, 8192)
    assert (shape.head_elements, shape.tied_embeddings, shape.quantization) == (128, True, None)


@pytest.mark.parametrize(
    ("changes", "kv_heads", "head_size"),
    [
        ({}, 2, 64),
        ({"num_key_value_heads": None}, 8, 64),
        ({"num_key_value_heads": 8}, 8, 64),
        ({"num_key_value_heads": 1}, 1, 64),
        ({"head_dim": 96}, 2, 96),
        ({"head_dim": 0}, 2, 64),
        ({"head_dim": None}, 2, 64),
        ({"architectures": ["Qwen2ForCausalLM"], "head_dim": 96}, 2, 64),
        ({"architectures": ["Qwen3ForCausalLM"]}, 2, 128),
        ({"architectures": ["GemmaForCausalLM"]}, 2, 256),
        ({"architectures": ["FalconForCausalLM"], "multi_query": True}, 1, 64),
        ({"architectures": ["FalconForCausalLM"], "multi_query": False}, 8, 64),
        (
            {"architectures": ["FalconForCausalLM"], "new_decoder_architecture": True, "num_kv_heads": 4},
            4,
            64,
        ),
    ],
)
def test_heads(changes: dict[str, Any], kv_heads: int, head_size: int) -> None:
    ((spec, _),) = parse_config(llama_config(**changes)).cache_runs
    assert spec == FullAttention(kv_heads=kv_heads, head_size=head_size, head_size_v=head_size)


def windows_of(config: dict[str, Any]) -> str:
    """One letter per layer: w for a sliding window, f for full attention."""
    return "".join(
        ("w" if isinstance(spec, SlidingWindow) else "f") * layers
        for spec, layers in parse_config(config).cache_runs
    )


MIXED = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "ffff"),
        ({"sliding_window": 128}, "wwww"),
        ({"sliding_window": 0}, "ffff"),
        ({"sliding_window": 128, "layer_types": MIXED}, "wfwf"),
        ({"sliding_window": None, "layer_types": MIXED}, "ffff"),
        ({"sliding_window": 128, "layer_types": ["full_attention"] * 4}, "ffff"),
        ({"architectures": ["MistralForCausalLM"]}, "wwww"),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": None}, "ffff"),
        ({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 128}, "ffff"),
        ({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "max_window_layers": 0}, "wwww"),
        ({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True}, "ffff"),
        ({"architectures": ["Qwen3MoeForCausalLM"], "use_sliding_window": True, "num_experts": 8}, "wwww"),
        ({"architectures": ["Gemma2ForCausalLM"]}, "wfwf"),
        ({"architectures": ["Gemma2ForCausalLM"], "sliding_window_pattern": 3}, "wfwf"),
        ({"architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": 7}, "wwwwwfw"),
        ({"architectures": ["Gemma3ForCausalLM"], "sliding_window_pattern": 2}, "wfwf"),
        ({"architectures": ["GemmaForCausalLM"], "sliding_window": 128}, "wwww"),
    ],
)
def test_windows(changes: dict[str, Any], expected: str) -> None:
    assert windows_of(llama_config(**changes)) == expected


def test_latent_attention() -> None:
    shape = parse_config(latent_config())
    assert list(shape.cache_runs) == [(LatentAttention(latent_size=576), layers) for layers in (1, 3)]
    assert shape.head_elements == 128 + 64 + 128


@pytest.mark.parametrize(
    ("changes", "limit", "default"),
    [
        ({}, 4096, 4096),
        # No length at all: the engine takes what it is told, and 2,048 when told nothing.
        ({"max_position_embeddings": None, "seq_length": None}, 2**31 - 1, 2048),
        ({"seq_length": 1024}, 1024, 1024),
        ({"model_max_length": 9000}, 9000, 9000),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 16384, 16384),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2}}, 8192, 8192),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 4096, 4096),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, 4096, 4096),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 4096, 4096),
        ({"rope_scaling": {"type": "su"}, "original_max_position_embeddings": 1024}, 4096, 1024),
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 1024}, 4096, 1024),
        (
            {"rope_parameters": {"a": {"rope_type": "linear", "factor": 2.0}, "b": {"rope_type": "default"}}},
            8192,
            8192,
        ),
        (
            {"architectures": ["Gemma3ForCausalLM"], "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
            4096,
            4096,
        ),
    ],
)
def test_context(changes: dict[str, Any], limit: int, default: int) -> None:
    shape = parse_config(llama_config(**changes))
    assert (shape.max_context_tokens, shape.default_context_tokens) == (limit, default)


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({}, "bfloat16"),
        ({"dtype": None, "torch_dtype": "float16"}, "float16"),
        ({"dtype": "torch.float32"}, "float32"),
        ({"dtype": None}, None),
    ],
)
def test_dtype(changes: dict[str, Any], dtype: str | None) -> None:
    assert parse_config(llama_config(**changes)).dtype == dtype


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({}, None),
        ({"quantization_config": {"quant_method": "FP8", "activation_scheme": "dynamic"}}, "fp8"),
        ({"quantization_config": {"quant_method": "compressed_tensors"}}, "compressed-tensors"),
        # Without a method the engine loads plain weights (vllm/config/model.py `_verify_quantization`).
        ({"quantization_config": {"bits": 4}}, None),
    ],
)
def test_quantization(changes: dict[str, Any], method: str | None) -> None:
    assert parse_config(llama_config(**changes)).quantization == method


@pytest.mark.parametrize(
    ("changes", "beside", "plain"),
    [
        ({}, None, False),
        ({"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}}, None, False),
        ({"quantization_config": {"bits": 4}}, None, True),
        ({}, {"quantization": {"quant_algo": "NVFP4"}}, True),
    ],
)
def test_a_declaration_without_a_method_is_told(
    changes: dict[str, Any], beside: dict[str, Any] | None, plain: bool
) -> None:
    shape = parse_config(llama_config(**changes), hf_quant_config=beside)
    assert (Trait.DECLARED_PLAIN in shape.traits) is plain


def test_modelopt_file_beside_the_config_counts() -> None:
    beside = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
    assert parse_config(llama_config(), hf_quant_config=beside).quantization == "modelopt"


@pytest.mark.parametrize(
    ("changes", "reason", "says"),
    [
        ({"architectures": []}, "ConfigInvalid", "architectures"),
        ({"architectures": "LlamaForCausalLM"}, "ConfigInvalid", "architectures"),
        ({"architectures": ["a b"]}, "ConfigInvalid", "class name"),
        ({"architectures": ["LlamoForCausalLM"]}, "UnknownArchitecture", "closest: LlamaForCausalLM"),
        ({"num_hidden_layers": True}, "ConfigInvalid", "num_hidden_layers is true, not an integer"),
        ({"num_hidden_layers": 4.0}, "ConfigInvalid", "num_hidden_layers"),
        ({"num_hidden_layers": 0}, "ConfigInvalid", "num_hidden_layers is 0"),
        ({"num_hidden_layers": 10**100}, "ConfigInvalid", "more than 60 digits"),
        ({"num_hidden_layers": None}, "ConfigInvalid", "missing"),
        ({"hidden_size": 4}, "ConfigInvalid", "hidden_size"),
        ({"hidden_size": "512"}, "ConfigInvalid", '"512"'),
        ({"num_key_value_heads": 3}, "ConfigInvalid", "does not divide"),
        ({"vocab_size": -1}, "ConfigInvalid", "vocab_size"),
        ({"head_dim": 10**9}, "ConfigInvalid", "head_dim"),
        ({"max_position_embeddings": 2**40}, "ConfigInvalid", "max_position_embeddings"),
        ({"tie_word_embeddings": 1}, "ConfigInvalid", "tie_word_embeddings"),
        ({"dtype": "int3"}, "ConfigInvalid", "int3"),
        ({"rope_scaling": [1]}, "ConfigInvalid", "rope_scaling"),
        ({"rope_scaling": {"factor": True}}, "ConfigInvalid", "factor"),
        ({"rope_scaling": {"factor": 1e300}}, "ConfigInvalid", "factor"),
        ({"sliding_window": -5}, "ConfigInvalid", "sliding_window"),
        ({"layer_types": ["full_attention"]}, "ConfigInvalid", "1 entries for 4 layers"),
        ({"layer_types": ["linear_attention"] * 4}, "UnsupportedAttention", "linear_attention"),
        ({"quantization_config": "fp8"}, "ConfigInvalid", "quantization_config"),
        ({"attention_chunk_size": 8192}, "UnsupportedAttention", "chunked local attention"),
        ({"is_causal": False}, "UnsupportedAttention", "not causal"),
        (
            {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "max_window_layers": 2},
            "UnsupportedAttention",
            "2 of 4 layers",
        ),
        ({"architectures": ["DeepseekV3ForCausalLM"]}, "UnsupportedAttention", "'llama'"),
        (
            {"architectures": ["PhiForCausalLM"], "layer_types": ["sliding_attention"] * 4},
            "UnsupportedAttention",
            "sliding_attention",
        ),
    ],
)
def test_refusals_say_what_and_where(changes: dict[str, Any], reason: str, says: str) -> None:
    error = refused(llama_config(**changes))
    assert error.reason == reason
    assert says in error.message
    assert "config.json" in error.message


def test_unknown_architecture_can_be_assumed_plain() -> None:
    config = llama_config(architectures=["BrandNewForCausalLM"], sliding_window=128)
    assert "assumeFullAttention" in refused(config).message
    shape = parse_config(config, assume_full_attention=True)
    full = FullAttention(kv_heads=2, head_size=64, head_size_v=64)
    assert list(shape.cache_runs) == [(full, 4)]
    assert not shape.weights_known


def test_assuming_does_not_open_what_is_known_to_differ() -> None:
    config = llama_config(architectures=["BrandNewForCausalLM"], index_topk=2048)
    assert refused(config, assume_full_attention=True).reason == "UnsupportedAttention"
    wrapper = {"architectures": ["BrandNewForConditionalGeneration"], "text_config": {"hidden_size": 512}}
    assert "text_config" in refused(wrapper, assume_full_attention=True).message


REFUSED_BY_THE_ENGINE = {
    # Their model_type is not one that transformers or the engine has a class for.
    "sgl-project--DeepSeek-V4-Flash-FP8_config.json": "'deepseek_ref'",
    "sgl-project--DeepSeek-V4-Pro-FP8_config.json": "'deepseek_ref'",
}


@pytest.mark.parametrize("name", sorted(published_configs()))
def test_published_configs_are_read_or_refused_by_name(name: str) -> None:
    config = published_configs()[name]
    architecture = config["architectures"][0]
    if name in REFUSED_BY_THE_ENGINE:
        assert REFUSED_BY_THE_ENGINE[name] in refused(config).message
    elif architecture in FAMILIES:
        shape = parse_config(config, hf_quant_config=published_quantization(name))
        text = config.get("text_config") or config
        stated = [text[key] for key in ("num_hidden_layers", "n_layer", "decoder_layers") if key in text]
        stated += [len(text[key]) for key in ("layers_block_type",) if key in text]
        assert sum(run.layers for run in shape.layers) in stated
    else:
        assert architecture in refused(config).message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"a": 1e999',
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"a": ' + b"9" * 6000 + b"}",
    ],
)
def test_unreadable_json_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"ConfigUnreadable: config\.json"):
        parse_json(data, what="config.json")


def test_infinity_in_published_configs_is_read_but_is_no_number() -> None:
    config = parse_json(b'{"time_step_limit": [0.0, Infinity], "factor": NaN}', what="config.json")
    assert config["time_step_limit"] == [0.0, float("inf")]
    error = refused(llama_config(rope_scaling={"factor": config["factor"]}))
    assert "factor" in error.message


def test_large_files_are_refused_before_they_are_parsed() -> None:
    with pytest.raises(ConfigError, match="101 bytes, more than the 100 allowed"):
        parse_json(b" " * 101, what="config.json", max_bytes=100)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
FIELD_NAMES = sorted({key for config in published_configs().values() for key in config})


@settings(max_examples=400)
@given(
    base=st.sampled_from(sorted(published_configs())),
    changes=st.dictionaries(st.sampled_from(FIELD_NAMES), ANYTHING, max_size=6),
    assume=st.booleans(),
)
def test_hostile_configs_raise_nothing_but_config_error(
    base: str, changes: dict[str, Any], assume: bool
) -> None:
    config = {**published_configs()[base], **changes}
    read = outcome(lambda: parse_config(config, assume_full_attention=assume))
    if isinstance(read, ConfigError):
        assert read.reason in {
            "ConfigInvalid",
            "UnknownArchitecture",
            "UnsupportedAttention",
            "UnsupportedQuantization",
        }
        assert len(read.message) < 1500
    else:
        assert 0 <= read.num_layers <= 1024
        assert 1 <= read.default_context_tokens <= read.max_context_tokens


@settings(max_examples=200)
@given(value=ANYTHING)
def test_any_json_text_is_read_or_refused(value: Any) -> None:
    read = outcome(lambda: parse_json(json.dumps(value).encode(), what="config.json"))
    if isinstance(read, ConfigError):
        assert read.reason == "ConfigUnreadable"
    else:
        assert isinstance(value, dict)
