"""What is rendered: restricted pods, pinned arguments, names that repeat."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from typing import Any

import pytest

from tonnage.api import quantities
from tonnage.api.acceptance import PINNED_ARGUMENTS
from tonnage.rendering.arguments import engine_arguments
from tonnage.rendering.deployment import build_deployment
from tonnage.rendering.inspection import build_inspection, reading_of
from tonnage.rendering.plan import Kept, build_plan_config_map, hash_of, read_kept
from tonnage.rendering.service import build_service
from tonnage.rendering.settings import HubSettings, Settings
from unit.rendering.samples import COMMIT, HASH, HUB, HUB_KEPT, KEPT, OWNER, PLAN_182, SETTINGS, spec

REFRESH = "tonnage.dev/refresh-model"


def deployment(kept: Kept = KEPT, **fields: Any) -> dict[str, Any]:
    return build_deployment(
        kept, plan_hash=HASH, spec=spec(**fields), owner=OWNER, settings=SETTINGS, replicas=2
    )


def job(annotations: dict[str, str] | None = None, settings: Settings = SETTINGS, **fields: Any) -> Any:
    asked = spec(**fields)
    reading = reading_of(asked, annotations=annotations or {})
    return build_inspection(asked, reading=reading, owner=OWNER, settings=settings)


def hub_worker(settings: Settings = SETTINGS, **fields: Any) -> dict[str, Any]:
    body = build_deployment(
        HUB_KEPT,
        plan_hash=HASH,
        spec=spec(model=HUB, **fields),
        owner=OWNER,
        settings=settings,
        replicas=1,
    )
    return dict(body["spec"]["template"]["spec"])


def variables(pod: dict[str, Any]) -> dict[str, Any]:
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in pod["containers"][0].get("env", [])}


def pods() -> list[dict[str, Any]]:
    bodies = (deployment(), job(), deployment(HUB_KEPT, model=HUB), job(model=HUB))
    return [body["spec"]["template"]["spec"] for body in bodies]


@pytest.mark.parametrize("pod", pods(), ids=["worker", "inspection", "hub worker", "hub inspection"])
def test_pods_are_restricted_and_hold_no_token(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any("hostPath" in volume for volume in pod.get("volumes", ()))
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        mounts = {mount["name"]: mount for mount in container.get("volumeMounts", ())}
        assert mounts.get("plan", {"readOnly": True})["readOnly"]
        claims = [v["name"] for v in pod.get("volumes", ()) if "persistentVolumeClaim" in v]
        assert all(mounts[claim]["readOnly"] for claim in claims)


def test_everything_that_moves_memory_is_pinned() -> None:
    words = engine_arguments(
        PLAN_182, spec=spec(engine={"extraArgs": ["--enable-lora"]}), revision="files-0000001"
    )
    pairs = dict(pairwise(words))
    assert pairs["--kv-cache-memory-bytes"] == "134184960"
    assert pairs["--block-size"] == "32"
    assert pairs["--max-model-len"] == "2048"
    assert pairs["--kv-cache-dtype"] == "auto"
    assert pairs["--model"] == "/models/smollm2"
    assert "--revision" not in pairs
    assert words[-1] == "--enable-lora"


def test_a_user_cannot_set_what_we_set() -> None:
    words = engine_arguments(PLAN_182, spec=spec(model=HUB), revision=COMMIT)
    ours = {word for word in words if word.startswith("--")}
    assert ours <= set(PINNED_ARGUMENTS)


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
    plan_hash = hash_of(KEPT, spec=spec())
    body = build_plan_config_map(KEPT, plan_hash=plan_hash, spec=spec(), owner=OWNER)
    assert read_kept(body) == KEPT
    assert body["immutable"] is True
    assert body["metadata"]["name"] == f"chat-plan-{plan_hash}"
    worker_file = json.loads(body["data"]["plan.json"])
    assert worker_file["expected"]["concurrency"] == "2.84375"
    assert worker_file["hash"] == plan_hash
    assert hash_of(KEPT, spec=spec(engine={"verification": "Report"})) != plan_hash
    # the same plan of other files must reach the workers
    assert hash_of(dataclasses.replace(KEPT, revision="files-000000000002"), spec=spec()) != plan_hash


def test_a_refresh_is_noted_without_touching_immutable_data() -> None:
    before, after = (
        build_plan_config_map(kept, plan_hash=HASH, spec=spec(), owner=OWNER)
        for kept in (KEPT, dataclasses.replace(KEPT, refreshed="r1"))
    )
    kept = read_kept({**after, "data": before["data"]})
    assert kept is not None
    assert kept.refreshed == "r1"


@pytest.mark.parametrize(
    "data", [{}, {"kept.json": "no json"}, {"kept.json": "[]"}, {"kept.json": '{"plan": {}}'}]
)
def test_an_unreadable_plan_is_none(data: dict[str, str]) -> None:
    assert read_kept({"data": data}) is None


def test_the_worker_of_a_hub_model_gets_the_commit_and_the_room_to_download_it() -> None:
    pod = hub_worker()
    container = pod["containers"][0]
    pairs = dict(pairwise(container["args"]))
    assert (pairs["--model"], pairs["--served-model-name"]) == ("acme/smollm2", "smollm2")
    assert pairs["--revision"] == pairs["--tokenizer-revision"] == COMMIT
    models = next(volume for volume in pod["volumes"] if volume["name"] == "models")
    assert models["emptyDir"]["sizeLimit"] == container["resources"]["requests"]["ephemeral-storage"]
    assert quantities.whole_bytes(models["emptyDir"]["sizeLimit"]) > HUB_KEPT.download_bytes
    seen = variables(pod)
    assert seen["HF_HOME"] == next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == "models")
    # whatever the image says
    assert seen["HF_HUB_OFFLINE"] == "0"


def test_the_token_is_a_reference_and_only_hub_models_get_it() -> None:
    reference = {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert variables(hub_worker())["HF_TOKEN"] == reference
    assert variables(job(model=HUB)["spec"]["template"]["spec"])["HF_TOKEN"] == reference
    public = job(model={"uri": "hf://acme/smollm2"})["spec"]["template"]["spec"]
    assert "HF_TOKEN" not in variables(public)
    assert variables(deployment()["spec"]["template"]["spec"])["HF_HUB_OFFLINE"] == "1"


def test_the_administrators_hub_and_proxy_reach_jobs_and_workers_of_hub_models_alone() -> None:
    way = {"HF_ENDPOINT": "http://hub.example", "HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".local"}
    hub = HubSettings(endpoint="http://hub.example", https_proxy="http://proxy:3128", no_proxy=".local")
    settings = dataclasses.replace(SETTINGS, hub=hub)
    reading = job(model=HUB, settings=settings)["spec"]["template"]["spec"]
    assert way.items() <= variables(reading).items()
    assert way.items() <= variables(hub_worker(settings)).items()
    own = variables(hub_worker(settings, engine={"env": [{"name": "NO_PROXY", "value": "all"}]}))
    assert own["NO_PROXY"] == "all"
    mounted = job(settings=settings)["spec"]["template"]["spec"]
    assert not way.keys() & variables(mounted).keys()


def test_a_download_is_given_time_unless_the_user_says_how_long() -> None:
    large = dataclasses.replace(HUB_KEPT, download_bytes=140 * 10**9)
    assert deployment(HUB_KEPT, model=HUB)["spec"]["progressDeadlineSeconds"] < 1800 + 60
    assert deployment(large, model=HUB)["spec"]["progressDeadlineSeconds"] > 2 * 3600
    said = deployment(large, model=HUB, rollout={"progressDeadline": "15m"})
    assert said["spec"]["progressDeadlineSeconds"] == 900


def test_each_wish_to_read_has_its_own_job() -> None:
    jobs = [
        job(),
        job(model=HUB),
        job(model={**HUB, "revision": "v2"}),
        job(model={"uri": HUB["uri"]}),
        job({REFRESH: "1"}, model=HUB),
        job({REFRESH: "2"}, model=HUB),
    ]
    assert len({body["metadata"]["name"] for body in jobs}) == len(jobs)
    assert job(model=HUB) == job({"other": "1", REFRESH: ""}, model=HUB)
    arguments = jobs[2]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments == ["--hub", "acme/smollm2", "--revision", "v2"]


def test_the_files_are_the_same_whoever_asks_and_the_credentials_are_not() -> None:
    public, private, again = (
        reading_of(spec(model=model), annotations=notes)
        for model, notes in (({"uri": HUB["uri"]}, {}), (HUB, {}), (HUB, {REFRESH: "now"}))
    )
    assert public.source == private.source == again.source
    assert public.access != private.access == again.access
