"""Where pods may run, spelled as in a Pod: tolerations, affinity and topology spread.

What names other namespaces is left out: a pod's neighbours are those of its own namespace.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from tonnage.api.base import ATOMIC_LIST, ApiModel, LabelKey, Labels, LabelValue
from tonnage.api.rules import ListMap, Rule, fits

_SOME, _NONE = "has(self.values) && size(self.values) > 0", "!has(self.values) || size(self.values) == 0"
_NUMBER = r"^[0-9]{1,18}$"
Weight = Annotated[int, Field(ge=1, le=100)]
Values = Annotated[list[Annotated[LabelValue, Field(description="A label value.")]], Field(max_length=32)]


class Effect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class TolerationOperator(StrEnum):
    """How a toleration's value is compared."""

    EQUAL = "Equal"
    EXISTS = "Exists"


class Toleration(ApiModel):
    """A node taint that the pods tolerate."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.operator == 'Equal' || !has(self.value) || self.value == ''",
            "operator Exists takes no value: remove value, or set operator to Equal",
            lambda t: t.operator is TolerationOperator.EQUAL or not t.value,
        ),
        Rule(
            "self.operator == 'Exists' || has(self.key)",
            "operator Equal needs a key: write key, or set operator to Exists to tolerate every taint",
            lambda t: t.operator is TolerationOperator.EXISTS or t.key is not None,
        ),
        Rule(
            "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
            "tolerationSeconds is for effect NoExecute: set that effect or remove tolerationSeconds",
            lambda t: t.toleration_seconds is None or t.effect is Effect.NO_EXECUTE,
        ),
    )

    key: LabelKey | None = Field(default=None, description="Key of the taint; every taint if absent.")
    operator: TolerationOperator = Field(
        default=TolerationOperator.EQUAL,
        description="Equal: the taint has this value. Exists: the taint has any value.",
    )
    value: LabelValue | None = Field(default=None, description="Value of the taint, with operator Equal.")
    effect: Effect | None = Field(default=None, description="Effect of the taint; every effect if absent.")
    toleration_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        default=None, description="How long a NoExecute taint is tolerated; for ever if absent."
    )


class NodeOperator(StrEnum):
    """How a node's label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


class LabelOperator(StrEnum):
    """How a pod's label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


def _takes_values(requirement: Any) -> bool:
    wants = requirement.operator not in ("Exists", "DoesNotExist")
    return wants == bool(requirement.values)


class NodeRequirement(ApiModel):
    """A condition on one label of a node."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.operator in ['Exists', 'DoesNotExist'] ? {_NONE} : {_SOME}",
            "write values with operator In, NotIn, Gt or Lt, and none with Exists or DoesNotExist",
            _takes_values,
        ),
        Rule(
            "!(self.operator in ['Gt', 'Lt']) || "
            f"has(self.values) && size(self.values) == 1 && self.values[0].matches(r'{_NUMBER}')",
            "operators Gt and Lt take one value, a whole number",
            lambda r: r.operator not in ("Gt", "Lt") or (len(r.values) == 1 and fits(_NUMBER, r.values[0])),
        ),
    )

    key: LabelKey = Field(description="Key of the label.")
    operator: NodeOperator = Field(description="How the label is compared with values.")
    values: Values = Field(
        default_factory=list,
        description="Values to compare with: none with Exists and DoesNotExist, one number with Gt and Lt.",
        json_schema_extra=ATOMIC_LIST,
    )


class NodeTerm(ApiModel):
    """Conditions that a node must meet all."""

    match_expressions: Annotated[list[NodeRequirement], Field(min_length=1, max_length=8)] = Field(
        description="Conditions on labels of the node.", json_schema_extra=ATOMIC_LIST
    )


class NodeSelector(ApiModel):
    """Terms of which a node must meet one."""

    atomic: ClassVar[bool] = True

    node_selector_terms: Annotated[list[NodeTerm], Field(min_length=1, max_length=8)] = Field(
        description="Terms of which a node must meet one.", json_schema_extra=ATOMIC_LIST
    )


class PreferredNodes(ApiModel):
    """Nodes that are preferred."""

    weight: Weight = Field(description="How much it counts, from 1 to 100.")
    preference: NodeTerm = Field(description="What the node should meet.")


class NodeAffinity(ApiModel):
    """Which nodes the pods may use, by their labels. The plan counts the required ones only."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        default=None,
        description="What a node must meet. Planning counts no other node.",
    )
    preferred_during_scheduling_ignored_during_execution: Annotated[
        list[PreferredNodes], Field(max_length=8)
    ] = Field(
        default_factory=list,
        description="What the scheduler should prefer; planning does not look at it.",
        json_schema_extra=ATOMIC_LIST,
    )


class LabelRequirement(ApiModel):
    """A condition on one label of a pod."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.operator in ['Exists', 'DoesNotExist'] ? {_NONE} : {_SOME}",
            "write values with operator In or NotIn, and none with Exists or DoesNotExist",
            _takes_values,
        ),
    )

    key: LabelKey = Field(description="Key of the label.")
    operator: LabelOperator = Field(description="How the label is compared with values.")
    values: Values = Field(
        default_factory=list,
        description="Values to compare with; none with Exists and DoesNotExist.",
        json_schema_extra=ATOMIC_LIST,
    )


class LabelSelector(ApiModel):
    """Pods of the same namespace by their labels; an empty selector means all of them."""

    atomic: ClassVar[bool] = True

    match_labels: Labels = Field(default_factory=dict, description="Labels that a pod must carry.")
    match_expressions: Annotated[list[LabelRequirement], Field(max_length=8)] = Field(
        default_factory=list,
        description="Further conditions on labels of a pod.",
        json_schema_extra=ATOMIC_LIST,
    )


class PodTerm(ApiModel):
    """Pods of the same namespace, and how near is near."""

    label_selector: LabelSelector = Field(description="The other pods: always those of the same namespace.")
    topology_key: LabelKey = Field(
        description="Node label whose value says what is one place, such as kubernetes.io/hostname."
    )


class PreferredPods(ApiModel):
    """Neighbours that are preferred."""

    weight: Weight = Field(description="How much it counts, from 1 to 100.")
    pod_affinity_term: PodTerm = Field(description="The neighbours.")


class PodAffinity(ApiModel):
    """Neighbours, chosen by the scheduler; planning does not look at them."""

    required_during_scheduling_ignored_during_execution: Annotated[list[PodTerm], Field(max_length=8)] = (
        Field(
            default_factory=list,
            description="What must hold of the neighbours.",
            json_schema_extra=ATOMIC_LIST,
        )
    )
    preferred_during_scheduling_ignored_during_execution: Annotated[
        list[PreferredPods], Field(max_length=8)
    ] = Field(
        default_factory=list,
        description="What the scheduler should prefer.",
        json_schema_extra=ATOMIC_LIST,
    )


class Affinity(ApiModel):
    """Which nodes and which neighbours the pods need or avoid."""

    node_affinity: NodeAffinity | None = Field(
        default=None, description="Nodes by their labels. What is required enters the plan."
    )
    pod_affinity: PodAffinity | None = Field(
        default=None,
        description="Pods of the same namespace to be near to. Left to the scheduler; no plan counts it.",
    )
    pod_anti_affinity: PodAffinity | None = Field(
        default=None,
        description="Pods of the same namespace to be apart from. Left to the scheduler; no plan counts it.",
    )


class Unsatisfiable(StrEnum):
    """What to do with a pod that would break a spread."""

    DO_NOT_SCHEDULE = "DoNotSchedule"
    SCHEDULE_ANYWAY = "ScheduleAnyway"


class NodePolicy(StrEnum):
    """Whether nodes that the pod cannot use are counted."""

    HONOR = "Honor"
    IGNORE = "Ignore"


class TopologySpread(ApiModel):
    """How evenly pods are spread over places. Left to the scheduler; no plan counts it."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.minDomains) || self.whenUnsatisfiable == 'DoNotSchedule'",
            "minDomains is for whenUnsatisfiable DoNotSchedule: set that or remove minDomains",
            lambda s: s.min_domains is None or s.when_unsatisfiable is Unsatisfiable.DO_NOT_SCHEDULE,
        ),
    )

    max_skew: Annotated[int, Field(ge=1, le=2**31 - 1)] = Field(
        description="Most pods that one place may have more than another."
    )
    topology_key: LabelKey = Field(
        description="Node label whose value says what is one place, such as topology.kubernetes.io/zone."
    )
    when_unsatisfiable: Unsatisfiable = Field(
        description="DoNotSchedule: the pod waits. ScheduleAnyway: the scheduler does what it can."
    )
    label_selector: LabelSelector | None = Field(
        default=None,
        description="The pods to count, of the same namespace; the workers of this object if absent.",
    )
    min_domains: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(
        default=None, description="Fewest places to spread over, with whenUnsatisfiable DoNotSchedule."
    )
    node_affinity_policy: NodePolicy | None = Field(
        default=None, description="Whether nodes outside nodeSelector and affinity count; Honor if absent."
    )
    node_taints_policy: NodePolicy | None = Field(
        default=None, description="Whether nodes with taints that are not tolerated count; Ignore if absent."
    )


TopologySpreads = Annotated[
    list[TopologySpread], Field(max_length=8), ListMap(("topologyKey", "whenUnsatisfiable"))
]

__all__ = [
    "Affinity",
    "NodeTerm",
    "Toleration",
    "TopologySpread",
    "TopologySpreads",
]
