"""What is rendered: restricted pods, pinned arguments, names that repeat."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from tonnage.api.acceptance import PINNED_ARGUMENTS
from tonnage.rendering.arguments import engine_arguments
from tonnage.rendering.deployment import build_deployment
from tonnage.rendering.inspection import build_inspection
from tonnage.rendering.plan import Kept, build_plan_config_map, hash_of, read_kept
from tonnage.rendering.service import build_service
from unit.rendering.samples import HASH, OWNER, PLAN_182, SETTINGS, spec

KEPT = Kept(inputs="i", source="s", model={"architecture": "LlamaForCausalLM"}, plan=PLAN_182)


def deployment(**fields: Any) -> dict[str, Any]:
    return build_deployment(
        PLAN_182, plan_hash=HASH, spec=spec(**fields), owner=OWNER, settings=SETTINGS, replicas=2
    )


def pods() -> list[dict[str, Any]]:
    job = build_inspection(spec(), owner=OWNER, settings=SETTINGS)
    return [body["spec"]["template"]["spec"] for body in (deployment(), job)]


@pytest.mark.parametrize("pod", pods(), ids=["worker", "inspection"])
def test_pods_are_restricted_and_hold_no_token(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any("hostPath" in volume for volume in pod["volumes"])
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert all(m["readOnly"] for m in container["volumeMounts"] if m["name"] in ("models", "plan"))


def test_everything_that_moves_memory_is_pinned() -> None:
    words = engine_arguments(PLAN_182, spec=spec(engine={"extraArgs": ["--enable-lora"]}))
    pairs = dict(pairwise(words))
    assert pairs["--kv-cache-memory-bytes"] == "134184960"
    assert pairs["--block-size"] == "32"
    assert pairs["--max-model-len"] == "2048"
    assert pairs["--kv-cache-dtype"] == "auto"
    assert pairs["--model"] == "/models/smollm2"
    assert words[-1] == "--enable-lora"


def test_a_user_cannot_set_what_we_set() -> None:
    ours = {word for word in engine_arguments(PLAN_182, spec=spec()) if word.startswith("--")}
    assert ours - set(PINNED_ARGUMENTS) <= {"--enforce-eager"}


def test_the_pod_asks_for_what_the_plan_needs() -> None:
    container = deployment()["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
    assert container["resources"]["requests"] == {"cpu": "1", "memory": "2701Mi"}


def test_labels_of_the_user_never_displace_ours() -> None:
    template = deployment(template={"labels": {"team": "a"}})["spec"]["template"]
    assert template["metadata"]["labels"]["tonnage.dev/plan"] == HASH
    assert template["metadata"]["labels"]["team"] == "a"
    selector = deployment()["spec"]["selector"]["matchLabels"]
    assert selector.items() <= template["metadata"]["labels"].items()
    assert selector == build_service(OWNER)["spec"]["selector"]


def test_the_plan_is_found_again_exactly_and_its_name_says_what_it_is() -> None:
    plan_hash = hash_of(PLAN_182, spec=spec())
    body = build_plan_config_map(KEPT, plan_hash=plan_hash, spec=spec(), owner=OWNER)
    assert read_kept(body) == KEPT
    assert body["immutable"] is True
    assert body["metadata"]["name"] == f"chat-plan-{plan_hash}"
    worker_file = json.loads(body["data"]["plan.json"])
    assert worker_file["expected"]["concurrency"] == "2.84375"
    assert worker_file["hash"] == plan_hash
    assert hash_of(PLAN_182, spec=spec(engine={"verification": "Report"})) != plan_hash


@pytest.mark.parametrize(
    "data", [{}, {"kept.json": "no json"}, {"kept.json": "[]"}, {"kept.json": '{"plan": {}}'}]
)
def test_an_unreadable_plan_is_none(data: dict[str, str]) -> None:
    assert read_kept({"data": data}) is None
