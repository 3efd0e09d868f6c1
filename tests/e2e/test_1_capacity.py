"""Planned blocks, tokens and concurrency equal the engine's, for each attention shape and KV dtype."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.objects import llm, wait_for
from e2e.engines import chat, check_plan_equals_engine, service_url
from harness.cluster import Cluster
from harness.engine.models import SMOLLM2, TINY_GEMMA3, TINY_MLA

pytestmark = pytest.mark.e2e
START_SECONDS = 600

CASES: list[tuple[str, str, dict[str, Any]]] = [
    (SMOLLM2, "bfloat16", {"contextLength": 2048, "concurrency": 8, "typicalTokens": 512}),
    (SMOLLM2, "fp8", {"contextLength": 8192, "concurrency": 3}),
    (TINY_GEMMA3, "bfloat16", {"contextLength": 2048, "concurrency": 5, "typicalTokens": 700}),
    (TINY_GEMMA3, "fp8", {"contextLength": 1000, "concurrency": 40}),
    (TINY_MLA, "Auto", {"contextLength": 2048, "concurrency": 4}),
]


@pytest.mark.parametrize(("model", "dtype", "workload"), CASES)
def test_the_plan_equals_the_engine(
    cluster: Cluster, namespace: str, model: str, dtype: str, workload: dict[str, Any]
) -> None:
    name = f"m-{model.split('-')[1]}-{dtype.lower()}"
    body = llm(
        name,
        model={"uri": f"pvc://models/{model}"},
        workload=workload,
        cache={"dtype": dtype},
        template={"resources": {"cpu": "250m"}},
    )
    cluster.apply(body, namespace=namespace)
    try:
        wait_for(cluster, "Ready", "True", namespace=namespace, name=name, seconds=START_SECONDS)
        verified = wait_for(cluster, "CapacityVerified", "True", namespace=namespace, name=name)
        check_plan_equals_engine(cluster, name, namespace=namespace)
        planned = (cluster.get("llmdep", name, namespace=namespace) or {})["status"]["plan"]["kv"]
        assert str(planned["blocks"]) in verified["message"]
        answer = chat(service_url(cluster, name, namespace=namespace), model=model)
        assert answer["usage"]["completion_tokens"] > 0
        if model == SMOLLM2:
            assert "Paris" in answer["choices"][0]["message"]["content"]
    finally:
        cluster.delete("llmdep", name, namespace=namespace)
