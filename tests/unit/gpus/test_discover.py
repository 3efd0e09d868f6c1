"""Pools, what is free now, and problems: of the nodes in tests/data/accelerators.yaml and changes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tonnage.gpus.discover import take_inventory
from tonnage.gpus.inventory import Access, Sharing, Vendor
from tonnage.gpus.nodes import Node, Taint, Toleration
from tonnage.gpus.placement import Placement
from unit.gpus.clusters import GPU, changed, holder, node, plain, pool, real, reasons

GIB = 2**30
PRESENT = Taint(key=GPU, value="present", effect="NoSchedule")
DEDICATED = Taint(key="dedicated", value="llm", effect="NoSchedule")


def test_pools_of_the_data() -> None:
    """Name, GiB of a device, devices, devices of one pod, resource or device class."""
    table = [
        (each.name, round(each.memory_bytes / GIB, 2), each.devices, each.devices_per_pod, each.resource)
        for each in real().inventory().pools
    ]
    assert table == [
        ("amd-instinct-mi300x-oam", 191.69, 8, 8, "amd.com/gpu"),
        ("cpu", 0.0, 1, 1, ""),
        ("max-1550", 63.98, 2, 2, "gpu.intel.com/i915"),
        ("nvidia-a100-80gb-pcie", 79.11, 4, 4, GPU),
        ("nvidia-a100-sxm4-40gb", 39.38, 8, 8, GPU),
        ("nvidia-a100-sxm4-40gb-dra", 39.38, 1, 1, "gpu.nvidia.com"),
        ("nvidia-a100-sxm4-40gb-mig-1g.5gb", 4.75, 56, 1, GPU),
        ("nvidia-a100-sxm4-40gb-mig-3g.20gb-dra", 19.62, 1, 1, "mig.nvidia.com"),
        ("nvidia-b200", 178.35, 8, 8, GPU),
        ("nvidia-h100-80gb-hbm3", 79.11, 15, 8, GPU),
        ("nvidia-h100-80gb-hbm3-dra", 79.11, 2, 2, "gpu.nvidia.com"),
        ("nvidia-h100-80gb-hbm3-mig-1g.10gb", 9.75, 2, 1, "nvidia.com/mig-1g.10gb"),
        ("nvidia-h100-80gb-hbm3-mig-2g.20gb", 19.62, 1, 1, "nvidia.com/mig-2g.20gb"),
        ("nvidia-h100-80gb-hbm3-mig-3g.40gb", 39.5, 1, 1, "nvidia.com/mig-3g.40gb"),
        ("nvidia-h200", 139.72, 8, 8, GPU),
        ("nvidia-l4", 21.96, 1, 1, GPU),
        ("nvidia-l4-by-cloud.google.com-gke-accelerator-nvidia-l4", 21.96, 2, 2, GPU),
        ("nvidia-l40s", 44.31, 4, 4, GPU),
        ("nvidia-l40s-mps-2-renamed", 22.15, 2, 1, "nvidia.com/gpu.shared"),
        ("tesla-t4-shared-4", 14.56, 4, 1, GPU),
    ]


def test_problems_of_the_data() -> None:
    assert reasons(real().inventory()) == {"gaudi-0": ["NoProductLabel"], "mixed-0": ["MixedProducts"]}


def test_a_pool_says_all_that_a_plan_needs() -> None:
    inventory = real().inventory()
    b200 = pool(inventory, "nvidia-b200")
    assert (b200.vendor, b200.product, b200.access) == (Vendor.NVIDIA, "NVIDIA-B200", Access.RESOURCE)
    assert (b200.compute_capability, b200.computes) == ((10, 0), ("bf16", "fp8", "fp4"))
    assert (b200.bandwidth_bytes, b200.clients) == (8000 * 10**9, 1)
    assert b200.node_labels == {"nvidia.com/gpu.product": "NVIDIA-B200"}
    assert b200.memory_source == "catalogue: the least seen of B200"
    shared = pool(inventory, "tesla-t4-shared-4")
    assert (shared.product, shared.sharing, shared.clients) == ("Tesla-T4", Sharing.TIME_SLICING, 4)
    assert shared.node_labels == {
        "nvidia.com/gpu.product": "Tesla-T4-SHARED",
        "nvidia.com/gpu.replicas": "4",
    }
    mps = pool(inventory, "nvidia-l40s-mps-2-renamed")
    assert (mps.sharing, mps.clients) == (Sharing.MPS, 2)
    assert mps.memory_source == "1/2 (MPS) of catalogue: the least seen of L40S"
    mig = pool(inventory, "nvidia-h100-80gb-hbm3-mig-3g.40gb")
    assert (mig.sharing, mig.mig_profile, mig.computes) == (Sharing.MIG, "3g.40gb", ("bf16", "fp8"))
    amd = pool(inventory, "amd-instinct-mi300x-oam")
    assert (amd.vendor, amd.compute_capability, amd.computes) == (Vendor.AMD, None, ("bf16", "fp8"))
    claimed = pool(inventory, "nvidia-a100-sxm4-40gb-mig-3g.20gb-dra")
    assert (claimed.access, claimed.node_labels) == (Access.CLAIM, {})
    assert claimed.selectors == (
        'device.attributes["gpu.nvidia.com"].productName == "NVIDIA A100-SXM4-40GB"',
        'device.attributes["gpu.nvidia.com"].profile == "3g.20gb"',
    )


# What is free now


def test_free_is_allocatable_less_what_bound_pods_hold() -> None:
    cluster = replace(
        real(),
        pods=(
            holder("h100-0", 3, name="a", cpu_millis=4000, memory_bytes=64 * GIB),
            holder("h100-0", 2, name="b", cpu_millis=1000, memory_bytes=GIB, phase="Pending"),
            holder("h100-0", 1, name="done", phase="Succeeded"),
            holder("h100-0", 1, name="failed", phase="Failed"),
            holder("", 8, name="waiting", phase="Pending"),
        ),
    )
    found = {each.name: each for each in pool(cluster.inventory(), "nvidia-h100-80gb-hbm3").nodes}
    assert (found["h100-0"].free, found["mig-mixed-0"].free) == (3, 7)
    assert found["h100-0"].cpu_millis == 185_000
    assert found["h100-0"].memory_bytes == (1990 - 65) * GIB


@pytest.mark.parametrize(
    ("placement", "free"),
    [
        (Placement(cpu_millis=2000, memory_bytes=GIB), 7),
        (Placement(cpu_millis=2001), 0),
        (Placement(memory_bytes=GIB + 1), 0),
    ],
)
def test_devices_are_not_free_where_a_pod_would_not_get_its_cpu_or_memory(
    placement: Placement, free: int
) -> None:
    """kube-scheduler would leave it pending."""
    busy = holder("h100-0", 1, cpu_millis=188_000, memory_bytes=1989 * GIB)
    inventory = take_inventory([node("h100-0")], pods=[busy], placement=placement)
    assert (inventory.pools[0].free, inventory.pools[0].devices) == (free, 8)
    assert reasons(inventory) == ({} if free else {"h100-0": ["Crowded"]})


def test_a_pod_holds_of_its_resource_only() -> None:
    pods = (holder("mig-mixed-0", 2, resource="nvidia.com/mig-1g.10gb"),)
    inventory = replace(real(), pods=pods).inventory()
    free = {
        each.name: each.free for each in inventory.pools if "h100" in each.name and "dra" not in each.name
    }
    assert free == {
        "nvidia-h100-80gb-hbm3": 15,
        "nvidia-h100-80gb-hbm3-mig-1g.10gb": 0,
        "nvidia-h100-80gb-hbm3-mig-2g.20gb": 1,
        "nvidia-h100-80gb-hbm3-mig-3g.40gb": 1,
    }


def test_what_an_object_holds_itself_can_be_left_out() -> None:
    pods = (holder("l4-0", deployment="chat"), holder("l4-gke-0", deployment="chat", namespace="other"))
    cluster = replace(real(), pods=pods)
    assert pool(cluster.inventory(), "nvidia-l4").free == 0
    without = cluster.inventory(without="ns/chat")
    assert pool(without, "nvidia-l4").free == 1
    assert pool(without, "nvidia-l4-by-cloud.google.com-gke-accelerator-nvidia-l4").free == 1


def test_devices_that_are_not_healthy_are_not_counted() -> None:
    node = replace(changed("h100-0"), allocatable={GPU: 7})
    inventory = take_inventory([node])
    assert (inventory.pools[0].devices, reasons(inventory)) == (7, {"h100-0": ["UnhealthyDevices"]})
    assert inventory.problems[0].message.startswith(
        "1 of 8 devices of nvidia-h100-80gb-hbm3 are not allocatable"
    )


# Nodes that are left out


@pytest.mark.parametrize(
    ("changes", "placement", "reason"),
    [
        ({"ready": False}, Placement(), "NotReady"),
        ({"schedulable": False}, Placement(), "Cordoned"),
        ({}, Placement(node_selector={"zone": "a"}), "NotSelected"),
        ({"taints": (PRESENT, DEDICATED)}, Placement(), "Tainted"),
        ({"taints": (replace(PRESENT, effect="NoExecute"),)}, Placement(), "Tainted"),
        ({}, Placement(cpu_millis=200_000), "TooSmall"),
        ({}, Placement(memory_bytes=2**50), "TooSmall"),
    ],
)
def test_nodes_a_pod_cannot_use_are_left_out(
    changes: dict[str, object], placement: Placement, reason: str
) -> None:
    inventory = take_inventory([replace(node("h100-0"), **changes)], placement=placement)  # type: ignore[arg-type]
    assert inventory.pools == ()
    assert reasons(inventory) == {"h100-0": [reason]}
    assert inventory.problems[0].message.startswith("8 of nvidia-h100-80gb-hbm3 left out: ")


def test_the_taint_of_the_requested_resource_keeps_only_others_away() -> None:
    """As the admission plugin ExtendedResourceToleration has it; the pod must carry the toleration."""
    assert take_inventory([replace(node("h100-0"), taints=(PRESENT,))]).pools[0].free == 8
    mixed = take_inventory([replace(node("mig-mixed-0"), taints=(PRESENT,))])
    assert [each.name for each in mixed.pools] == ["nvidia-h100-80gb-hbm3"]
    assert reasons(mixed) == {"mig-mixed-0": ["Tainted"] * 3}
    cpu = take_inventory([replace(node("cpu-0"), taints=(PRESENT,))])
    assert cpu.pools == ()
    assert cpu.problems[0].message.startswith("the node left out: taint nvidia.com/gpu=present:NoSchedule")
    tolerant = Placement(tolerations=(Toleration(operator="Exists"),))
    assert (
        len(take_inventory([replace(node("mig-mixed-0"), taints=(PRESENT,))], placement=tolerant).pools) == 4
    )


# Nodes that contradict themselves


@pytest.mark.parametrize(
    ("changed_node", "pools", "found"),
    [
        (changed("h100-0", gpu_count="4"), {}, ["MixedProducts"]),
        (changed("h100-0", resources={GPU: 6}), {"nvidia-h100-80gb-hbm3": 6}, ["FewerDevices"]),
        (changed("h100-0", gpu_memory="200000"), {"nvidia-h100-80gb-hbm3": 8}, ["MemoryDoubtful"]),
        (changed("h100-0", gpu_memory="40960"), {"nvidia-h100-80gb-hbm3-40960mib": 8}, ["MemoryDoubtful"]),
        (changed("h100-0", drop=["nvidia.com/gpu.memory"]), {"nvidia-h100-80gb-hbm3": 8}, []),
        (changed("h100-0", gpu_memory="much"), {"nvidia-h100-80gb-hbm3": 8}, []),
        (changed("h100-0", gpu_memory="0"), {"nvidia-h100-80gb-hbm3": 8}, []),
        (changed("h100-0", gpu_compute_major="8"), {}, ["Contradiction"]),
        (changed("h100-0", drop=["nvidia.com/gpu.product"]), {}, ["NoProductLabel"]),
        (changed("h100-0", resources={}), {}, ["NoDevices"]),
        (changed("h100-0", resources={GPU: 0}), {}, ["NoDevices"]),
        (changed("l4-gke-0", resources={}), {}, ["NoDevices"]),
        (changed("mi300x-0", resources={}), {}, ["NoDevices"]),
        (changed("max1550-0", resources={}), {}, ["NoDevices"]),
        (
            changed("h100-0", gpu_product="GRID-A100-10C", gpu_memory="10240"),
            {"grid-a100-10c-10240mib": 8},
            [],
        ),
        (
            changed("h100-0", gpu_product="New-1", drop=["nvidia.com/gpu.memory"]),
            {},
            ["UnknownProduct"],
        ),
        (
            changed("h100-0", gpu_product="New-1", drop=["nvidia.com/gpu.compute.major"]),
            {},
            ["UnknownProduct"],
        ),
        (changed("t4-0", drop=["nvidia.com/gpu.replicas"]), {}, ["SharingUnknown"]),
        (changed("l40s-mps-0", drop=["nvidia.com/gpu.replicas"]), {}, ["SharingUnknown"]),
        (changed("t4-0", resources={GPU: 8}), {}, ["MixedProducts"]),
        (changed("mig-single-0", gpu_product="NVIDIA-H100-80GB-HBM3-MIG-INVALID"), {}, ["MigInvalid"]),
        (changed("mig-single-0", gpu_product="NVIDIA-A100-SXM4-40GB-MIG-1c.2g.10gb"), {}, ["MigShared"]),
        (
            changed("mig-mixed-0", resources={"nvidia.com/mig-1g.10gb": 4}),
            {},
            ["MixedProducts"],
        ),
        (
            changed("mig-mixed-0", resources={"nvidia.com/mig-1g.10gb": 1}),
            {"nvidia-h100-80gb-hbm3-mig-1g.10gb": 1},
            ["FewerDevices"],
        ),
    ],
)
def test_what_is_believed_of_contradictions(
    changed_node: Node, pools: dict[str, int], found: list[str]
) -> None:
    inventory = take_inventory([changed_node])
    assert {each.name: each.devices for each in inventory.pools} == pools
    assert [each.reason for each in inventory.problems] == found


def test_a_report_below_the_catalogue_makes_a_pool_of_its_own() -> None:
    low = changed("h100-0", gpu_memory="40960")
    inventory = take_inventory([replace(low, name="low"), node("h100-0")])
    ours, usual = pool(inventory, "nvidia-h100-80gb-hbm3-40960mib"), pool(inventory, "nvidia-h100-80gb-hbm3")
    assert ours.memory_bytes == int(40960 * 2**20 * 0.97)
    assert ours.memory_source == "97% of the 40.00 GiB that the node reports"
    assert ours.node_labels["nvidia.com/gpu.memory"] == "40960"
    assert (ours.devices, usual.devices) == (8, 8)
    assert usual.memory_bytes > ours.memory_bytes


def test_an_unknown_product_is_taken_by_what_its_labels_say() -> None:
    inventory = take_inventory([changed("b200-0", gpu_product="NVIDIA-R100", gpu_memory="294912")])
    (found,) = inventory.pools
    assert (found.name, found.compute_capability) == ("nvidia-r100-294912mib", (10, 0))
    assert found.computes == ("bf16", "fp8", "fp4")
    assert found.bandwidth_bytes == 0


def test_sharing_of_one_resource_beside_whole_cards() -> None:
    """The device plugin may share some cards of a node under another name."""
    partly = changed("l40s-mps-0", resources={GPU: 3, f"{GPU}.shared": 2}, gpu_count="4")
    inventory = take_inventory([partly])
    assert {each.name: (each.devices, each.clients) for each in inventory.pools} == {
        "nvidia-l40s": (3, 1),
        "nvidia-l40s-mps-2-renamed": (2, 2),
    }
    assert inventory.problems == ()


def test_time_sliced_mig_keeps_its_profile() -> None:
    node = changed(
        "mig-single-0",
        resources={GPU: 112},
        gpu_replicas="2",
        gpu_product="NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED",
    )
    (found,) = take_inventory([node]).pools
    assert (found.name, found.sharing) == ("nvidia-a100-sxm4-40gb-mig-1g.5gb-shared-2", Sharing.TIME_SLICING)
    assert (found.mig_profile, found.clients, found.devices_per_pod) == ("1g.5gb", 2, 1)


@pytest.mark.parametrize(
    ("labels", "resources", "pools", "found"),
    [
        # the older labeller: counts under beta. only
        (
            {"beta.amd.com/gpu.device-id.74a1": "8", "beta.amd.com/gpu.vram.192G": "8"},
            {"amd.com/gpu": 8},
            {"amd-instinct-mi300x-oam-by-beta.amd.com-gpu.device-id.74a1-8": 191.69},
            [],
        ),
        # a virtual function, without a product's name
        (
            {"amd.com/gpu.device-id": "74b5", "amd.com/gpu.vram": "191G"},
            {"amd.com/gpu": 8},
            {"amd-instinct-mi300x-vf-by-amd.com-gpu.device-id-74b5": 190.5},
            [],
        ),
        (
            {"amd.com/gpu.product-name": "AMD_Instinct_MI355X_OAM"},
            {"amd.com/gpu": 8},
            {"amd-instinct-mi355x-oam": 287.69},
            [],
        ),
        # eight partitions of each device: what the label says is believed
        (
            {"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM", "amd.com/gpu.vram": "24G"},
            {"amd.com/gpu": 64},
            {"amd-instinct-mi300x-oam-24064mib": 22.8},
            ["MemoryDoubtful"],
        ),
        (
            {"amd.com/gpu.device-id.74a1": "4", "amd.com/gpu.device-id.74a5": "4"},
            {"amd.com/gpu": 8},
            {},
            ["MixedProducts"],
        ),
        ({"beta.amd.com/gpu.device-id.74a1": "4"}, {"amd.com/gpu": 8}, {}, ["MixedProducts"]),
        (
            {"amd.com/gpu.product-name": "AMD_Radeon_8060S", "amd.com/gpu.vram": "64G"},
            {"amd.com/gpu": 1},
            {},
            ["UnknownProduct"],
        ),
        ({}, {"amd.com/gpu": 8}, {}, ["NoProductLabel"]),
        ({"amd.com/gpu.device-id": "74a1"}, {"amd.com/cpx_nps4": 64}, {}, ["Partitioned"]),
        (
            {"tonnage.dev/accelerator": "MI300X"},
            {"amd.com/gpu": 8},
            {"amd-instinct-mi300x-oam-by-tonnage.dev-accelerator-MI300X": 191.69},
            [],
        ),
        ({"tonnage.dev/accelerator": "H100"}, {"amd.com/gpu": 8}, {}, ["NoProductLabel"]),
        (
            {"tonnage.dev/accelerator": "H100"},
            {GPU: 8},
            {"nvidia-h100-80gb-hbm3-by-tonnage.dev-accelerator-H100": 79.11},
            [],
        ),
        (
            {"gpu.intel.com/product": "Max_1100", "gpu.intel.com/device.count": "2"},
            {"gpu.intel.com/xe": 8},
            {"max-1100-shared-4-xe": 43.36},
            [],
        ),
        (
            {"gpu.intel.com/product": "Max_1100", "gpu.intel.com/device.count": "2"},
            {"gpu.intel.com/xe": 3},
            {},
            ["MixedProducts"],
        ),
        ({"gpu.intel.com/product": "Flex_170"}, {"gpu.intel.com/i915": 1}, {}, ["UnknownProduct"]),
        (
            {"tonnage.dev/accelerator": "Gaudi-3"},
            {"habana.ai/gaudi": 8},
            {"intel-gaudi-3-by-tonnage.dev-accelerator-Gaudi-3": 115.63},
            [],
        ),
        (
            {"habana.ai/product.name": "Intel-Gaudi-2-96GB"},
            {"habana.ai/gaudi": 8},
            {"intel-gaudi-2-96gb": 86.73},
            [],
        ),
        # partitions that the label for memory does not show
        (
            {"amd.com/gpu.device-id": "74a1", "amd.com/gpu.vram": "192G", "amd.com/gpu.cu-count": "38"},
            {"amd.com/gpu": 64},
            {},
            ["Partitioned"],
        ),
        (
            {"amd.com/gpu.device-id": "74a1", "amd.com/compute-memory-partition": "cpx_nps1"},
            {"amd.com/gpu": 64},
            {},
            ["Partitioned"],
        ),
        (
            {"amd.com/gpu.device-id": "74a1", "amd.com/gpu.compute-memory-partition": "SPX_NPS1"},
            {"amd.com/gpu": 8},
            {"amd-instinct-mi300x-oam-by-amd.com-gpu.device-id-74a1": 191.69},
            [],
        ),
        # somebody else's extended resource is no accelerator
        ({}, {"example.com/dongle": 2}, {"cpu": 0.0}, []),
    ],
)
def test_other_labels_and_vendors(
    labels: dict[str, str], resources: dict[str, int], pools: dict[str, float], found: list[str]
) -> None:
    inventory = take_inventory([plain(labels=labels, resources=resources)])
    got = {each.name: each.memory_bytes / GIB for each in inventory.pools}
    assert list(got) == list(pools)
    assert list(got.values()) == pytest.approx(list(pools.values()), abs=0.01)
    assert [each.reason for each in inventory.problems] == found


GKE = "cloud.google.com/gke-"
BY_GKE = "-by-cloud.google.com-gke-accelerator-"


@pytest.mark.parametrize(
    ("labels", "name", "clients", "per_pod"),
    [
        ({"accelerator": "nvidia-l4"}, f"nvidia-l4{BY_GKE}nvidia-l4", 1, 4),
        (
            {
                "accelerator": "nvidia-l4",
                "gpu-sharing-strategy": "time-sharing",
                "max-shared-clients-per-gpu": "4",
            },
            f"nvidia-l4-shared-4{BY_GKE}nvidia-l4",
            4,
            1,
        ),
        (
            {"accelerator": "nvidia-l4", "gpu-sharing-strategy": "mps", "max-shared-clients-per-gpu": "2"},
            f"nvidia-l4-mps-2{BY_GKE}nvidia-l4",
            2,
            1,
        ),
        (
            {"accelerator": "nvidia-tesla-a100", "gpu-partition-size": "1g.5gb"},
            f"nvidia-a100-sxm4-40gb-mig-1g.5gb{BY_GKE}nvidia-tesla-a100",
            1,
            1,
        ),
    ],
)
def test_gke_says_how_cards_are_shared_and_cut(
    labels: dict[str, str], name: str, clients: int, per_pod: int
) -> None:
    full = {f"{GKE}{key}": text for key, text in labels.items()}
    (found,) = take_inventory([plain(labels=full, resources={GPU: 4})]).pools
    assert (found.name, found.clients, found.devices_per_pod) == (name, clients, per_pod)
    assert set(full) - set(found.node_labels) == (
        {f"{GKE}gpu-sharing-strategy"} if "-shared-" in name else set()
    )
    unknown = {f"{GKE}accelerator": "nvidia-l4", f"{GKE}gpu-sharing-strategy": "mps"}
    assert reasons(take_inventory([plain(labels=unknown, resources={GPU: 4})])) == {"x": ["SharingUnknown"]}


def named(labels: dict[str, str], *, resource: str = GPU, **fields: Any) -> Node:
    return replace(plain(labels=labels, resources={resource: 8}), **fields)


@pytest.mark.parametrize(
    ("first", "second", "told_apart"),
    [
        # by product, and by device id alone
        (
            named({"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"}, resource="amd.com/gpu"),
            named({"amd.com/gpu.device-id": "74a1"}, resource="amd.com/gpu"),
            True,
        ),
        (
            named({"tonnage.dev/accelerator": "H100_80GB"}),
            named({"tonnage.dev/accelerator": "h100-80gb"}),
            True,
        ),
        # shared by as many, in another way: only MPS is pinned
        (
            node("t4-0"),
            replace(node("t4-0"), labels={**node("t4-0").labels, f"{GPU}.sharing-strategy": "mps"}),
            False,
        ),
        (
            replace(node("t4-0"), labels={**node("t4-0").labels, f"{GPU}.sharing-strategy": "mps"}),
            node("t4-0"),
            True,
        ),
        # a partition of what another node has whole
        (
            named({f"{GKE}accelerator": "nvidia-tesla-a100"}),
            named({f"{GKE}accelerator": "nvidia-tesla-a100", f"{GKE}gpu-partition-size": "1g.5gb"}),
            False,
        ),
        # less memory than the product has
        (replace(node("h100-0"), name="x"), changed("h100-0", gpu_memory="40960"), False),
    ],
)
def test_pods_of_one_pool_are_kept_off_nodes_of_another(first: Node, second: Node, told_apart: bool) -> None:
    """Or it is reported where labels cannot."""
    one, other = replace(first, name="one"), replace(second, name="other")
    inventory = take_inventory([one, other])
    assert [len(each.nodes) for each in inventory.pools] == [1, 1]
    found = {each.node: each.message for each in inventory.problems if each.reason == "NotToldApart"}
    assert ("other" in found) is not told_apart
    meant = next(each for each in inventory.pools if each.nodes[0].name == "one")
    if not told_apart:
        assert found["other"].startswith(f"pods that are meant for {meant.name} may be placed here")


def test_labels_in_any_order_are_the_same_labels() -> None:
    """An older and a newer labeller on one node."""
    labels = {"beta.amd.com/gpu.device-id.74a1": "8", "amd.com/gpu.device-id.74a1": "8"}
    found = [
        take_inventory([named(dict(items), resource="amd.com/gpu")])
        for items in (labels.items(), reversed(labels.items()))
    ]
    assert found[0] == found[1]
    assert found[0].pools[0].node_labels == {"amd.com/gpu.device-id.74a1": "8"}


def test_products_that_only_differ_in_spelling_are_not_mixed() -> None:
    nodes = [named({f"{GPU}.product": name}, name=name) for name in ("NVIDIA-L4", "NVIDIA_L4")]
    inventory = take_inventory(nodes)
    assert [(each.name, len(each.nodes)) for each in inventory.pools] == [("nvidia-l4", 1)]
    assert reasons(inventory) == {"NVIDIA_L4": ["NotToldApart"]}


def test_problems_name_what_to_do() -> None:
    nodes = [
        plain("a", labels={}, resources={GPU: 1}),
        plain("b", labels={"nvidia.com/gpu.product": "New"}, resources={GPU: 1}),
    ]
    messages = [each.message for each in take_inventory(nodes).problems]
    assert "install GPU feature discovery" in messages[0]
    assert "or label the node tonnage.dev/accelerator" in messages[1]
