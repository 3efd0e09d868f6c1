"""The inventory that chart values state: pools as discovered ones, or every fault by its field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.api.static_inventory import read_static
from tonnage.gpus.inventory import Access, Inventory, Sharing, Vendor

GIB = 2**30
H100: dict[str, Any] = {
    "product": "NVIDIA-H100-80GB-HBM3",
    "nodes": 2,
    "devicesPerNode": 8,
    "nodeCPU": 190,
    "nodeMemory": "1990Gi",
    "nodeLabels": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
}


def read(*pools: Any) -> Inventory:
    found = read_static({"pools": list(pools)})
    assert isinstance(found, Inventory), found
    return found


def faults(*pools: Any) -> list[str]:
    found = read_static({"pools": list(pools)})
    assert isinstance(found, tuple)
    return [each.removeprefix("inventory.pools[0]").partition(":")[0] for each in found]


def test_a_known_product_needs_no_more_than_its_numbers() -> None:
    (pool,) = read(H100).pools
    assert (pool.name, pool.vendor, pool.access) == ("nvidia-h100-80gb-hbm3", Vendor.NVIDIA, Access.RESOURCE)
    assert (pool.resource, pool.compute_capability) == ("nvidia.com/gpu", (9, 0))
    assert (pool.memory_bytes, pool.memory_source) == (
        int(79.11 * GIB),
        "catalogue: the least seen of H100-80GB",
    )
    assert pool.node_labels == H100["nodeLabels"]
    assert [(node.name, node.devices, node.free) for node in pool.nodes] == [
        ("nvidia-h100-80gb-hbm3-0", 8, 8),
        ("nvidia-h100-80gb-hbm3-1", 8, 8),
    ]
    assert (pool.nodes[0].cpu_millis, pool.nodes[0].memory_bytes) == (190_000, 1990 * GIB)


@pytest.mark.parametrize(
    ("changes", "name", "gib"),
    [
        ({"memory": "81559Mi"}, "nvidia-h100-80gb-hbm3", 79.11),
        (
            {"migProfile": "1g.10gb", "resource": "nvidia.com/mig-1g.10gb"},
            "nvidia-h100-80gb-hbm3-mig-1g.10gb",
            9.75,
        ),
        ({"sharing": {"mode": "MPS", "clients": 2}}, "nvidia-h100-80gb-hbm3-mps-2", 39.555),
        ({"sharing": {"mode": "TimeSlicing", "clients": 4}}, "nvidia-h100-80gb-hbm3-shared-4", 79.11),
        ({"product": "MI300X"}, "mi300x", 191.69),
        ({"product": "Gaudi-3", "resource": "habana.ai/gaudi"}, "gaudi-3", 115.63),
        (
            {"product": "R100", "vendor": "NVIDIA", "computeCapability": "11.0", "memory": "288Gi"},
            "r100-294912mib",
            279.36,
        ),
    ],
)
def test_what_can_be_stated(changes: dict[str, Any], name: str, gib: float) -> None:
    (pool,) = read({**H100, "nodeLabels": {}, **changes}).pools
    assert (pool.name, pool.memory_bytes / GIB) == (name, pytest.approx(gib, abs=0.01))


def test_shares_and_slices_are_told_apart() -> None:
    mig = {**H100, "migProfile": "1g.10gb", "resource": "nvidia.com/mig-1g.10gb"}
    sliced = {**mig, "sharing": {"mode": "TimeSlicing", "clients": 2}}
    assert [read(each).pools[0].sharing for each in (H100, mig, sliced)] == [
        Sharing.NONE,
        Sharing.MIG,
        Sharing.TIME_SLICING,
    ]


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"product": None}, [".product"]),
        ({"nodes": 0}, [".nodes"]),
        ({"nodes": "2"}, [".nodes"]),
        ({"devicesPerNode": True}, [".devicesPerNode"]),
        ({"nodeCPU": "lots"}, [".nodeCPU"]),
        ({"nodeMemory": 0}, [".nodeMemory"]),
        ({"nodeMemory": "1e999999"}, [".nodeMemory"]),
        ({"memory": "200Gi"}, [".memory"]),
        ({"memory": "40Gi"}, [".memory"]),
        ({"resource": ""}, [".resource"]),
        ({"vendor": "AMD"}, [".vendor"]),
        ({"vendor": "Acme"}, [".vendor"]),
        ({"computeCapability": "8.0"}, [".computeCapability"]),
        ({"computeCapability": 9.0}, [".computeCapability"]),
        ({"migProfile": "1c.2g.20gb"}, [".migProfile"]),
        ({"sharing": "MPS"}, [".sharing"]),
        ({"sharing": {"mode": "Time", "clients": 1}}, [".sharing.mode", ".sharing.clients"]),
        ({"nodeLabels": {"pool": 7}}, [".nodeLabels"]),
        ({"gpus": 8, "node": 1}, [".gpus", ".node"]),
        ({"product": "R100"}, [".vendor", ".memory"]),
        ({"product": "R100", "vendor": "NVIDIA"}, [".computeCapability", ".memory"]),
        ({"product": "Gaudi-3"}, [".resource"]),
        ({"nodes": 0, "nodeCPU": 0}, [".nodes", ".nodeCPU"]),
    ],
)
def test_refusals_name_the_field(changes: dict[str, Any], fields: list[str]) -> None:
    assert faults({**H100, **changes}) == fields


def test_all_that_is_missing_is_told_at_once() -> None:
    assert faults({}) == [".product", ".nodes", ".devicesPerNode", ".nodeCPU", ".nodeMemory"]
    assert faults("h100")[0] == ""
    assert read_static({"pools": [H100, {}]})[0] == "inventory.pools[1].product: it is missing"  # type: ignore[index]


@pytest.mark.parametrize("values", [None, [], {}, {"pools": None}, {"pools": []}, {"pools": "x"}, "x"])
def test_no_pools_at_all(values: Any) -> None:
    assert read_static(values) == ("inventory.pools: it must be a list of pools",)


def test_pools_of_one_resource_must_be_told_apart_by_labels() -> None:
    other = {**H100, "product": "NVIDIA-L4"}
    assert read_static({"pools": [H100, other]}) == (
        "inventory.pools[1].nodeLabels: pools[0] has the same resource nvidia.com/gpu: a label must tell "
        "their nodes apart, with another value in each",
    )
    apart = {**other, "nodeLabels": {"nvidia.com/gpu.product": "NVIDIA-L4"}}
    assert [pool.name for pool in read(H100, apart).pools] == ["nvidia-h100-80gb-hbm3", "nvidia-l4"]
    assert isinstance(read_static({"pools": [H100, {**other, "nodeLabels": {}}]}), tuple)
    assert len(read(H100, {**other, "product": "MI300X"}).pools) == 2


def test_names_are_unique() -> None:
    zones = [{**H100, "nodeLabels": {"zone": zone}} for zone in "ab"]
    special = {**H100, "resource": "nvidia.com/h100"}
    assert [pool.name for pool in read(*zones, special).pools] == [
        "nvidia-h100-80gb-hbm3-by-zone-a",
        "nvidia-h100-80gb-hbm3-by-zone-b",
        "nvidia-h100-80gb-hbm3-h100",
    ]


def test_pools_of_one_name_are_refused() -> None:
    """Of one product by two resources, or with labels that are spelled in two ways."""
    intel = {**H100, "resource": "gpu.intel.com/i915"}
    spelled = {**H100, "nodeLabels": {"nvidia.com/gpu.product": "NVIDIA_H100_80GB_HBM3"}}
    for other in (intel, spelled):
        found = read_static({"pools": [H100, other]})
        assert isinstance(found, tuple)
        assert found[0].startswith("inventory.pools[1]: pools[0] is called nvidia-h100-80gb-hbm3 too")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    junk=st.dictionaries(
        st.sampled_from([*H100, "memory", "vendor", "sharing", "migProfile", "resource"]), JUNK
    )
)
def test_nonsense_is_refused_and_never_raises(junk: dict[str, Any]) -> None:
    found = read_static({"pools": [{**H100, **junk}]})
    if isinstance(found, tuple):
        assert all(each.startswith("inventory.pools[0].") for each in found)
    else:
        assert found.pools[0].memory_bytes > 0
