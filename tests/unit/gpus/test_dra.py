"""Devices by ResourceClaims: what slices publish, what claims hold, and what both ways of asking share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.gpus.inventory import Pool
from tonnage.gpus.nodes import Taint
from tonnage.gpus.records import Records
from tonnage.gpus.slices import Counter, Device, DeviceClass, DeviceRef, ResourceClaim, ResourceSlice
from unit.gpus.clusters import GPU, changed, holder, plain, pool, real, reasons

DRIVER = "gpu.nvidia.com"
CLASSES = (
    DeviceClass(name="gpu.nvidia.com"),
    DeviceClass(name="mig.nvidia.com"),
    DeviceClass(name="gpu.amd.com"),
)


def claim(*devices: str, on: str = "dra-0", **fields: Any) -> ResourceClaim:
    refs = tuple(DeviceRef(DRIVER, on, each) for each in devices)
    return ResourceClaim(**{"namespace": "ns", "name": "c", "devices": refs, **fields})


def with_claims(*claims: ResourceClaim) -> Records:
    return replace(real(), claims=claims)


def device(name: str = "gpu-0", **changes: Any) -> Device:
    fields: dict[str, Any] = {
        "attributes": {"type": "gpu", "productName": "NVIDIA L4", "cudaComputeCapability": "8.9.0"},
        "capacity": {"memory": 23034 * 2**20},
        **changes,
    }
    return Device(name=name, **fields)


def part(name: str, profile: str, *, consumes: int = 0, **changes: Any) -> Device:
    """A part of an A100 that draws so much on the counter of its card."""
    return device(
        name,
        attributes={
            "type": "mig",
            "productName": "NVIDIA A100-SXM4-40GB",
            "cudaComputeCapability": "8.0.0",
            "profile": profile,
        },
        capacity={},
        consumes=(Counter("card", "memory", consumes),) if consumes else (),
        **changes,
    )


PART = part("part", "3g.20gb")


def slice_of(devices: Iterable[Device], **changes: Any) -> ResourceSlice:
    fields = {"name": "s", "driver": DRIVER, "pool": "n", "node": "n", "devices": tuple(devices), **changes}
    return ResourceSlice(**fields)


def cluster(*slices: ResourceSlice, classes: tuple[DeviceClass, ...] = CLASSES) -> Records:
    node = plain("n", labels={}, resources={})
    return Records(nodes=(node,), slices=slices, classes=classes)


def free(found: Pool) -> tuple[int, int]:
    return found.free, found.devices


def test_what_claims_hold_is_not_free() -> None:
    name = "nvidia-h100-80gb-hbm3-dra"
    assert free(pool(with_claims(claim("gpu-1")).inventory(), name)) == (1, 2)
    assert free(pool(with_claims(claim("gpu-1"), claim("gpu-0")).inventory(), name)) == (0, 2)
    assert free(pool(with_claims(claim("gpu-7"), claim("gpu-1", on="other")).inventory(), name)) == (2, 2)
    own = with_claims(claim("gpu-1", deployment="chat"))
    assert free(pool(own.inventory(without="ns/chat"), name)) == (2, 2)
    # a claim that its pods name is its own without a label, of this namespace only
    pods = (holder("dra-0", resource="x/y", deployment="chat", claims=("c",)),)
    for space, count in (("ns", 2), ("other", 1)):
        named = replace(with_claims(claim("gpu-1", namespace=space)), pods=pods)
        assert free(pool(named.inventory(without="ns/chat"), name)) == (count, 2)
        assert free(pool(named.inventory(without="ns/other"), name)) == (1, 2)


def test_a_device_whose_part_is_held_is_not_free() -> None:
    """The parts are not offered beside the whole: nothing is counted twice."""
    names = [each.name for each in real().inventory().pools if each.name.endswith("-dra")]
    assert names == [
        "nvidia-a100-sxm4-40gb-dra",
        "nvidia-a100-sxm4-40gb-mig-3g.20gb-dra",
        "nvidia-h100-80gb-hbm3-dra",
    ]
    held = with_claims(claim("gpu-0-mig-1g5gb-19-0", on="dra-mig-0")).inventory()
    assert free(pool(held, "nvidia-a100-sxm4-40gb-dra")) == (0, 1)
    assert free(pool(held, "nvidia-a100-sxm4-40gb-mig-3g.20gb-dra")) == (1, 1)


@pytest.mark.parametrize(
    ("slices", "devices", "found"),
    [
        ([slice_of([device("a"), device("b")])], 2, []),
        # of two generations the newer, whatever the order
        (
            [
                slice_of([device("a"), device("b")], name="old", generation=1),
                slice_of([device("a")], name="new", generation=2),
            ],
            1,
            [],
        ),
        (
            [
                slice_of([device("a"), device("b")], name="a", generation=1),
                slice_of([device("a")], name="b", generation=2),
            ],
            1,
            [],
        ),
        ([slice_of([device()], slices_in_pool=2)], None, ["SlicesIncomplete"]),
        ([slice_of([device()]), slice_of([device("b")], name="t")], None, ["SlicesIncomplete"]),
        ([slice_of([device(), device()])], None, ["SlicesIncomplete"]),
        ([slice_of([device()], node="")], None, ["NotOfOneNode"]),
        ([slice_of([device(node="n")], node="")], 1, []),
        (
            [slice_of([device(), device("b", taints=(Taint(key="xid", value="79", effect="NoExecute"),))])],
            1,
            ["DeviceTainted"],
        ),
        (
            [slice_of([device(taints=(Taint(key="xid", value="79", effect="NoSchedule"),))])],
            None,
            ["DeviceTainted"],
        ),
        ([slice_of([device(taints=(Taint(key="seen", value="", effect="None"),))])], 1, []),
        ([slice_of([device(attributes={"type": "vfio"})])], None, []),
        ([slice_of([device(attributes={"type": "gpu"})])], None, ["UnknownProduct"]),
        ([slice_of([device(capacity={})])], 1, []),
        # another driver's idea of the same card's memory is the same pool
        ([slice_of([device(), device("b", capacity={"memory": 23028 * 2**20})])], 2, []),
        ([slice_of([device()], driver="other.example.com")], None, []),
        ([slice_of([device()], driver="other.example.com", slices_in_pool=2)], None, []),
        ([slice_of([PART], name="p"), slice_of([], name="q", slices_in_pool=2)], None, ["SlicesIncomplete"]),
        ([slice_of([device(attributes={**PART.attributes, "profile": "1c.3g.20gb"})])], None, ["MigShared"]),
        ([slice_of([device(attributes={**PART.attributes, "profile": "half"})])], None, ["MigShared"]),
    ],
)
def test_what_is_counted_of_slices(
    slices: list[ResourceSlice], devices: int | None, found: list[str]
) -> None:
    for order in (slices, slices[::-1]):
        inventory = cluster(*order).inventory()
        pools = {each.name: each.devices for each in inventory.pools if each.name != "cpu"}
        assert pools == ({} if devices is None else {"nvidia-l4-dra": devices})
        assert [each.reason for each in inventory.problems] == found


@pytest.mark.parametrize(
    "slices",
    [
        [slice_of([device()], slices_in_pool=2)],
        [slice_of([], slices_in_pool=2)],
        [slice_of([device(capacity={}, consumes=(Counter("none", "memory", 1),))])],
        [slice_of([device(taints=(Taint(key="xid", value="79", effect="NoExecute"),))])],
    ],
)
def test_a_node_with_devices_is_no_cpu_node(slices: list[ResourceSlice]) -> None:
    """Whatever keeps its devices from being counted: while a driver starts, say."""
    inventory = cluster(*slices).inventory()
    assert "cpu" not in {each.name for each in inventory.pools}


def test_what_claims_hold_is_not_free_by_the_plugin_while_slices_are_incomplete() -> None:
    both = replace(changed("h100-0", resources={GPU: 8}), name="n")
    pieces = (slice_of([device("a")], name="a", slices_in_pool=2),)
    held = Records(nodes=(both,), slices=pieces, classes=CLASSES, claims=(claim("a", on="n"),))
    assert pool(held.inventory(), "nvidia-h100-80gb-hbm3").free == 7


def test_a_whole_is_counted_before_its_parts_where_no_memory_is_published() -> None:
    whole = device(capacity={}, consumes=(Counter("card", "memory", 40),))
    devices = [part("a", "3g.20gb", consumes=20), whole, part("b", "3g.20gb", consumes=20)]
    inventory = cluster(slice_of(devices, counters=(Counter("card", "memory", 40),))).inventory()
    assert {each.name: each.devices for each in inventory.pools} == {"nvidia-l4-dra": 1}


def test_parts_as_large_as_each_other_are_counted_as_often_as_they_exist() -> None:
    """Three places for half a card: two halves."""
    parts = [part(name, "3g.20gb", consumes=20) for name in "abc"]
    slices = slice_of(parts, counters=(Counter("card", "memory", 40),))
    name = "nvidia-a100-sxm4-40gb-mig-3g.20gb-dra"
    assert free(pool(cluster(slices).inventory(), name)) == (2, 2)
    held = replace(cluster(slices), claims=(claim("c", on="n"),))
    assert free(pool(held.inventory(), name)) == (1, 2)


@st.composite
def counted(draw: st.DrawFn) -> tuple[ResourceSlice, frozenset[str]]:
    """A card of 8 units in parts of any size, and which of them claims hold: some that fit together."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=7))
    devices = [
        replace(part(f"d{at}", "1g.5gb", consumes=size), capacity={"memory": size * 2**32})
        for at, size in enumerate(sizes)
    ]
    held, left = [], 8
    for at in draw(st.permutations(range(len(sizes)))):
        if sizes[at] <= left and draw(st.booleans()):
            held.append(f"d{at}")
            left -= sizes[at]
    return slice_of(devices, counters=(Counter("card", "memory", 8),)), frozenset(held)


@given(case=counted())
def test_what_is_counted_and_what_is_free_can_be_allocated_together(
    case: tuple[ResourceSlice, frozenset[str]],
) -> None:
    published, names = case
    sizes = {each.name: each.consumes[0].amount for each in published.devices}
    held = replace(cluster(published), claims=(claim(*names, on="n"),))
    pools = [each for each in held.inventory().pools if each.name != "cpu"]
    smallest = sorted(size for size in sizes.values() if size <= 8)
    count, units = 0, 0
    for size in smallest:
        units += size
        count += units <= 8
    impossible = sum(size > 8 for size in sizes.values())
    assert sum(each.devices for each in pools) <= count + impossible
    left = 8 - sum(sizes[name] for name in names)
    idle = sorted(size for name, size in sizes.items() if name not in names)
    most = sum(sum(idle[: at + 1]) <= left for at in range(len(idle)))
    assert sum(each.free for each in pools) <= most


def test_profiles_with_engines_for_media_are_pools_of_their_own() -> None:
    """A claim selects by the whole profile."""
    inventory = cluster(slice_of([part("a", "1g.5gb"), part("b", "1g.5gb+me")])).inventory()
    assert {each.name: each.devices for each in inventory.pools} == {
        "nvidia-a100-sxm4-40gb-mig-1g.5gb-dra": 1,
        "nvidia-a100-sxm4-40gb-mig-1g.5gb-me-dra": 1,
    }
    assert [each.selectors[1].split(" == ")[1] for each in inventory.pools] == ['"1g.5gb"', '"1g.5gb+me"']


def test_a_claim_selects_by_memory_where_that_tells_pools_apart() -> None:
    """And whatever is in a name stays a text."""
    new = {"type": "gpu", "productName": 'R "100"', "cudaComputeCapability": "11.0.0"}
    sizes = [device(name, attributes=new, capacity={"memory": 2**at}) for name, at in (("a", 35), ("b", 36))]
    selectors = [each.selectors for each in cluster(slice_of(sizes)).inventory().pools]
    by_name = 'device.attributes["gpu.nvidia.com"].productName == "R \\"100\\""'
    assert selectors == [
        (by_name, f'device.capacity["gpu.nvidia.com"].memory == quantity("{2**at}")') for at in (35, 36)
    ]


def test_without_the_device_class_nothing_can_be_asked_for() -> None:
    inventory = cluster(slice_of([device()]), classes=()).inventory()
    assert inventory.pools == ()
    assert reasons(inventory) == {"n": ["NoDeviceClass"]}


def test_labels_of_devices_that_only_claims_get_are_no_problem() -> None:
    labelled = plain("n", labels={"nvidia.com/gpu.product": "NVIDIA-L4"}, resources={})
    inventory = replace(cluster(slice_of([device()])), nodes=(labelled,)).inventory()
    assert [each.name for each in inventory.pools] == ["nvidia-l4-dra"]
    assert inventory.problems == ()


def test_an_unknown_product_is_taken_by_what_the_driver_says() -> None:
    new = device(attributes={"type": "gpu", "productName": "NVIDIA R100", "cudaComputeCapability": "11.0.0"})
    (found,) = cluster(slice_of([new])).inventory().pools
    assert (found.name, found.compute_capability) == ("nvidia-r100-23034mib-dra", (11, 0))
    assert found.memory_bytes == int(23034 * 2**20 * 0.97)


def test_amd_devices_by_claims() -> None:
    amd = device(
        attributes={"type": "amdgpu", "productName": "AMD Instinct MI300X OAM"}, capacity={"memory": 0}
    )
    inventory = cluster(slice_of([amd], driver="gpu.amd.com")).inventory()
    (found,) = inventory.pools
    assert (found.name, found.product) == ("amd-instinct-mi300x-oam-dra", "AMD_Instinct_MI300X_OAM")
    assert found.selectors == ('device.attributes["gpu.amd.com"].productName == "AMD Instinct MI300X OAM"',)


def test_devices_offered_both_ways_are_counted_once() -> None:
    both = replace(changed("h100-0", resources={GPU: 2}, gpu_count="2"), name="dra-0")
    nodes = tuple(both if each.name == "dra-0" else each for each in real().nodes if each.name != "h100-0")
    found = replace(real(), nodes=nodes, claims=(claim("gpu-0"),), pods=(holder("dra-0", 1),))
    inventory = found.inventory()
    assert "nvidia-h100-80gb-hbm3-dra" not in {each.name for each in inventory.pools}
    ours = {each.name: (each.free, each.devices) for each in pool(inventory, "nvidia-h100-80gb-hbm3").nodes}
    assert ours["dra-0"] == (0, 2)
    assert reasons(inventory)["dra-0"] == ["OfferedTwice"]
