"""The profile's wire form: whole, small, strict."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonnage.models import (
    ELEMENT_BYTES,
    FAMILIES,
    MODEL,
    ChunkedLocal,
    ConfigError,
    CrossAttention,
    Dimension,
    FullAttention,
    LatentAttention,
    Layer,
    LayerRun,
    ModelProfile,
    ModelShape,
    Outside,
    Parameter,
    Part,
    RecurrentState,
    SlidingWindow,
    Split,
    TokenBytes,
    Trait,
    Weights,
)
from tonnage.models.parameters import Rounding, Tile
from tonnage.models.wire import MAX_WIRE_BYTES, decode_wire, encode_wire, from_wire, to_wire
from unit.models.samples import (
    latent_config,
    llama_config,
    outcome,
    profile_of,
    published_configs,
    smollm2_config,
)

SIZE = st.integers(1, 4096)
TOKENS = st.integers(1, 2**31 - 1)
HEADED = {"kv_heads": SIZE, "head_size": SIZE, "head_size_v": SIZE}
PARTS = st.builds(
    Part,
    size=SIZE,
    split=st.sampled_from(Split),
    multiple=st.integers(1, 256),
    tile=st.sampled_from(Tile),
)
DIMENSIONS = st.builds(
    Dimension,
    parts=st.lists(PARTS, min_size=1, max_size=3).map(tuple),
    per=st.integers(1, 128),
    rounding=st.sampled_from(Rounding),
    fits=st.lists(PARTS, max_size=2).map(tuple),
)
TENSORS = st.builds(
    Parameter,
    element=st.sampled_from([MODEL, *ELEMENT_BYTES]),
    dimensions=st.lists(DIMENSIONS, min_size=1, max_size=3).map(tuple),
    experts=st.integers(0, 512),
    count=st.integers(1, 4),
    only_if=st.none() | DIMENSIONS,
)
HELD = st.lists(TENSORS, max_size=3).map(tuple)
SPECS = st.one_of(
    st.builds(FullAttention, **HEADED),
    st.builds(CrossAttention, **HEADED),
    st.builds(SlidingWindow, **HEADED, window_tokens=TOKENS),
    st.builds(ChunkedLocal, **HEADED, chunk_tokens=TOKENS),
    st.builds(LatentAttention, latent_size=SIZE),
    st.builds(TokenBytes, role=st.text("abc-", min_size=1, max_size=20), bytes_per_state=SIZE),
    st.builds(RecurrentState, kind=st.text("abc_2", min_size=1, max_size=20), tensors=HELD),
)
LAYERS = st.builds(
    Layer, caches=st.lists(SPECS, max_size=3).map(tuple), parameters=HELD, shares_cache=st.booleans()
)
SHAPES = st.builds(
    ModelShape,
    architecture=st.text("ABCxyz019_.-", min_size=1, max_size=100),
    dtype=st.sampled_from([None, "bfloat16", "float16", "float32"]),
    max_context_tokens=TOKENS,
    default_context_tokens=TOKENS,
    vocab_size=st.integers(1, 2**24),
    hidden_size=st.integers(1, 2**20),
    num_attention_heads=SIZE,
    head_size=SIZE,
    head_elements=st.integers(1, 2**16),
    layers=st.lists(LAYERS, min_size=1, max_size=3).flatmap(
        lambda kinds: st.lists(
            st.builds(LayerRun, layer=st.sampled_from(kinds), layers=st.integers(1, 8)),
            min_size=1,
            max_size=128,
        ).map(tuple)
    ),
    outside=st.builds(Outside, first=HELD, last=HELD, every=HELD, embedding=HELD),
    traits=st.frozensets(st.sampled_from(Trait)),
    kv_dtype=st.sampled_from([None, "fp8", "fp8_e4m3"]),
    encoder_tokens=st.integers(0, 2**20),
    quantization=st.none() | st.text("abc-", max_size=40),
    tied_embeddings=st.just(False),
    weights_known=st.booleans(),
)
WEIGHTS = st.builds(
    Weights,
    bytes_by_dtype=st.dictionaries(
        st.sampled_from(["BF16", "F32", "F8_E4M3", "U8"]), st.integers(0, 2**45)
    ).map(lambda found: tuple(sorted(found.items()))),
    parameters=st.integers(0, 2**45),
)
PROFILES = st.builds(ModelProfile, shape=SHAPES, weights=WEIGHTS)


@settings(max_examples=200)
@given(PROFILES)
def test_round_trip_within_the_size(profile: ModelProfile) -> None:
    line = encode_wire(profile)
    assert decode_wire(line) == decode_wire(line.encode()) == profile
    assert len(line.encode()) <= MAX_WIRE_BYTES
    assert "\n" not in line


READABLE = sorted(
    name
    for name, config in published_configs().items()
    if config["architectures"][0] in FAMILIES and config.get("model_type") != "deepseek_ref"
)


@pytest.mark.parametrize("name", READABLE)
def test_published_models_take_little_room(name: str) -> None:
    profile = profile_of(published_configs()[name])
    assert len(encode_wire(profile)) < 2000
    assert decode_wire(encode_wire(profile)) == profile


def test_128_alternating_layers_fit() -> None:
    config = llama_config(
        num_hidden_layers=128, sliding_window=4096, layer_types=["sliding_attention", "full_attention"] * 64
    )
    profile = profile_of(config)
    assert len(profile.shape.layers) == 128
    assert len(encode_wire(profile)) <= MAX_WIRE_BYTES


def test_a_profile_that_does_not_fit_is_refused_not_cut() -> None:
    shape = profile_of(smollm2_config()).shape
    specs = [
        FullAttention(kv_heads=(n * 7919) % 4093 + 1, head_size=(n * 104729) % 4091 + 1, head_size_v=n + 1)
        for n in range(900)
    ]
    layers = tuple(LayerRun(layer=Layer(caches=(spec,)), layers=1) for spec in specs)
    profile = ModelProfile(
        shape=replace(shape, layers=layers), weights=Weights(bytes_by_dtype=(), parameters=0)
    )
    with pytest.raises(ConfigError, match="more than the 3500 allowed"):
        encode_wire(profile)


@pytest.mark.parametrize("text", ["", "{}", "AAAA", "####", "a" * 3501])
def test_what_is_not_a_wire_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_wire(text)
    assert caught.value.reason == "ProfileInvalid"


def test_a_bomb_is_refused() -> None:
    bomb = base64.b64encode(zlib.compress(b"[" * 2**21, 9)).decode()
    assert len(bomb) < MAX_WIRE_BYTES
    with pytest.raises(ConfigError, match="inflates past"):
        decode_wire(bomb)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema": 1}, "another version"),
        ({"schema": "1"}, "schema"),
        ({"extra": 1}, "extra"),
        ({"runs": [[1, 30]]}, "no known layer"),
        ({"runs": [[-1, 30]]}, "whole numbers"),
        ({"runs": [[0, 0]]}, "no length"),
        ({"kinds": [[[0]]]}, "specs and tensors"),
        ({"kinds": [[[9], [], 0]]}, "whole numbers"),
        ({"tensors": [["model", 0, 1]]}, "4 to 12"),
        ({"tensors": [["int2", 0, 1, [], [1, 0, [], [8, 0, 1, 1, 0]]]]}, "another version"),
        ({"tensors": [["model", 0, 1, [], [0, 0, [], [8, 0, 1, 1, 0]]]]}, "cannot be"),
        ({"tensors": [["model", 0, 1, [], [1, 9, [], [8, 0, 1, 1, 0]]]]}, "cannot be"),
        ({"tensors": [["model", 0, 1, [], [1, 0, [], [8, 2, 3, 1, 0]]]]}, "cannot be"),
        ({"tensors": [["model", 0, 1, [], [1, 0, [], [8, 0, 1, 1, 9]]]]}, "cannot be"),
        ({"tensors": [["model", 0, 1, [], [1, 0, 7, [8, 0, 1, 1, 0]]]]}, "not a list"),
        ({"traits": ["ghost"]}, "another version"),
        ({"outside": {}}, "four places"),
        ({"runs": [[0, 1000], [0, 1000]]}, "more than 1024"),
        ({"runs": []}, "runs"),
        ({"runs": [[0, True]]}, "whole numbers"),
        ({"specs": [["full", 3, 64]]}, "3 numbers"),
        ({"specs": [["ring", 3]]}, "ring"),
        ({"specs": [["latent", 0]]}, "not positive"),
        ({"specs": [[["full"], 3, 64, 64]]}, "kinds with sizes"),
        ({"weights": {"Q9": 1}}, "safetensors"),
        ({"weights": {"BF16": -1}}, "BF16"),
        ({"parameters": None}, "parameters"),
        ({"architecture": ""}, "architecture"),
        ({"maxContext": 0}, "maxContext"),
    ],
)
def test_reading_is_strict(changes: dict[str, Any], says: str) -> None:
    wire = {**to_wire(profile_of(smollm2_config())), **changes}
    with pytest.raises(ConfigError) as caught:
        from_wire(wire)
    assert caught.value.reason == "ProfileInvalid"
    assert says in caught.value.message


def test_a_missing_key_is_refused() -> None:
    wire = to_wire(profile_of(smollm2_config()))
    for key in wire:
        with pytest.raises(ConfigError):
            from_wire({name: value for name, value in wire.items() if name != key})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(
    changes=st.dictionaries(st.sampled_from(sorted(to_wire(profile_of(smollm2_config())))), JSON, max_size=4)
)
def test_hostile_wire_raises_nothing_but_config_error(changes: dict[str, Any]) -> None:
    wire = {**to_wire(profile_of(smollm2_config())), **changes}
    profile = outcome(lambda: decode_wire(json.dumps(wire)))
    if isinstance(profile, ConfigError):
        assert profile.reason in {"ProfileInvalid", "ConfigUnreadable"}
    else:
        assert decode_wire(encode_wire(profile)) == profile


def test_experts_of_a_token_are_told_only_where_there_are_some() -> None:
    """So that the profiles of other models read as they did before."""
    dense, mixture = profile_of(llama_config()), profile_of(latent_config())
    assert "expertsPerToken" not in to_wire(dense)
    assert to_wire(mixture)["expertsPerToken"] == 2
    assert decode_wire(encode_wire(mixture)).shape.experts_per_token == 2
