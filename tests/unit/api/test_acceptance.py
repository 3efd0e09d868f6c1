"""What users write: accepted, or refused with the field and what to write instead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.api.acceptance import PINNED_ARGUMENTS, PINNED_VARIABLES, Refusal, accept
from tonnage.api.v1alpha1 import Spec

MODEL = {"uri": "pvc://models/smollm2"}


def spec(**fields: Any) -> dict[str, Any]:
    return {"spec": {"model": MODEL, **fields}}


def test_the_smallest_object_has_the_documented_defaults() -> None:
    accepted = accept(spec())
    assert isinstance(accepted, Spec)
    assert (accepted.workload.concurrency, accepted.quality, accepted.wanted_replicas) == (
        16,
        "NearLossless",
        1,
    )
    assert (accepted.served_name, accepted.model.claim, accepted.model.path) == (
        "smollm2",
        "models",
        "smollm2",
    )


INVALID = [
    (spec(workload={"contextLength": 0}), "spec.workload.contextLength"),
    (spec(workload={"concurrency": True}), "spec.workload.concurrency"),
    (spec(quality="Best"), "spec.quality"),
    (spec(modle={}), "spec.modle"),
    ({"spec": {}}, "spec.model"),
    ({"spec": {"model": {"uri": "models/x"}}}, "spec.model.uri"),
    ({"spec": {"model": {"uri": "pvc://models/../../etc"}}}, "spec.model.uri"),
    (spec(rollout={"progressDeadline": "soon"}), "spec.rollout.progressDeadline"),
]


@pytest.mark.parametrize(("body", "field"), INVALID)
def test_an_invalid_field_is_named(body: dict[str, Any], field: str) -> None:
    refusal = accept(body)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "InvalidSpec"
    assert field in refusal.message


NOT_YET = [
    (
        {
            "quality": "Economy",
            "cache": {"eviction": {"mode": "Streaming", "streaming": {"sinkTokens": 4, "windowTokens": 64}}},
        },
        "eviction",
    ),
    ({"cache": {"offload": {"mode": "Fixed", "fixed": {"hostMemory": "8Gi"}}}}, "spec.cache.offload.mode"),
    ({"cache": {"sharing": {"mode": "Pool", "pool": {}}}}, "spec.cache.sharing.mode"),
    (
        {"hardware": {"parallelism": {"tensor": 2, "decodeContext": 2}}},
        "spec.hardware.parallelism.decodeContext",
    ),
    ({"scaling": {"mode": "Internal", "internal": {"maxReplicas": 3}}}, "spec.scaling.mode"),
]


@pytest.mark.parametrize(("fields", "named"), NOT_YET)
def test_what_is_not_built_is_refused_and_never_ignored(fields: dict[str, Any], named: str) -> None:
    refusal = accept({"spec": {"model": MODEL, **fields}})
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "NotSupportedYet"
    assert named in refusal.message


@pytest.mark.parametrize("flag", sorted(PINNED_ARGUMENTS))
@pytest.mark.parametrize("spelling", ["{}", "{}=1"])
def test_a_pinned_argument_is_refused(flag: str, spelling: str) -> None:
    refusal = accept(spec(engine={"extraArgs": [spelling.format(flag)]}))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "PinnedByPlan"
    assert PINNED_ARGUMENTS[flag] in refusal.message


@pytest.mark.parametrize(
    "word",
    [
        "--max_model_len",
        "--max-model",
        "--kv-cache-dty=fp8",
        "--speculative-config.model=x",
        "-qfp8",
        "-t",
        "-tp=2",
    ],
)
def test_other_spellings_that_the_engine_understands_are_refused_too(word: str) -> None:
    assert isinstance(accept(spec(engine={"extraArgs": [word]})), Refusal)


@pytest.mark.parametrize(
    "word", ["--enable-lora", "--max-logprobs", "8", "-8", "-O3", "--tool-call-parser", "--uvicorn-log-level"]
)
def test_other_arguments_pass(word: str) -> None:
    assert isinstance(accept(spec(engine={"extraArgs": [word]})), Spec)


@pytest.mark.parametrize("name", [*sorted(PINNED_VARIABLES), "TONNAGE_ENGINE_MODULE"])
def test_a_pinned_variable_is_refused(name: str) -> None:
    refusal = accept(spec(engine={"env": [{"name": name, "value": "1"}]}))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "PinnedByPlan"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_nothing_that_a_user_writes_raises(value: object) -> None:
    assert isinstance(
        accept({"spec": value if isinstance(value, dict) else {"model": value}}), Refusal | Spec
    )
    assert isinstance(accept({"metadata": value, "spec": value}), Refusal)
