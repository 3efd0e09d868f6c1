"""The real scheduler gives pods of GPU plans the devices that the plans were made for, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from cluster.objects import llm
from harness.cluster import Cluster
from harness.simulation import add_nodes
from harness.waiting import wait_until
from tonnage.api.v1alpha1 import Spec
from tonnage.cluster.devices import claim_record
from tonnage.gpus.inventory import Access, Inventory, Pool, Sharing, Vendor
from tonnage.gpus.placement import Placement
from tonnage.models import ModelProfile
from tonnage.models.errors import ConfigError
from tonnage.planning.gpu.choose import gpu_question, plan_on_gpus
from tonnage.planning.gpu.question import Hardware
from tonnage.planning.plan import Demand, Plan
from tonnage.rendering.children import build_children
from tonnage.rendering.gpu import not_rendered, tolerated_taints
from tonnage.rendering.inspection import build_inspection, reading_of
from tonnage.rendering.names import Owner, short_hash
from tonnage.rendering.plan import Kept, hash_of
from unit.gpus import clusters
from unit.models.samples import published_configs
from unit.planning.gpu.samples import ENGINE, model
from unit.rendering.samples import KEPT, SETTINGS

pytestmark = pytest.mark.cluster

SAMPLE = 60
PER_POOL = 4
SPEC = Spec.model_validate(llm()["spec"])
DEMAND = Demand(context_length=4096, concurrency=4)
RENDERED = {"Deployment", "ResourceClaimTemplate"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A plan on a pool, and the name of its object."""

    name: str
    pool: Pool
    plan: Plan


@pytest.fixture(scope="module")
def accelerators(cluster: Cluster) -> Iterator[Inventory]:
    """The nodes, slices and classes of tests/data/accelerators.yaml, and what is read of them again."""
    bodies = clusters.bodies()
    others = [body for body in bodies if body["kind"] != "Node"]
    nodes = [body for body in bodies if body["kind"] == "Node"]
    cluster.apply(*others)
    add_nodes(cluster, *nodes)
    yield clusters.read(stored(cluster)).inventory()
    cluster.remove(*others, *nodes)


def stored(cluster: Cluster) -> list[dict[str, Any]]:
    text = cluster.kubectl("get", "nodes,resourceslices,deviceclasses", "-o", "json")
    items: list[dict[str, Any]] = json.loads(text)["items"]
    return items


def profiles() -> Iterator[tuple[str, ModelProfile]]:
    for file in sorted(published_configs()):
        name = file.removesuffix("_config.json")
        try:
            yield name, model(name)
        except ConfigError:
            continue


def sample(inventory: Inventory) -> list[Case]:
    """For each pool of NVIDIA's a few of the models that it can serve, whichever a hash puts first; the last
    of them on all the devices that one pod can have."""
    known = dict(profiles())
    cases: list[Case] = []
    for pool in inventory.pools:
        if pool.vendor is not Vendor.NVIDIA:
            continue
        names = iter(sorted(known, key=lambda name, pool=pool: short_hash([pool.name, name])))  # type: ignore[misc]
        for hardware in ({},) * (PER_POOL - 1) + ({"tensor_parallel": pool.devices_per_pod},):
            found = (planned(pool, known[name], **hardware) for name in names)
            plan = next(each for each in found if each is not None)
            cases.append(Case(name=f"plan-{len(cases)}", pool=pool, plan=plan))
    return cases


def planned(pool: Pool, profile: ModelProfile, **hardware: Any) -> Plan | None:
    """The plan of a model on this pool alone, if one node holds a replica."""
    outcome = plan_on_gpus(
        gpu_question(
            DEMAND,
            model=profile,
            inventory=Inventory(pools=(pool,)),
            engine=ENGINE,
            hardware=Hardware(**hardware),
        )
    )
    return outcome if isinstance(outcome, Plan) and not_rendered(outcome, groups=False) is None else None


def objects(case: Case, *, namespace: str, spec: Spec = SPEC) -> list[dict[str, Any]]:
    """What the operator makes for the plan, but for the plan itself and what stands before the workers."""
    kept: Kept = replace(KEPT, plan=case.plan)
    owner = Owner(namespace=namespace, name=case.name, uid="")
    plan_hash = hash_of(kept, spec=spec)
    children = build_children(kept, plan_hash=plan_hash, spec=spec, owner=owner, settings=SETTINGS)
    found = [child for child in children if child["kind"] in RENDERED]
    for child in found:
        # there is no such owner: the garbage collector would take them
        del child["metadata"]["ownerReferences"]
    return found


def apply(cluster: Cluster, cases: Iterable[Case], *, namespace: str) -> None:
    children = [child for case in cases for child in objects(case, namespace=namespace)]
    cluster.apply(*children, namespace=namespace)


def pods(cluster: Cluster, *, namespace: str) -> dict[str, dict[str, Any]]:
    """Pods by the name of their object."""
    found = cluster.find("pods", namespace=namespace)
    return {pod["metadata"]["labels"]["tonnage.dev/deployment"]: pod for pod in found}


def all_bound(cluster: Cluster, cases: list[Case], *, namespace: str) -> dict[str, dict[str, Any]] | None:
    found = pods(cluster, namespace=namespace)
    done = len(found) == len(cases) and all("nodeName" in pod["spec"] for pod in found.values())
    return found if done else None


def end_all(cluster: Cluster, *, namespace: str) -> None:
    cluster.kubectl("delete", "deployments,resourceclaimtemplates", "--all", "-n", namespace)
    left = "pods,resourceclaims"

    def gone() -> bool:
        return not json.loads(cluster.kubectl("get", left, "-n", namespace, "-o", "json"))["items"]

    wait_until("pods and their claims to be gone", gone)


def claim_of(cluster: Cluster, pod: Mapping[str, Any], *, namespace: str) -> dict[str, Any]:
    [status] = pod["status"]["resourceClaimStatuses"]
    claim = cluster.get("resourceclaims", status["resourceClaimName"], namespace=namespace)
    assert claim is not None
    return claim


def check(cluster: Cluster, case: Case, pod: dict[str, Any], *, namespace: str) -> None:
    assert pod["spec"]["nodeName"] in {node.name for node in case.pool.nodes}, case.pool.name
    gpu = case.plan.gpu
    assert gpu is not None
    if gpu.access is Access.RESOURCE:
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        assert limits[case.pool.resource] == str(case.plan.gpus_per_replica)
        return
    claim = claim_of(cluster, pod, namespace=namespace)
    record = claim_record(claim)
    assert record.deployment == case.name
    assert len(record.devices) == case.plan.gpus_per_replica
    devices = {
        (one.driver, one.pool, device.name): device
        for one in clusters.read(stored(cluster)).slices
        for device in one.devices
    }
    for held in record.devices:
        attributes = devices[held.driver, held.pool, held.device].attributes
        assert attributes["productName"].replace(" ", "-") == case.pool.product
        assert attributes.get("profile", "") == case.pool.mig_profile


def test_every_plan_of_a_sample_is_placed_on_its_pool(
    cluster: Cluster, accelerators: Inventory, namespace: str
) -> None:
    cases = sample(accelerators)
    assert len(cases) >= SAMPLE
    assert {case.pool.access for case in cases} == {Access.RESOURCE, Access.CLAIM}
    assert {case.pool.sharing for case in cases} == set(Sharing)
    assert {case.plan.tensor_parallel for case in cases} >= {1, 2, 4, 8}
    rounds = [cases[first::PER_POOL] for first in range(PER_POOL)]
    assert all(len({case.pool.name for case in each}) == len(each) for each in rounds)
    for each in rounds:
        apply(cluster, each, namespace=namespace)
        found = wait_until(
            "every pod to have a node",
            lambda each=each: all_bound(cluster, each, namespace=namespace),  # type: ignore[misc]
        )
        for case in each:
            check(cluster, case, found[case.name], namespace=namespace)
        end_all(cluster, namespace=namespace)


@pytest.mark.parametrize(
    ("pool", "tensor"),
    [("nvidia-h100-80gb-hbm3", 8), ("nvidia-h100-80gb-hbm3-dra", 2)],
    ids=["resource", "claim"],
)
def test_what_does_not_fit_waits_for_its_pool(
    cluster: Cluster, accelerators: Inventory, namespace: str, pool: str, tensor: int
) -> None:
    """Other nodes have as many devices free, of other products."""
    where = clusters.pool(accelerators, pool)
    plan = planned(where, model("meta-llama--Meta-Llama-3.1-8B"), tensor_parallel=tensor)
    assert plan is not None
    first, second = (Case(name=name, pool=where, plan=plan) for name in ("first", "second"))
    apply(cluster, [first], namespace=namespace)
    wait_until("the first to have a node", lambda: all_bound(cluster, [first], namespace=namespace))
    apply(cluster, [second], namespace=namespace)

    def unschedulable() -> dict[str, Any] | None:
        pod = pods(cluster, namespace=namespace).get("second", {})
        conditions = pod.get("status", {}).get("conditions", [])
        return next((c for c in conditions if c.get("reason") == "Unschedulable"), None)

    wait_until("the scheduler to have looked", unschedulable)
    assert "nodeName" not in pods(cluster, namespace=namespace)["second"]["spec"]
    cluster.kubectl("delete", "deployment", "first", "-n", namespace)
    found = wait_until(
        "its devices to be given on", lambda: all_bound(cluster, [second], namespace=namespace)
    )
    check(cluster, second, found["second"], namespace=namespace)
    end_all(cluster, namespace=namespace)


def test_a_model_is_read_where_there_is_nothing_but_a_reserved_gpu_node(
    cluster: Cluster, accelerators: Inventory, namespace: str
) -> None:
    """h100-0 is tainted with its resource; the inspection asks for no device."""
    assert clusters.pool(accelerators, "nvidia-h100-80gb-hbm3").devices
    only = {"kubernetes.io/hostname": "h100-0"}
    spec = Spec.model_validate(llm(template={"nodeSelector": only})["spec"])
    nodes = clusters.read(body for body in stored(cluster) if body["kind"] == "Node").nodes
    keys = tolerated_taints(nodes, placement=Placement(node_selector=only))
    assert keys == (clusters.GPU,)
    job = build_inspection(
        spec,
        reading=reading_of(spec, annotations={}),
        owner=Owner(namespace=namespace, name="chat", uid=""),
        settings=SETTINGS,
        tolerated=keys,
    )
    del job["metadata"]["ownerReferences"]
    cluster.apply(job, namespace=namespace)

    def node() -> str | None:
        found = pods(cluster, namespace=namespace).get("chat", {}).get("spec", {}).get("nodeName")
        return None if found is None else str(found)

    assert wait_until("the inspection to have a node", node) == "h100-0"
    cluster.kubectl("delete", "jobs", "--all", "-n", namespace)
