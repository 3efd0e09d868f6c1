"""All objects of the plan in force, in the order in which they may be made."""

from __future__ import annotations

from tonnage.api.v1alpha1 import Spec
from tonnage.rendering.deployment import build_deployment, replicas_of
from tonnage.rendering.gpu import build_claim_templates
from tonnage.rendering.groups import build_group_set, spans_nodes
from tonnage.rendering.names import Manifest, Owner
from tonnage.rendering.plan import Kept, build_plan_config_map
from tonnage.rendering.service import build_disruption_budget, build_service
from tonnage.rendering.settings import Settings


def build_children(
    kept: Kept, *, plan_hash: str, spec: Spec, owner: Owner, settings: Settings
) -> list[Manifest]:
    """The plan's ConfigMap first, and the template of its claims: the pods of the workload, which is last,
    need them."""
    return [
        build_plan_config_map(kept, plan_hash=plan_hash, spec=spec, owner=owner),
        *build_claim_templates(kept.plan, plan_hash=plan_hash, owner=owner),
        *build_access(owner, replicas=replicas_of(spec), groups=spans_nodes(kept.plan)),
        build_workload(kept, plan_hash=plan_hash, spec=spec, owner=owner, settings=settings),
    ]


def build_workload(kept: Kept, *, plan_hash: str, spec: Spec, owner: Owner, settings: Settings) -> Manifest:
    """What makes the pods: a Deployment, or a LeaderWorkerSet where a replica spans nodes."""
    if not spans_nodes(kept.plan):
        return build_deployment(
            kept, plan_hash=plan_hash, spec=spec, owner=owner, settings=settings, replicas=replicas_of(spec)
        )
    return build_group_set(
        kept,
        plan_hash=plan_hash,
        spec=spec,
        owner=owner,
        settings=settings,
        replicas=spec.wanted_replicas,
    )


def build_access(owner: Owner, *, replicas: int | None, groups: bool = False) -> list[Manifest]:
    """What stands before the workers. One alone needs no budget: with it, it may be evicted all the same.

    None: an autoscaler decides how many there are. `groups`: a replica is several pods.
    """
    budget = [] if replicas in (0, 1) else [build_disruption_budget(owner, groups=groups)]
    return [build_service(owner), *budget]
