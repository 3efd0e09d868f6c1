"""Which nodes a pod could use, and why not the others."""

from __future__ import annotations

from typing import Any

import pytest

from tonnage.gpus.nodes import Node, Taint, Toleration
from tonnage.gpus.placement import (
    Excluded,
    Placement,
    Requirement,
    count_reasons,
    meets,
    select_nodes,
    tolerates,
)

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


AFFINITY, NOT = "required node affinity", "does not match"
IN_SOUTH = Requirement(key="zone", operator="In", values=("south",))
HAS_ZONE = Requirement(key="zone", operator="Exists")
HAS_DISK = Requirement(key="disk", operator="Exists")


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
        ({}, Placement(node_terms=((IN_SOUTH,), (HAS_ZONE,))), None),
        (
            {},
            Placement(node_terms=((IN_SOUTH, HAS_ZONE),)),
            f"{AFFINITY} zone In south and zone Exists {NOT}",
        ),
        (
            {},
            Placement(node_terms=((IN_SOUTH,), (HAS_DISK,))),
            f"{AFFINITY} zone In south or disk Exists {NOT}",
        ),
    ],
)
def test_selection(changes: dict[str, Any], placement: Placement, why: str | None) -> None:
    selection = select_nodes([node(**changes)], placement=placement)
    assert [each.name for each in selection.usable] == (["a"] if why is None else [])
    assert [each.why for each in selection.excluded] == ([] if why is None else [why])


LABELS = {"zone": "north", "gpus": "8", "name": "8x"}


@pytest.mark.parametrize(
    ("key", "operator", "values", "expected"),
    [
        ("zone", "In", ("south", "north"), True),
        ("zone", "In", ("south",), False),
        ("disk", "In", ("ssd",), False),
        ("zone", "NotIn", ("south",), True),
        ("zone", "NotIn", ("north",), False),
        ("disk", "NotIn", ("ssd",), True),
        ("zone", "Exists", (), True),
        ("disk", "Exists", (), False),
        ("zone", "DoesNotExist", (), False),
        ("disk", "DoesNotExist", (), True),
        ("gpus", "Gt", ("7",), True),
        ("gpus", "Gt", ("8",), False),
        ("gpus", "Lt", ("10",), True),
        ("gpus", "Lt", ("8",), False),
        ("name", "Gt", ("7",), False),
        ("disk", "Lt", ("7",), False),
        ("zone", "Like", ("north",), False),
    ],
)
def test_requirements_mean_what_kubernetes_means(
    key: str, operator: str, values: tuple[str, ...], expected: bool
) -> None:
    assert meets(LABELS, Requirement(key=key, operator=operator, values=values)) is expected


def test_order_of_nodes_does_not_matter() -> None:
    nodes = [node("c"), node("a"), node("b", ready=False)]
    assert select_nodes(nodes, placement=Placement()) == select_nodes(nodes[::-1], placement=Placement())
    assert [each.name for each in select_nodes(nodes, placement=Placement()).usable] == ["a", "c"]


def test_reasons_are_counted_most_frequent_first() -> None:
    excluded = [Excluded(node=name, why=why) for name, why in [("a", "x"), ("b", "y"), ("c", "y")]]
    assert count_reasons(excluded) == "2 nodes: y; 1 node: x"
    assert count_reasons([]) == ""
