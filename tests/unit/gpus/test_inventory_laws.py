"""Laws of the inventory, over clusters drawn from the nodes of tests/data/accelerators.yaml."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tonnage.gpus.inventory import Access, Inventory, Reason
from tonnage.gpus.nodes import Node
from tonnage.gpus.pods import PodUse
from tonnage.gpus.records import Records
from tonnage.gpus.reservations import Need, settle
from tonnage.gpus.slices import DeviceRef, ResourceClaim
from unit.gpus.clusters import GPU, changed, holder, plain, real

RESOURCES = (GPU, "nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared", "amd.com/gpu", "gpu.intel.com/i915")
REFS = tuple(
    DeviceRef(each.driver, each.pool, device.name) for each in real().slices for device in each.devices
)


_GKE = "cloud.google.com/gke-"
_LABELLED = (
    ({f"{_GKE}accelerator": "nvidia-tesla-a100"}, GPU),
    ({f"{_GKE}accelerator": "nvidia-tesla-a100", f"{_GKE}gpu-partition-size": "1g.5gb"}, GPU),
    ({"tonnage.dev/accelerator": "H100-80GB"}, GPU),
    ({"tonnage.dev/accelerator": "h100_80gb"}, GPU),
    ({"amd.com/gpu.device-id": "74a1"}, "amd.com/gpu"),
    ({"beta.amd.com/gpu.device-id.74a1": "8", "amd.com/gpu.device-id.74a1": "8"}, "amd.com/gpu"),
    ({"gpu.intel.com/product": "Max_1100", "gpu.intel.com/device.count": "4"}, "gpu.intel.com/i915"),
    ({"gpu.intel.com/product": "Max_1100", "gpu.intel.com/device.count": "8"}, "gpu.intel.com/i915"),
)
NODES = (
    *real().nodes,
    *(plain(f"other-{at}", labels=labels, resources={of: 8}) for at, (labels, of) in enumerate(_LABELLED)),
    replace(changed("t4-0", drop=[f"{GPU}.sharing-strategy"]), name="t4-old"),
    replace(changed("l40s-mps-0", drop=[f"{GPU}.sharing-strategy"]), name="l40s-old"),
)
"""Those of the data, and some that their labels hardly tell apart."""


@st.composite
def nodes(draw: st.DrawFn) -> tuple[Node, ...]:
    """Nodes of the data, some of them several times under other names, some out of use or mislabelled."""
    drawn = []
    for number, base in enumerate(draw(st.lists(st.sampled_from(NODES), max_size=12))):
        name = base.name if base not in drawn and draw(st.booleans()) else f"n{number}"
        labels = dict(base.labels)
        if draw(st.integers(0, 4)) == 0:
            labels["nvidia.com/gpu.memory"] = draw(st.sampled_from(["10240", "81920", "x", "0"]))
        if draw(st.integers(0, 4)) == 0:
            labels["nvidia.com/gpu.count"] = draw(st.sampled_from(["1", "8", "64"]))
        ready = draw(st.integers(0, 9)) > 0
        drawn.append(replace(base, name=name, labels=labels, ready=ready))
    return tuple({each.name: each for each in drawn}.values())


@st.composite
def pods(draw: st.DrawFn, of: tuple[Node, ...]) -> tuple[PodUse, ...]:
    places = st.sampled_from(["", *(each.name for each in of)])
    count = draw(st.integers(0, 20))
    return tuple(
        holder(
            draw(places),
            draw(st.integers(0, 9)),
            name=f"p{number}",
            resource=draw(st.sampled_from(RESOURCES)),
            phase=draw(st.sampled_from(["Running", "Pending", "Succeeded", "Failed"])),
            cpu_millis=draw(st.integers(0, 100_000)),
            memory_bytes=draw(st.integers(0, 2**40)),
        )
        for number in range(count)
    )


@st.composite
def clusters(draw: st.DrawFn) -> Records:
    drawn = draw(nodes())
    held = draw(st.lists(st.sampled_from(REFS), max_size=3))
    claims = tuple(ResourceClaim(namespace="a", name=f"c{n}", devices=(ref,)) for n, ref in enumerate(held))
    return replace(real(), nodes=drawn, pods=draw(pods(drawn)), claims=claims)


_KEYS = sorted(
    {
        *(key for node in NODES for key in node.labels),
        *("nvidia.com/mig-1g.5gb.product", "nvidia.com/mig-1g.5gb.memory", "nvidia.com/mig-1g.5gb.replicas"),
        *("amd.com/gpu.vram", "amd.com/gpu.cu-count", "amd.com/compute-memory-partition"),
        *(f"{_GKE}gpu-sharing-strategy", f"{_GKE}max-shared-clients-per-gpu"),
    }
)
_VALUES = (
    "",
    "-1",
    "0",
    "1",
    "4",
    "9" * 30,
    "\u0663",
    "1.5",
    "NaN",
    "x",
    "mps",
    "mixed",
    "true",
    "192G",
    "G",
)
_NAMES = (
    "NVIDIA-A100-SXM4-40GB-MIG-0g.0gb",
    "NVIDIA-L4-SHARED",
    "-MIG-",
    "-SHARED",
    "Tesla-T4",
    "1g.5gb",
    "74a1",
)


@given(
    labels=st.dictionaries(st.sampled_from(_KEYS), st.sampled_from((*_VALUES, *_NAMES)), max_size=8),
    resources=st.dictionaries(
        st.sampled_from(
            (*RESOURCES, "nvidia.com/mig-", "nvidia.com/mig-1g.5gb", "habana.ai/gaudi", "amd.com/")
        ),
        st.sampled_from((0, 1, 3, 8, 2**62)),
        max_size=3,
    ),
)
def test_nonsense_in_labels_is_reported_and_never_raises(
    labels: dict[str, str], resources: dict[str, int]
) -> None:
    inventory = Records(nodes=(plain("n", labels=labels, resources=resources),)).inventory()
    assert inventory.pools or inventory.problems
    for pool in inventory.pools:
        assert pool.name == "cpu" or 0 <= pool.memory_bytes < 2**40
        assert pool.node_labels.items() <= labels.items()


def free_of(inventory: Inventory) -> dict[tuple[str, str], int]:
    return {(pool.name, node.name): node.free for pool in inventory.pools for node in pool.nodes}


def relabelled(node: Node) -> Node:
    """The same node, as a server might tell of it that does not sort its maps."""
    return replace(
        node,
        labels=dict(reversed([*node.labels.items()])),
        capacity=dict(reversed([*node.capacity.items()])),
        allocatable=dict(reversed([*node.allocatable.items()])),
    )


@given(cluster=clusters(), data=st.data())
def test_order_does_not_matter_to_a_byte(cluster: Records, data: st.DataObject) -> None:
    shuffled = Records(
        nodes=tuple(map(relabelled, data.draw(st.permutations(cluster.nodes)))),
        pods=tuple(data.draw(st.permutations(cluster.pods))),
        slices=tuple(data.draw(st.permutations(cluster.slices))),
        claims=tuple(data.draw(st.permutations(cluster.claims))),
        classes=tuple(data.draw(st.permutations(cluster.classes))),
    )
    assert repr(cluster.inventory()) == repr(shuffled.inventory())


@given(cluster=clusters())
def test_free_is_within_what_there_is(cluster: Records) -> None:
    inventory = cluster.inventory()
    for pool in inventory.pools:
        assert len({node.name for node in pool.nodes}) == len(pool.nodes) > 0
        assert pool.memory_bytes > 0 or pool.name == "cpu"
        assert min(pool.free, 1) <= pool.free_on_one_node <= min(pool.free, pool.devices_per_pod)
        for node in pool.nodes:
            assert 0 <= node.free <= node.devices
            assert node.cpu_millis >= 0
            assert node.memory_bytes >= 0
    assert len({pool.name for pool in inventory.pools}) == len(inventory.pools)


@given(cluster=clusters(), data=st.data())
def test_one_more_pod_or_claim_never_frees_anything(cluster: Records, data: st.DataObject) -> None:
    before = cluster.inventory()
    more = data.draw(pods(cluster.nodes))
    held = (
        *cluster.claims,
        ResourceClaim(namespace="b", name="c", devices=(data.draw(st.sampled_from(REFS)),)),
    )
    after = replace(cluster, pods=(*cluster.pods, *more), claims=held).inventory()
    assert free_of(before).keys() == free_of(after).keys()
    assert all(free_of(after)[place] <= free for place, free in free_of(before).items())
    assert [replace(pool, nodes=()) for pool in before.pools] == [
        replace(pool, nodes=()) for pool in after.pools
    ]


@given(cluster=clusters())
def test_a_node_changes_no_pool_but_its_own_part(cluster: Records) -> None:
    """What a pool says of its devices does not depend on which nodes, or how many, it has."""
    whole = {pool.name: pool for pool in cluster.inventory().pools}
    for left_out in cluster.nodes:
        rest = tuple(each for each in cluster.nodes if each is not left_out)
        for pool in replace(cluster, nodes=rest).inventory().pools:
            assert replace(pool, nodes=()) == replace(whole[pool.name], nodes=())
            kept = tuple(node for node in whole[pool.name].nodes if node.name != left_out.name)
            assert pool.nodes == kept


@given(cluster=clusters(), data=st.data())
def test_a_pod_that_is_bound_frees_its_reservation(cluster: Records, data: st.DataObject) -> None:
    """What others may count on is the same before its pods are bound and after."""
    before = cluster.inventory()
    pools = [pool for pool in before.pools if pool.access is Access.RESOURCE and pool.free]
    if not pools:
        return
    pool = data.draw(st.sampled_from(pools))
    devices = data.draw(st.integers(1, pool.free_on_one_node))
    need = Need(key="ns/a", pool=pool.name, pods=data.draw(st.integers(1, 3)), devices=devices)
    settled = settle(before, reserved=[need])
    bound = tuple(
        holder(node, devices, name=f"bound{at}", resource=pool.resource)
        for granted in settled.granted
        for at, node in enumerate(granted.nodes)
    )
    after = replace(cluster, pods=(*cluster.pods, *bound)).inventory()
    assert free_of(after) == free_of(settled.left)


@given(cluster=clusters())
def test_every_node_is_in_a_pool_or_has_a_problem(cluster: Records) -> None:
    inventory = cluster.inventory()
    named = {node.name for pool in inventory.pools for node in pool.nodes}
    named |= {problem.node for problem in inventory.problems}
    assert {node.name for node in cluster.nodes} <= named
    assert all(problem.reason and problem.message for problem in inventory.problems)


@given(cluster=clusters())
def test_pins_keep_pods_of_one_resource_apart(cluster: Records) -> None:
    """A node that the pins of a pool select and that offers its resource is in that pool, or it is reported
    that its pods may be placed there; a node that was left out has been reported anyway."""
    inventory = cluster.inventory()
    reported = {problem.node for problem in inventory.problems}
    mistaken = {each.node for each in inventory.problems if each.reason is Reason.NOT_TOLD_APART}
    for pool in inventory.pools:
        inside = {node.name for node in pool.nodes}
        others = [each for each in inventory.pools if each.resource == pool.resource and each is not pool]
        elsewhere = {node.name for each in others for node in each.nodes}
        for node in cluster.nodes:
            selected = pool.node_labels.items() <= node.labels.items() and pool.node_labels
            if selected and node.capacity.get(pool.resource) and node.name not in inside:
                assert node.name in (mistaken if node.name in elsewhere else reported)


@given(cluster=clusters(), data=st.data())
def test_a_node_that_leaves_frees_nothing(cluster: Records, data: st.DataObject) -> None:
    """Nor does one that is cordoned, or devices of it that fail."""
    if not cluster.nodes:
        return
    one = data.draw(st.sampled_from(cluster.nodes))
    rest = tuple(each for each in cluster.nodes if each is not one)
    fewer = {name: count // 2 for name, count in one.allocatable.items()}
    before = {pool.name: pool.free for pool in cluster.inventory().pools if pool.name != "cpu"}
    for left in ((), (replace(one, schedulable=False),), (replace(one, allocatable=fewer),)):
        after = replace(cluster, nodes=(*rest, *left)).inventory()
        assert all(each.free <= before.get(each.name, 0) for each in after.pools if each.name != "cpu")
