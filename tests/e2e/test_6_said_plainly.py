"""What is not healthy is said, with reason and remedy, and costs no loop."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.objects import llm, wait_for
from e2e.engines import get
from harness import chart
from harness.cluster import Cluster
from harness.engine.models import SMOLLM2, models_directory
from harness.models_volume import make_claim

pytestmark = pytest.mark.e2e
OPERATOR = f"system:serviceaccount:{chart.NAMESPACE}:{chart.RELEASE}"


@pytest.fixture(scope="module")
def broken(cluster: Cluster, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A claim whose models are damaged in different ways."""
    root = Path(tmp_path_factory.mktemp("broken", numbered=True))
    root.chmod(0o755)
    good = models_directory() / SMOLLM2
    for name in ("cut-json", "no-config", "no-weights", "unknown"):
        (root / name).mkdir(mode=0o755)
    (root / "cut-json" / "config.json").write_text('{"architectures": ["Llama')
    shutil.copy(good / "config.json", root / "no-weights" / "config.json")
    text = (good / "config.json").read_text()
    (root / "unknown" / "config.json").write_text(re.sub("LlamaForCausalLM", "OracleForCausalLM", text))
    make_claim(cluster, root, namespace=namespace, name="broken")
    return "broken"


MODEL = "ModelResolved"
CASES: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("missing", {"model": {"uri": "pvc://models/nope"}}, MODEL, "ModelPathMissing", SMOLLM2),
    (
        "no-config",
        {"model": {"uri": "pvc://broken/no-config"}},
        MODEL,
        "ConfigMissing",
        "config.json",
    ),
    (
        "cut-json",
        {"model": {"uri": "pvc://broken/cut-json"}},
        MODEL,
        "ConfigUnreadable",
        "config.json",
    ),
    (
        "no-weights",
        {"model": {"uri": "pvc://broken/no-weights"}},
        MODEL,
        "WeightsMissing",
        "safetensors",
    ),
    ("unknown", {"model": {"uri": "pvc://broken/unknown"}}, MODEL, "UnknownArchitecture", "Oracle"),
    ("too-long", {"workload": {"contextLength": 9000}}, "Planned", "ContextTooLong", "8192"),
    (
        "too-big",
        {"workload": {"contextLength": 8192, "concurrency": 30000, "typicalTokens": 8192}},
        "Planned",
        "NotEnoughMemory",
        "GiB",
    ),
    ("garbage", {"cache": {"dtype": "int8_per_token_head"}}, "Planned", "UnsupportedKvDtype", "fp8"),
    ("turbo", {"cache": {"dtype": "turboquant_4bit_nc"}}, "Planned", "UnsupportedKvDtype", "bfloat16"),
]


def test_each_is_said_in_a_condition_and_none_loops(cluster: Cluster, namespace: str, broken: str) -> None:
    start = _restarts(cluster)
    for name, spec, _, _, _ in CASES:
        cluster.apply(llm(name, **spec), namespace=namespace)
    for name, _, kind, reason, text in CASES:
        found = wait_for(cluster, kind, "False", namespace=namespace, name=name, reason=reason, seconds=120)
        assert text in found["message"]
        ready = wait_for(cluster, "Ready", "False", namespace=namespace, name=name, reason=reason)
        assert ready["message"] == found["message"]
        assert cluster.get("deployment", name, namespace=namespace) is None
    time.sleep(5)
    position, passes = cluster.audit.position(), _passes(cluster)
    time.sleep(20)
    mine = [w for w in cluster.audit.writes(after=position, user=OPERATOR) if w.namespace == namespace]
    # a failed inspection is tried again after 30 s and more: one delete and one create of each Job at most
    assert len(mine) <= 2 * sum(kind == MODEL for _, _, kind, _, _ in CASES)
    assert {w.resource for w in mine} <= {"jobs"}
    assert _passes(cluster) - passes <= 60
    assert _restarts(cluster) == start


def test_a_claim_that_does_not_exist_is_said(cluster: Cluster, namespace: str) -> None:
    cluster.apply(llm("no-claim", model={"uri": "pvc://nowhere/model"}), namespace=namespace)
    found = wait_for(cluster, "ModelResolved", "Unknown", namespace=namespace, name="no-claim")
    deadline = time.monotonic() + 60
    while "nowhere" not in found["message"] and time.monotonic() < deadline:
        time.sleep(1)
        found = wait_for(cluster, "ModelResolved", "Unknown", namespace=namespace, name="no-claim")
    assert 'persistentvolumeclaim "nowhere" not found' in found["message"]


def _operator_pod(cluster: Cluster) -> dict[str, Any]:
    labels = f"app.kubernetes.io/instance={chart.RELEASE}"
    return cluster.find("pods", namespace=chart.NAMESPACE, labels=labels)[0]


def _restarts(cluster: Cluster) -> int:
    return int(_operator_pod(cluster)["status"]["containerStatuses"][0]["restartCount"])


def _passes(cluster: Cluster) -> float:
    page = get(f"http://{_operator_pod(cluster)['status']['podIP']}:8080/metrics")
    lines = [line for line in page.splitlines() if line.startswith("tonnage_reconciles_total")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)
