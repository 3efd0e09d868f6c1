"""One table per rule: what it refuses, with which reason and figures, and what it lets pass."""

from __future__ import annotations

from typing import Any

import pytest

from tonnage.gpus.nodes import Taint
from tonnage.planning import rules as chain
from tonnage.planning.plan import Demand, Quality, Rejection
from tonnage.planning.rules import CHAIN, Rule, first_rejection
from unit.models.samples import latent_config, llama_config, profile_of
from unit.planning.samples import ENGINE, node, question

LOSSLESS = Quality.LOSSLESS
LATENT = latent_config()
SMALL_LATENT = {**LATENT, "kv_lora_rank": 448}
FALCON = llama_config(architectures=["FalconForCausalLM"])
HEAD_80 = llama_config(head_dim=80)
HEAD_72 = llama_config(head_dim=72)
FP8_WEIGHTS = llama_config(quantization_config={"quant_method": "fp8", "activation_scheme": "dynamic"})

Case = tuple[Rule, dict[str, Any], dict[str, Any], str | None, str]

CASES: list[Case] = [
    (chain.numbers_make_sense, {}, {"concurrency": 0}, "InvalidDemand", "concurrency is 0"),
    (chain.numbers_make_sense, {}, {"concurrency": 65537}, "InvalidDemand", "between 1 and 65536"),
    (chain.numbers_make_sense, {}, {"context_length": 0}, "InvalidDemand", "contextLength is 0"),
    (chain.numbers_make_sense, {}, {"typical_tokens": -1}, "InvalidDemand", "typicalTokens is -1"),
    (chain.numbers_make_sense, {}, {"concurrency": 65536, "typical_tokens": 1}, None, ""),
    (chain.context_within_model, {}, {"context_length": 4097}, "ContextTooLong", "4097 is more than"),
    (chain.context_within_model, {}, {"context_length": 4096}, None, ""),
    (chain.context_within_model, {}, {}, None, ""),
    (chain.typical_within_context, {}, {"typical_tokens": 4097}, "InvalidDemand", "typicalTokens 4097"),
    (chain.typical_within_context, {}, {"context_length": 10, "typical_tokens": 10}, None, ""),
    (chain.weights_supported, FP8_WEIGHTS, {}, "UnsupportedQuantization", "quantized with fp8"),
    (chain.weights_supported, {}, {}, None, ""),
    (chain.attention_supported, HEAD_72, {}, "UnsupportedHeadSize", "head size of 72"),
    (chain.attention_supported, SMALL_LATENT, {}, "UnsupportedHeadSize", "latent size of 512"),
    (chain.attention_supported, HEAD_80, {}, None, ""),
    (chain.attention_supported, LATENT, {}, None, ""),
    (chain.kv_dtype_supported, HEAD_80, {"kv_dtype": "fp8"}, "UnsupportedKvDtype", "divisible by 32"),
    (chain.kv_dtype_supported, HEAD_80, {"kv_dtype": "bfloat16"}, None, ""),
    (chain.kv_dtype_supported, FALCON, {"kv_dtype": "fp8"}, "UnsupportedKvDtype", "ignores it"),
    (chain.kv_dtype_supported, LATENT, {"kv_dtype": "fp8"}, "UnsupportedKvDtype", "no kernel for latent"),
    (chain.kv_dtype_supported, LATENT, {"kv_dtype": "auto"}, None, ""),
    (chain.kv_dtype_supported, {}, {"kv_dtype": "fp8_ds_mla"}, "UnsupportedKvDtype", "does not check"),
    (chain.kv_dtype_supported, {}, {"kv_dtype": "x" * 999}, "UnsupportedKvDtype", "not known"),
    (chain.kv_dtype_supported, {}, {}, None, ""),
    (chain.kv_dtype_within_quality, {}, {"kv_dtype": "fp8", "quality": LOSSLESS}, "KvDtypeNotAllowed", "fp8"),
    (chain.kv_dtype_within_quality, {}, {"kv_dtype": "bfloat16", "quality": LOSSLESS}, None, ""),
    (chain.kv_dtype_within_quality, {}, {"kv_dtype": "fp8"}, None, ""),
    (chain.prefix_caching_possible, LATENT, {"prefix_caching": True}, "PrefixCachingUnsupported", "Disabled"),
    (chain.prefix_caching_possible, LATENT, {"prefix_caching": False}, None, ""),
    (chain.prefix_caching_possible, LATENT, {}, None, ""),
    (chain.prefix_caching_possible, {}, {"prefix_caching": True}, None, ""),
    (chain.some_node_usable, {}, {}, None, ""),
    *((chain.kv_dtype_supported, {}, {"kv_dtype": name}, None, "") for name in ENGINE.kv_dtypes),
    *(
        (
            chain.kv_dtype_supported,
            {},
            {"kv_dtype": name},
            "UnsupportedKvDtype",
            "answers garbage; allowed: auto,",
        )
        for name in ENGINE.wrong_kv_dtypes
    ),
]


@pytest.mark.parametrize(("rule", "config", "demand", "reason", "says"), CASES)
def test_rule(
    rule: Rule, config: dict[str, Any], demand: dict[str, Any], reason: str | None, says: str
) -> None:
    asked = question(Demand(**demand), model=profile_of(config or llama_config()))
    found = rule(asked)
    if reason is None:
        assert found is None
    else:
        assert isinstance(found, Rejection)
        assert found.reason == reason
        assert says in found.message
        assert len(found.message) <= 1024
        assert first_rejection(asked) == found


def test_every_rule_is_tried_both_ways() -> None:
    refusing = {case[0] for case in CASES if case[3] is not None} | {chain.some_node_usable}
    passing = {case[0] for case in CASES if case[3] is None}
    assert refusing == passing == set(CHAIN)


def test_no_usable_node_counts_the_reasons() -> None:
    taint = Taint(key="dedicated", value="", effect="NoSchedule")
    nodes = (node("a", ready=False), node("b", ready=False), node("c", taints=(taint,)))
    found = chain.some_node_usable(question(nodes=nodes))
    assert found == Rejection(
        reason="NoUsableNode",
        message="none of 3 nodes can take the pod: "
        "2 nodes: not Ready; 1 node: taint dedicated:NoSchedule is not tolerated",
        numbers={"nodes": 3},
    )


def test_an_empty_cluster_is_said() -> None:
    found = chain.some_node_usable(question(nodes=()))
    assert found is not None
    assert found.message.endswith("the cluster has no nodes")


def test_nodes_that_may_not_be_read_are_said_with_what_to_set() -> None:
    found = chain.some_node_usable(question(nodes=None))
    assert found is not None
    assert found.reason == "NoUsableNode"
    assert "nodes cannot be read" in found.message
    assert "rbac.nodes" in found.message


def test_figures_behind_a_context_that_is_too_long() -> None:
    found = first_rejection(question(Demand(context_length=9000)))
    assert found is not None
    assert found.numbers == {"contextLength": 9000, "modelLimit": 8192}


def test_the_users_mistake_comes_before_the_clusters() -> None:
    found = first_rejection(question(Demand(context_length=9000), nodes=()))
    assert found is not None
    assert found.reason == "ContextTooLong"
