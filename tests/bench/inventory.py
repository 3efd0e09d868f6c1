"""`make bench-inventory`: how long the inventory of a large cluster takes, from records as in the store.

1,000 nodes of the kinds in tests/data/accelerators.yaml and 5,000 pods that hold devices of them; every node
carries 30 further labels and one that no other has. Two arms are harder: no two nodes with NVIDIA's cards
report the same memory, so that none is read once for several; and all cards by ResourceClaims, eight to a
node, half of them allocated.

Beside the time stands a ratio to a control measured in the same minute: Python counting 100,000 short texts
in a dictionary. All times are of the processor: what else runs on the machine counts only as far as it slows
the core.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from bench.processor import beside_control, heading
from tonnage.gpus.nodes import Node
from tonnage.gpus.pods import PodUse
from tonnage.gpus.records import Records
from tonnage.gpus.slices import Device, DeviceRef, ResourceClaim, ResourceSlice
from unit.gpus.clusters import holder, plain, real

NODES: Final = 1000
PODS: Final = 5000
CARDS: Final = 8
ROUNDS: Final = 60
TARGET: Final = "target < 50 ms"


def main() -> None:
    """Print every arm."""
    print(heading("make bench-inventory"))
    print(f"{NODES:,} nodes, {PODS:,} pods, as records; processor time, medians of {ROUNDS} rounds")
    arms = {
        "kinds of the data": _cluster(alike=True),
        "no two nodes alike": _cluster(alike=False),
        "cards by claims": _claims(),
    }
    gc.collect()
    gc.freeze()  # The clusters themselves are not what the collector would walk elsewhere.
    for name, cluster in arms.items():
        inventory = cluster.inventory()
        found = f"{len(inventory.pools)} pools, {sum(each.free for each in inventory.pools):,} devices free"
        _print(name, partial(_take, cluster), found)


def _cluster(*, alike: bool) -> Records:
    draw = random.Random(1)
    kinds = [each for each in real().nodes if not each.name.startswith("dra")]
    nodes = tuple(_node(kinds[number % len(kinds)], number, alike=alike) for number in range(NODES))
    return replace(real(), nodes=nodes, pods=_pods(nodes, draw))


def _node(kind: Node, number: int, *, alike: bool) -> Node:
    others = {f"example.com/label-{each}": "value" for each in range(30)}
    labels = {**others, **kind.labels, "nvidia.com/gfd.timestamp": str(number)}
    if not alike:
        memory = int(labels.get("nvidia.com/gpu.memory", "0"))
        labels["nvidia.com/gpu.memory"] = str(memory and memory + number)
    return replace(kind, name=f"{kind.name}-{number:04}", labels=labels)


def _pods(nodes: tuple[Node, ...], draw: random.Random) -> tuple[PodUse, ...]:
    return tuple(
        holder(
            draw.choice(nodes).name,
            draw.randint(0, 2),
            name=f"p{number}",
            cpu_millis=2000,
            memory_bytes=2**33,
        )
        for number in range(PODS)
    )


def _claims() -> Records:
    draw = random.Random(1)
    attributes = {
        "type": "gpu",
        "productName": "NVIDIA H100 80GB HBM3",
        "cudaComputeCapability": "9.0.0",
    }
    memory = {"memory": 81559 * 2**20}
    devices = tuple(
        Device(name=f"gpu-{each}", attributes=attributes, capacity=memory) for each in range(CARDS)
    )
    nodes = tuple(plain(f"n{number:04}", labels={}, resources={}) for number in range(NODES))
    driver = "gpu.nvidia.com"
    slices = tuple(
        ResourceSlice(name=each.name, driver=driver, pool=each.name, node=each.name, devices=devices)
        for each in nodes
    )
    held = tuple(
        ResourceClaim(
            namespace="a",
            name=each.name,
            devices=tuple(DeviceRef(driver, each.name, f"gpu-{number}") for number in range(CARDS // 2)),
        )
        for each in nodes
    )
    pods = tuple(replace(each, resources={}) for each in _pods(nodes, draw))
    return replace(real(), nodes=nodes, pods=pods, slices=slices, claims=held)


def _take(cluster: Records) -> None:
    cluster.inventory()


def _print(name: str, once: Callable[[], None], found: str) -> None:
    print(f"  {name:20} {beside_control(once, rounds=ROUNDS)}; {TARGET}; {found}")


if __name__ == "__main__":
    main()
