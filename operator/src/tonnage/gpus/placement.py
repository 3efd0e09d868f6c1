"""Which nodes a pod could use, with a reason for each that it could not: pure Kubernetes scheduling rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tonnage.gpus.inventory import Reason
from tonnage.gpus.nodes import Node, Taint, Toleration

_BLOCKING_EFFECTS = frozenset({"NoSchedule", "NoExecute"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A condition on one node label; `operator` is In, NotIn, Exists, DoesNotExist, Gt or Lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What the pod asks of a node: labels it must carry, taints the pod tolerates, and what it requests.

    `node_terms` is the required node affinity: a node must meet all requirements of one term. `memory_bytes`
    is a request that the user fixed, 0 if the plan decides it.
    """

    node_selector: Mapping[str, str] = field(default_factory=dict)
    node_terms: tuple[tuple[Requirement, ...], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    cpu_millis: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps a pod from a node: NotReady, Cordoned, NotSelected, Tainted or TooSmall, and in words."""

    reason: Reason
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A node the pod cannot use: its name and why, in words that repeat between nodes so that they can be
    counted."""

    node: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSelection:
    """Usable nodes and excluded ones, both sorted by name. `known` is False where nodes may not be read."""

    usable: tuple[Node, ...]
    excluded: tuple[Excluded, ...]
    known: bool = True


def select_nodes(nodes: Iterable[Node] | None, *, placement: Placement) -> NodeSelection:
    """Split `nodes` into those the pod could be scheduled on and the others with the first reason against
    each. None stands for nodes that may not be read."""
    if nodes is None:
        return NodeSelection(usable=(), excluded=(), known=False)
    usable: list[Node] = []
    excluded: list[Excluded] = []
    for node in sorted(nodes, key=lambda each: each.name):
        why = why_unusable(node, placement=placement)
        if why is None:
            usable.append(node)
        else:
            excluded.append(Excluded(node=node.name, why=why))
    return NodeSelection(usable=tuple(usable), excluded=tuple(excluded))


def why_unusable(node: Node, *, placement: Placement) -> str | None:
    """The first reason why the pod cannot run on `node`, or None."""
    obstacle = find_obstacle(node, placement=placement)
    return None if obstacle is None else obstacle.why


def find_obstacle(
    node: Node, *, placement: Placement, tolerated: frozenset[str] = frozenset()
) -> Obstacle | None:
    """The first thing that keeps the pod from `node`, or None.

    `tolerated` are keys of NoSchedule taints that the pod tolerates beside those of `placement`: of the
    extended resources it asks for, as the admission plugin ExtendedResourceToleration has it.
    """
    if not node.ready:
        return Obstacle(Reason.NOT_READY, "not Ready")
    if not node.schedulable:
        return Obstacle(Reason.CORDONED, "cordoned (unschedulable)")
    for key, value in sorted(placement.node_selector.items()):
        if node.labels.get(key) != value:
            return Obstacle(Reason.NOT_SELECTED, f"nodeSelector {key}={value} does not match")
    if placement.node_terms and not any(_in_term(node, term) for term in placement.node_terms):
        terms = _describe_terms(placement.node_terms)
        return Obstacle(Reason.NOT_SELECTED, f"required node affinity {terms} does not match")
    for taint in node.taints:
        if taint.effect not in _BLOCKING_EFFECTS or (taint.effect == "NoSchedule" and taint.key in tolerated):
            continue
        if not tolerates(placement.tolerations, taint=taint):
            return Obstacle(Reason.TAINTED, f"taint {_describe(taint)} is not tolerated")
    return _too_small(node, placement=placement)


def _too_small(node: Node, *, placement: Placement) -> Obstacle | None:
    if node.cpu_allocatable_millis < placement.cpu_millis:
        cpus = placement.cpu_millis / 1000
        return Obstacle(Reason.TOO_SMALL, f"less than the {cpus:g} CPUs of template.resources.cpu")
    if node.memory_allocatable_bytes < placement.memory_bytes:
        gib = placement.memory_bytes / 2**30
        return Obstacle(Reason.TOO_SMALL, f"less than the {gib:.2f} GiB of template.resources.memory")
    return None


def _in_term(node: Node, term: Sequence[Requirement]) -> bool:
    return all(meets(node.labels, requirement) for requirement in term)


def meets(labels: Mapping[str, str], requirement: Requirement) -> bool:
    """Whether a node's labels meet a requirement, by the rules of Kubernetes' `labels.Requirement.Matches`.

    NotIn and DoesNotExist hold where the label is absent; Gt and Lt compare whole numbers and hold nowhere
    else.
    """
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            return _compares(value, requirement)
    return False


def _compares(value: str | None, requirement: Requirement) -> bool:
    if value is None or re.fullmatch("[0-9]{1,18}", value) is None or len(requirement.values) != 1:
        return False
    found, bound = int(value), int(requirement.values[0])
    return found > bound if requirement.operator == "Gt" else found < bound


def _describe_terms(terms: Sequence[Sequence[Requirement]]) -> str:
    return " or ".join(" and ".join(map(_describe_requirement, term)) for term in terms)


def _describe_requirement(requirement: Requirement) -> str:
    values = f" {', '.join(requirement.values)}" if requirement.values else ""
    return f"{requirement.key} {requirement.operator}{values}"


def tolerates(tolerations: Sequence[Toleration], *, taint: Taint) -> bool:
    """Whether one of `tolerations` matches `taint`, by the rules of Kubernetes' `ToleratesTaint`.

    An empty key with operator Exists matches every taint; an empty effect matches every effect; an empty
    operator means Equal.
    """
    return any(_matches(toleration, taint) for toleration in tolerations)


def count_reasons(excluded: Iterable[Excluded]) -> str:
    """The reasons with their node counts, the most frequent first: "2 nodes: not Ready; 1 node: ..."."""
    counts: dict[str, int] = {}
    for each in excluded:
        counts[each.why] = counts.get(each.why, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{count} node{'' if count == 1 else 's'}: {why}" for why, count in ordered)


def _matches(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.operator in ("", "Equal") and toleration.value == taint.value


def _describe(taint: Taint) -> str:
    value = f"={taint.value}" if taint.value else ""
    return f"{taint.key}{value}:{taint.effect}"
