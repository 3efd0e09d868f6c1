"""Workers on accelerators: they get the devices of their plan's pool, where the plan counted on them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.api.acceptance import PINNED_ARGUMENTS
from tonnage.api.demand import placement_of
from tonnage.api.v1alpha1 import Spec
from tonnage.gpus.inventory import Sharing
from tonnage.gpus.nodes import Node, Taint, Toleration
from tonnage.gpus.placement import Placement, Requirement, find_obstacle, meets
from tonnage.planning.plan import GpuPlan
from tonnage.rendering.arguments import engine_arguments
from tonnage.rendering.drift import projection
from tonnage.rendering.gpu import build_claim_templates, not_rendered, tolerated_taints
from tonnage.rendering.inspection import build_inspection, reading_of
from tonnage.rendering.plan import Kept
from unit.gpus.clusters import GPU, node, plain, tainted
from unit.models.samples import DATA
from unit.rendering.golden import FILES, objects, rendered, text_of
from unit.rendering.samples import (
    A_SLICE,
    CLAIMED,
    HASH,
    HUB,
    HUB_KEPT,
    KEPT,
    ON_FOUR,
    OWNER,
    SETTINGS,
    on_gpus,
    spec,
)
from unit.rendering.test_template import APART, WHOLE, ZONES

OPTIONS = frozenset((DATA / "vllm_options_0.32.0.txt").read_text().split())
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PRODUCT = "nvidia.com/gpu.product"
H100 = "NVIDIA-H100-80GB-HBM3"
TOLERATED = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}


def pod(gpu: GpuPlan = ON_FOUR, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = rendered(on_gpus(gpu), **fields)[-1]["spec"]["template"]["spec"]
    return found


def words(gpu: GpuPlan = ON_FOUR, **fields: Any) -> list[str]:
    return engine_arguments(on_gpus(gpu).plan, spec=spec(**fields), revision="r")


def taint(key: str, value: str, effect: str = "NoSchedule") -> Taint:
    return Taint(key=key, value=value, effect=effect)


def variant(**changes: Any) -> GpuPlan:
    return dataclasses.replace(ON_FOUR, **changes)


@pytest.mark.parametrize("name", sorted(objects()))
def test_objects_are_those_of_the_files(name: str) -> None:
    assert text_of(objects()[name]) == (FILES / f"{name}.yaml").read_text()


def test_every_file_is_of_an_object() -> None:
    assert {path.stem for path in FILES.iterdir()} == set(objects())


# devices


def test_extended_resources_are_limits_and_requests_as_text() -> None:
    resources = pod()["containers"][0]["resources"]
    assert resources["limits"] == {"memory": "25Gi", GPU: "4"}
    assert resources["requests"] == {"cpu": "1", "memory": "25Gi", GPU: "4"}
    assert "resourceClaims" not in pod()


def test_a_claim_is_asked_for_with_the_pools_class_and_selectors() -> None:
    found = pod(CLAIMED)
    [template] = build_claim_templates(on_gpus(CLAIMED).plan, plan_hash=HASH, owner=OWNER)
    assert template["metadata"]["name"] == f"chat-plan-{HASH}"
    [request] = template["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"]["count"] == 2
    assert [each["cel"]["expression"] for each in request["exactly"]["selectors"]] == list(CLAIMED.selectors)
    [claim] = found["resourceClaims"]
    assert found["containers"][0]["resources"]["claims"] == [{"name": claim["name"]}]
    assert not any("nvidia.com" in name for name in found["containers"][0]["resources"]["limits"])
    # its nodes are those of the devices, whose taints are the driver's
    assert not {"tolerations", "affinity"} & set(found)


def test_the_template_of_claims_is_the_plans_and_made_before_the_workers() -> None:
    template, workers = rendered(on_gpus(CLAIMED))
    [claim] = workers["spec"]["template"]["spec"]["resourceClaims"]
    assert claim["resourceClaimTemplateName"] == template["metadata"]["name"]
    assert [body["kind"] for body in rendered(on_gpus())] == ["Deployment"]
    assert build_claim_templates(KEPT.plan, plan_hash=HASH, owner=OWNER) == []


def test_claims_are_known_as_this_objects_own() -> None:
    """By the labels that `tonnage.cluster.devices.claim_record` looks for."""
    [template] = build_claim_templates(on_gpus(CLAIMED).plan, plan_hash=HASH, owner=OWNER)
    own = template["spec"]["metadata"]["labels"]
    assert (
        own.items()
        >= {
            "app.kubernetes.io/managed-by": "tonnage",
            "tonnage.dev/deployment": OWNER.name,
        }.items()
    )


def test_what_the_api_server_adds_to_a_worker_with_devices_is_no_drift() -> None:
    desired, live = (rendered(on_gpus(CLAIMED))[-1] for _ in range(2))
    found = live["spec"]["template"]["spec"]
    found["resourceClaims"].append({"name": "other", "resourceClaimName": "x"})
    found["containers"][0]["resources"]["claims"].insert(0, {"name": "other"})
    assert projection(live, desired=desired) == desired
    found["resourceClaims"].pop(0)
    assert projection(live, desired=desired) != desired


# nodes


def test_every_term_of_the_user_is_pinned_to_the_pool_and_kept() -> None:
    found = pod(template={"affinity": {"nodeAffinity": ZONES, "podAntiAffinity": APART}})["affinity"]
    ours = {"key": PRODUCT, "operator": "In", "values": [H100]}
    terms = found["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert [term["matchExpressions"][-1] for term in terms] == [ours, ours]
    assert [term["matchExpressions"][:-1] for term in terms] == [
        term["matchExpressions"] for term in ZONES[REQUIRED]["nodeSelectorTerms"]
    ]
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    assert found["nodeAffinity"][preferred] == ZONES[preferred]
    assert found["podAntiAffinity"] == APART


def test_without_a_term_of_the_user_there_is_one() -> None:
    asked = ({}, {"affinity": {"podAntiAffinity": APART}}, {"nodeSelector": {"disk": "ssd"}})
    for template in asked:
        found = pod(template=template)
        [term] = found["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
        assert term == {"matchExpressions": [{"key": PRODUCT, "operator": "In", "values": [H100]}]}
    assert found["nodeSelector"] == {"disk": "ssd"}


LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"), max_size=3)
TERMS = st.lists(
    st.lists(
        st.one_of(
            st.builds(
                lambda key, op, value: {"key": key, "operator": op, "values": [value]},
                st.sampled_from("abc"),
                st.sampled_from(["In", "NotIn"]),
                st.sampled_from("12"),
            ),
            st.builds(lambda key: {"key": key, "operator": "Exists"}, st.sampled_from("abc")),
        ),
        min_size=1,
        max_size=3,
    ),
    max_size=3,
)


def asked_of(terms: list[list[dict[str, Any]]]) -> dict[str, Any]:
    if not terms:
        return {}
    listed = [{"matchExpressions": term} for term in terms]
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": listed}}}}


def allows(terms: list[Any], labels: dict[str, str]) -> bool:
    """Node affinity as the scheduler reads it."""
    requirements = [
        [
            Requirement(**{**each, "values": tuple(each.get("values", ()))})
            for each in term["matchExpressions"]
        ]
        for term in terms
    ]
    return any(all(meets(labels, one) for one in term) for term in requirements)


@given(LABELS, TERMS, LABELS.filter(bool))
def test_exactly_the_pools_nodes_that_the_user_allows_are_left(
    labels: dict[str, str], terms: list[list[dict[str, Any]]], pins: dict[str, str]
) -> None:
    found = pod(variant(node_labels=pins), template=asked_of(terms))
    shown = found["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    before = not terms or allows([{"matchExpressions": term} for term in terms], labels)
    assert allows(shown, labels) == (before and pins.items() <= labels.items())


def test_the_taint_of_the_resource_is_tolerated_once_and_the_users_stay() -> None:
    assert pod()["tolerations"] == [TOLERATED]
    assert pod(template=WHOLE)["tolerations"] == [*WHOLE["tolerations"], TOLERATED]
    assert pod(template={"tolerations": [TOLERATED]})["tolerations"] == [TOLERATED]
    assert pod(A_SLICE)["tolerations"] == [{**TOLERATED, "key": A_SLICE.resource}]


def test_a_worker_is_placed_wherever_the_inventory_counted_on() -> None:
    """What the planner's inventory tolerates for a resource is what the pod tolerates."""
    shown = pod(template={"tolerations": [{"key": "team", "operator": "Exists"}]})["tolerations"]
    tolerations = tuple(Toleration(**{"effect": "", **each}) for each in shown)
    server = node("h100-0")
    for taints in ((taint(GPU, "present"),), (taint(GPU, "present", "NoExecute"),), ()):
        here = tainted(server, *taints, taint("team", "a"))
        counted = find_obstacle(
            here,
            placement=Placement(tolerations=(Toleration(key="team", operator="Exists"),)),
            tolerated=frozenset({GPU}),
        )
        rendered_pod = find_obstacle(here, placement=Placement(tolerations=tolerations))
        assert (counted is None) == (rendered_pod is None)


# the pod


@pytest.mark.parametrize("gpu", [ON_FOUR, A_SLICE, CLAIMED], ids=["resource", "mig", "claim"])
def test_the_pod_is_restricted_like_one_without_devices(gpu: GpuPlan) -> None:
    found, plain_pod = pod(gpu), rendered(KEPT)[-1]["spec"]["template"]["spec"]
    assert set(found) - set(plain_pod) <= {"affinity", "tolerations", "resourceClaims"}
    for name in ("securityContext", "automountServiceAccountToken", "serviceAccountName"):
        assert found[name] == plain_pod[name]
    container, other = found["containers"][0], plain_pod["containers"][0]
    assert set(container) == set(other)
    assert container["securityContext"] == other["securityContext"]
    names = [[volume["name"] for volume in one["volumes"]] for one in (found, plain_pod)]
    assert names[0] == names[1]
    assert not any("hostPath" in volume for volume in found["volumes"])


def test_runtime_class_is_the_users() -> None:
    assert "runtimeClassName" not in pod()
    assert pod(template={"runtimeClassName": "nvidia"})["runtimeClassName"] == "nvidia"


def variables(found: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in found["containers"][0]["env"]}


def test_no_variable_of_cpu_nodes_is_set_and_what_libraries_ask_for_is() -> None:
    seen = variables(pod())
    assert not any(name.startswith(("VLLM_CPU", "OMP_", "NVIDIA_", "CUDA_")) for name in seen)
    assert seen["USER"]
    assert int(seen["VLLM_ENGINE_READY_TIMEOUT_S"]) > 3600
    own = variables(pod(engine={"env": [{"name": "USER", "value": "me"}]}))
    assert own["USER"] == "me"


def test_shared_memory_is_the_plans_unless_the_device_plugin_brings_it() -> None:
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "5Gi"}
    found = pod(variant(sharing=Sharing.MPS, clients=4, devices_per_pod=1))
    assert "shm" not in {volume["name"] for volume in found["volumes"]}
    assert "/dev/shm" not in {mount["mountPath"] for mount in found["containers"][0]["volumeMounts"]}


# the engine


def test_ranks_memory_and_graphs_are_pinned() -> None:
    pairs = dict(pairwise(words(variant(pipeline_parallel=2, devices_per_pod=8))))
    assert (pairs["--tensor-parallel-size"], pairs["--pipeline-parallel-size"]) == ("4", "2")
    assert pairs["--distributed-executor-backend"] == "mp"
    assert pairs["--gpu-memory-utilization"] == "0.913"
    assert json.loads(pairs["--compilation-config"]) == {
        "cudagraph_mode": "FULL_AND_PIECEWISE",
        "cudagraph_capture_sizes": [1, 2, 4, 8],
    }
    assert "--enforce-eager" not in pairs


def test_one_rank_starts_no_other_processes_than_it_needs() -> None:
    others = {"--pipeline-parallel-size", "--distributed-executor-backend", "--quantization"}
    assert not others & set(words(A_SLICE))


def test_without_graphs_the_engine_is_told_so() -> None:
    found = words(variant(enforce_eager=True, graph_mode="NONE", captured_sizes=()))
    assert "--enforce-eager" in found
    assert "--compilation-config" not in found


def variants() -> Iterator[Any]:
    for pipeline in (1, 2):
        for eager in (False, True):
            for quantization in ("", "fp8_per_tensor"):
                yield variant(pipeline_parallel=pipeline, enforce_eager=eager, quantization=quantization)


@pytest.mark.parametrize("gpu", list(variants()))
@pytest.mark.parametrize("fields", [{}, {"model": HUB}], ids=["claim", "hub"])
def test_the_engine_knows_each_argument_and_no_user_can_set_it(gpu: GpuPlan, fields: dict[str, Any]) -> None:
    """Names that vLLM 0.32.0's own parser prints (tests/data/README.md)."""
    ours = {word for word in words(gpu, **fields) if word.startswith("--")}
    assert ours <= OPTIONS
    assert ours <= set(PINNED_ARGUMENTS)


# what is not rendered, and where models are read


def test_a_replica_of_several_nodes_is_refused_with_what_would_do() -> None:
    spread = on_gpus(variant(devices_per_pod=8, nodes_per_replica=3, pipeline_parallel=3)).plan
    assert not_rendered(spread, groups=True) is None
    refused = not_rendered(spread, groups=False)
    assert refused is not None
    assert refused.reason == "MultiNodeNotSupported"
    assert refused.numbers == {"nodes": 3, "gpusPerNode": 8}
    for part in ("3 nodes with 8x H100-80GB", "LeaderWorkerSet", "maxGPUsPerReplica"):
        assert part in refused.message
    assert len(refused.message.encode()) < 768


@pytest.mark.parametrize("kept", [KEPT, HUB_KEPT, on_gpus(), on_gpus(CLAIMED)])
def test_a_replica_of_one_node_is_rendered(kept: Kept) -> None:
    assert not_rendered(kept.plan, groups=False) is None


RESERVED = taint(GPU, "present")
ON_GPU = tainted(plain("gpu", labels={}, resources={GPU: 8}), RESERVED)
ORDINARY = plain("cpu", labels={}, resources={})
ANYWHERE = Placement()


@pytest.mark.parametrize(
    ("nodes", "placement", "expected"),
    [
        ((ON_GPU,), ANYWHERE, (GPU,)),
        ((ON_GPU, ORDINARY), ANYWHERE, ()),
        ((ON_GPU, ORDINARY), Placement(node_selector={"kubernetes.io/os": "windows"}), ()),
        ((ON_GPU,), Placement(tolerations=(Toleration(operator="Exists"),)), ()),
        # what somebody keeps for others is not ours to tolerate
        ((tainted(ON_GPU, RESERVED, taint("team", "b")),), ANYWHERE, ()),
        ((tainted(ON_GPU, taint(GPU, "", "NoExecute")),), ANYWHERE, ()),
        ((tainted(ORDINARY, RESERVED),), ANYWHERE, ()),
        ((), ANYWHERE, ()),
    ],
)
def test_taints_of_devices_are_tolerated_where_nothing_else_is_left(
    nodes: tuple[Node, ...], placement: Placement, expected: tuple[str, ...]
) -> None:
    assert tolerated_taints(nodes, placement=placement) == expected


def inspection(asked: Spec, **options: Any) -> dict[str, Any]:
    body = build_inspection(
        asked, reading=reading_of(asked, annotations={}), owner=OWNER, settings=SETTINGS, **options
    )
    found: dict[str, Any] = body["spec"]["template"]["spec"]
    return found


def test_the_inspection_can_run_on_a_cluster_of_nothing_but_gpus() -> None:
    asked = spec(template=WHOLE)
    keys = tolerated_taints([ON_GPU], placement=placement_of(spec()))
    found = inspection(asked, tolerated=keys)
    assert found["tolerations"] == [*WHOLE["tolerations"], TOLERATED]
    assert found["affinity"] == {"nodeAffinity": ZONES}
    assert {**found, "tolerations": WHOLE["tolerations"]} == inspection(asked)
    assert "tolerations" not in inspection(spec())
