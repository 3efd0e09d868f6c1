"""What a plan is made from beside the object: nodes, and what the cluster knows of the object already."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tonnage.cli.errors import Missing, UsageError
from tonnage.cli.manifests import Found, read_objects
from tonnage.cluster.port import Object
from tonnage.cluster.records import node_record
from tonnage.gpus.nodes import Node
from tonnage.rendering.names import DEPLOYMENT, MODEL, Owner, plan_name
from tonnage.rendering.plan import Kept, kept_plans, read_kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """`context` is None without a cluster, `nodes` a reason where they cannot be read; `objects` and `plans`
    are the LLMDeployments and the ConfigMaps of plans by namespace, as far as they can be read."""

    namespace: str
    nodes: Sequence[Node] | Missing
    context: str | None = None
    objects: Mapping[str, Sequence[Object] | Missing] = field(default_factory=dict)
    plans: Mapping[str, Sequence[Object] | Missing] = field(default_factory=dict)

    def usable_nodes(self) -> Iterator[Node]:
        """The nodes; raises UsageError where they cannot be read, but only if a plan depends on them."""
        if isinstance(self.nodes, Missing):
            raise UsageError(f"{self.nodes.why}; ask for the right to list nodes, or name a file with --node")
        yield from self.nodes

    def siblings(self, namespace: str) -> Sequence[Object]:
        """The LLMDeployments of a namespace."""
        found = self.objects.get(namespace, ())
        return () if isinstance(found, Missing) else found

    def existing(self, namespace: str, name: str) -> Object | Missing | None:
        """The object of that name as it stands; None if there is none."""
        found = self.objects.get(namespace, ())
        if isinstance(found, Missing):
            return found
        return next((body for body in found if body["metadata"]["name"] == name), None)

    def decisions(self, owner: Owner) -> list[tuple[Kept, str]]:
        """What the operator decided about an object before: the plan in force first, then the newest."""
        existing = self.existing(owner.namespace, owner.name)
        status = existing.get("status", {}) if isinstance(existing, dict) else {}
        in_force = plan_name(owner, status.get("plan", {}).get("hash", ""))
        maps = sorted(
            self._plans(owner.namespace),
            key=lambda body: (body["metadata"]["name"] == in_force, _made_at(body)),
            reverse=True,
        )
        return list(kept_plans(maps, owner=owner))

    def neighbours(self, namespace: str, *, name: str, access: str) -> list[Kept]:
        """Plans of other objects that read the same model by the same credentials, the newest first."""
        found = [body for body in self._plans(namespace) if _label(body, MODEL) == access]
        others = [body for body in found if _label(body, DEPLOYMENT) != name]
        read = map(read_kept, sorted(others, key=_made_at, reverse=True))
        return [kept for kept in read if kept is not None]

    def _plans(self, namespace: str) -> Sequence[Object]:
        found = self.plans.get(namespace, ())
        return () if isinstance(found, Missing) else found


def offline(options: argparse.Namespace) -> Surroundings:
    """The nodes in files, and no cluster. Raises UsageError."""
    if options.context or options.kubeconfig:
        raise UsageError("--node plans without a cluster: leave out --context and --kubeconfig")
    bodies = [found for found in read_objects(options.node) if found.kind == "v1 Node"]
    if not bodies:
        raise UsageError(f"{' '.join(options.node)} holds no Node: kubectl get nodes -o yaml prints them")
    return Surroundings(
        namespace=options.namespace or "default", nodes=tuple(_node(found) for found in bodies)
    )


def _label(body: Object, name: str) -> str:
    return str(body["metadata"].get("labels", {}).get(name, ""))


def _made_at(body: Object) -> str:
    return str(body["metadata"].get("creationTimestamp", ""))


def _node(found: Found) -> Node:
    try:
        return node_record(found.body)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UsageError(f"{found.where}: this Node is not as the API server shows it") from None
