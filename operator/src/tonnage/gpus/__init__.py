"""What the cluster has: plain node records and which of them a pod could use."""

from tonnage.gpus.nodes import Node, Taint, Toleration
from tonnage.gpus.placement import (
    Excluded,
    NodeSelection,
    Placement,
    count_reasons,
    select_nodes,
    tolerates,
    why_unusable,
)

__all__ = [
    "Excluded",
    "Node",
    "NodeSelection",
    "Placement",
    "Taint",
    "Toleration",
    "count_reasons",
    "select_nodes",
    "tolerates",
    "why_unusable",
]
