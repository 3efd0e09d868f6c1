"""Which nodes a pod could use, and why not the others."""

from __future__ import annotations

from typing import Any

import pytest

from tonnage.gpus.nodes import Node, Taint, Toleration
from tonnage.gpus.placement import Excluded, Placement, count_reasons, select_nodes, tolerates

CONTROL_PLANE = Taint(key="node-role.kubernetes.io/control-plane", value="", effect="NoSchedule")
DEDICATED = Taint(key="dedicated", value="llm", effect="NoExecute")
SOFT = Taint(key="soft", value="", effect="PreferNoSchedule")


def node(name: str = "a", **changes: Any) -> Node:
    fields: dict[str, Any] = {
        "name": name,
        "labels": {"zone": "north"},
        "taints": (),
        "ready": True,
        "schedulable": True,
        "memory_capacity_bytes": 2**35,
        "memory_allocatable_bytes": 2**34,
        "cpu_allocatable_millis": 4000,
        **changes,
    }
    return Node(**fields)


@pytest.mark.parametrize(
    ("toleration", "taint", "expected"),
    [
        (Toleration(key="dedicated", value="llm"), DEDICATED, True),
        (Toleration(key="dedicated", value="llm", operator=""), DEDICATED, True),
        (Toleration(key="dedicated", value="web"), DEDICATED, False),
        (Toleration(key="dedicated", operator="Exists"), DEDICATED, True),
        (Toleration(key="dedicated", operator="Exists", effect="NoSchedule"), DEDICATED, False),
        (Toleration(key="dedicated", value="llm", effect="NoExecute"), DEDICATED, True),
        (Toleration(operator="Exists"), DEDICATED, True),
        (Toleration(operator="Exists", effect="NoSchedule"), DEDICATED, False),
        (Toleration(), DEDICATED, False),
        (Toleration(key="other", operator="Exists"), DEDICATED, False),
        (Toleration(key="dedicated", value="llm", operator="Near"), DEDICATED, False),
    ],
)
def test_tolerations_mean_what_kubernetes_means(toleration: Toleration, taint: Taint, expected: bool) -> None:
    assert tolerates((toleration,), taint=taint) is expected


@pytest.mark.parametrize(
    ("changes", "placement", "why"),
    [
        ({}, Placement(), None),
        ({}, Placement(cpu_millis=4000, memory_bytes=2**34), None),
        ({}, Placement(cpu_millis=4001), "less than the 4.001 CPUs of template.resources.cpu"),
        ({}, Placement(memory_bytes=2**34 + 1), "less than the 16.00 GiB of template.resources.memory"),
        ({"ready": False}, Placement(), "not Ready"),
        ({"schedulable": False}, Placement(), "cordoned (unschedulable)"),
        ({}, Placement(node_selector={"zone": "north"}), None),
        ({}, Placement(node_selector={"zone": "south"}), "nodeSelector zone=south does not match"),
        ({}, Placement(node_selector={"disk": "ssd"}), "nodeSelector disk=ssd does not match"),
        ({"taints": (SOFT,)}, Placement(), None),
        ({"taints": (SOFT, DEDICATED)}, Placement(), "taint dedicated=llm:NoExecute is not tolerated"),
        ({"taints": (DEDICATED,)}, Placement(tolerations=(Toleration(operator="Exists"),)), None),
        (
            {"taints": (CONTROL_PLANE,)},
            Placement(),
            "taint node-role.kubernetes.io/control-plane:NoSchedule is not tolerated",
        ),
    ],
)
def test_selection(changes: dict[str, Any], placement: Placement, why: str | None) -> None:
    selection = select_nodes([node(**changes)], placement=placement)
    assert [each.name for each in selection.usable] == (["a"] if why is None else [])
    assert [each.why for each in selection.excluded] == ([] if why is None else [why])


def test_order_of_nodes_does_not_matter() -> None:
    nodes = [node("c"), node("a"), node("b", ready=False)]
    assert select_nodes(nodes, placement=Placement()) == select_nodes(nodes[::-1], placement=Placement())
    assert [each.name for each in select_nodes(nodes, placement=Placement()).usable] == ["a", "c"]


def test_reasons_are_counted_most_frequent_first() -> None:
    excluded = [Excluded(node=name, why=why) for name, why in [("a", "x"), ("b", "y"), ("c", "y")]]
    assert count_reasons(excluded) == "2 nodes: y; 1 node: x"
    assert count_reasons([]) == ""
