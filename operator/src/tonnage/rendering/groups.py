"""Plan -> the LeaderWorkerSet of replicas that span nodes: a leader that serves, and followers beside it.

Fields: LWS api/leaderworkerset/v1 leaderworkerset_types.go (v0.7.0).
"""

from __future__ import annotations

from tonnage.api.v1alpha1 import Spec
from tonnage.planning.plan import Plan
from tonnage.rendering.arguments import Role
from tonnage.rendering.deployment import build_pod_template
from tonnage.rendering.names import PLAN, WORKER, Manifest, Owner, metadata, short_hash
from tonnage.rendering.plan import Kept
from tonnage.rendering.settings import Settings

_NAME_DIGITS = 4
"""Of the hash in a set's name: NAME-HASH-9-REVISION is a label of its pods, of at most 63 letters."""


def spans_nodes(plan: Plan) -> bool:
    """Is a replica of this plan a group of pods?"""
    return plan.gpu is not None and plan.gpu.nodes_per_replica > 1


def build_group_set(
    kept: Kept, *, plan_hash: str, spec: Spec, owner: Owner, settings: Settings, replicas: int
) -> Manifest:
    """The workers of one plan whose replicas are groups.

    Its name tells its pods: other pods are another set, beside which this one goes on serving. So its own
    rolling update, which gives up a single replica before the next one serves, has only edits of others to
    undo.
    """
    templates = {
        name: build_pod_template(
            kept, plan_hash=plan_hash, spec=spec, owner=owner, settings=settings, role=role
        )
        for name, role in (("leaderTemplate", Role.LEADER), ("workerTemplate", Role.FOLLOWER))
    }
    group: Manifest = {
        "size": kept.plan.gpu.nodes_per_replica if kept.plan.gpu is not None else 1,
        # what is left of a group whose member restarts waits for it in vain
        "restartPolicy": "RecreateGroupOnPodRestart",
        **templates,
    }
    name = f"{owner.name}-{short_hash(group)[:_NAME_DIGITS]}"
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata(owner, name=name, component=WORKER, extra_labels={PLAN: plan_hash}),
        "spec": {
            "replicas": replicas,
            "startupPolicy": "LeaderCreated",
            "networkConfig": {"subdomainPolicy": "Shared"},
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxSurge": 0, "maxUnavailable": 1},
            },
            "leaderWorkerTemplate": group,
        },
    }
