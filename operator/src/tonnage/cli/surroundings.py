"""What a plan is made from: the hardware, and what the cluster knows of the object already."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tonnage.cli.errors import Missing, UsageError
from tonnage.cli.manifests import Found, read_objects
from tonnage.cluster.devices import claim_record, class_record, slice_record
from tonnage.cluster.port import Object
from tonnage.cluster.records import node_record, pod_use, priority_record
from tonnage.gpus.nodes import Node
from tonnage.gpus.pods import PodUse
from tonnage.gpus.records import Records
from tonnage.gpus.reservations import Need
from tonnage.gpus.slices import DeviceClass, ResourceClaim, ResourceSlice
from tonnage.planning.residuals import Residuals
from tonnage.rendering.learned import learned_in
from tonnage.rendering.names import DEPLOYMENT, MODEL, Owner, plan_name
from tonnage.rendering.plan import Kept, kept_plans, read_kept

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """`context` is None without a cluster, `nodes` a reason where they cannot be read; `objects` and `plans`
    are the LLMDeployments and the ConfigMaps of plans by namespace, as far as they can be read. So are the
    others: what pods take, devices by claims, and the values of priority classes by name, "" for the default.
    `groups`: does the cluster serve LeaderWorkerSets? Where that is not known, it is taken to.
    `learned` are the ConfigMaps of operators that keep what starts taught.
    """

    namespace: str
    nodes: Sequence[Node] | Missing
    pods: Sequence[PodUse] = ()
    slices: Sequence[ResourceSlice] = ()
    claims: Sequence[ResourceClaim] = ()
    classes: Sequence[DeviceClass] = ()
    priorities: Mapping[str, int] = field(default_factory=dict)
    context: str | None = None
    objects: Mapping[str, Sequence[Object] | Missing] = field(default_factory=dict)
    plans: Mapping[str, Sequence[Object] | Missing] = field(default_factory=dict)
    groups: bool = True
    learned: Sequence[Object] | Missing = ()

    def usable_nodes(self) -> Iterator[Node]:
        """The nodes; raises UsageError where they cannot be read, but only if a plan depends on them."""
        if isinstance(self.nodes, Missing):
            raise UsageError(f"{self.nodes.why}; ask for the right to list nodes, or name a file with --node")
        yield from self.nodes

    def records(self) -> Records:
        """What an inventory is taken from; raises UsageError where nodes cannot be read."""
        return Records(
            nodes=tuple(self.usable_nodes()),
            pods=tuple(self.pods),
            slices=tuple(self.slices),
            claims=tuple(self.claims),
            classes=tuple(self.classes),
        )

    def accepted(self) -> Iterator[Need]:
        """What plans in force need of GPUs for pods that have no node yet, as far as they can be seen."""
        bound = Counter((pod.namespace, pod.deployment, pod.plan) for pod in self.pods if not pod.leaving)
        for namespace in self.objects:
            for body in self.siblings(namespace):
                yield from self._needs(body, bound)

    def _needs(self, body: Object, bound: Mapping[tuple[str, str, str], int]) -> Iterator[Need]:
        meta, status = body["metadata"], body.get("status", {})
        owner = Owner(namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])
        in_force = status.get("plan", {}).get("hash", "")
        plans = kept_plans(self._plans(owner.namespace), owner=owner)
        plan = next((kept.plan for kept, plan_hash in plans if plan_hash == in_force), None)
        if plan is None or plan.gpu is None:
            return
        wanted = status.get("desiredReplicas", 1) * plan.gpu.nodes_per_replica
        to_come = wanted - bound.get((owner.namespace, owner.name, in_force), 0)
        if to_come > 0:
            yield Need(
                key=f"{owner.namespace}/{owner.name}",
                pool=plan.pool,
                pods=to_come,
                devices=plan.gpu.devices_per_pod,
                memory_bytes=plan.request_bytes,
                created=_made_at(body),
            )

    def learned_for(self, namespace: str) -> Residuals:
        """What the operator of a namespace has learned; nothing where that cannot be read."""
        maps = () if isinstance(self.learned, Missing) else self.learned
        return learned_in(maps, namespace=namespace)

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
    bodies = read_objects(options.node)
    nodes = _read(bodies, "v1 Node", node_record)
    if not nodes:
        raise UsageError(f"{' '.join(options.node)} holds no Node: kubectl get nodes -o yaml prints them")
    return Surroundings(
        namespace=options.namespace or "default",
        nodes=nodes,
        pods=_read(bodies, "v1 Pod", pod_use),
        slices=_read(bodies, "resource.k8s.io/v1 ResourceSlice", slice_record),
        claims=_read(bodies, "resource.k8s.io/v1 ResourceClaim", claim_record),
        classes=_read(bodies, "resource.k8s.io/v1 DeviceClass", class_record),
        priorities=priorities_of(
            found.body for found in bodies if found.kind == "scheduling.k8s.io/v1 PriorityClass"
        ),
    )


def priorities_of(bodies: Iterable[Object]) -> dict[str, int]:
    """Values of priority classes by name, "" for the default one."""
    read = [priority_record(body) for body in bodies]
    return {name: each.value for each in read for name in (each.name, "") if name or each.is_default}


def _label(body: Object, name: str) -> str:
    return str(body["metadata"].get("labels", {}).get(name, ""))


def _made_at(body: Object) -> str:
    return str(body["metadata"].get("creationTimestamp", ""))


def _read(found: Sequence[Found], kind: str, reader: Callable[[Object], T]) -> tuple[T, ...]:
    return tuple(_record(each, reader) for each in found if each.kind == kind)


def _record(found: Found, reader: Callable[[Object], T]) -> T:
    try:
        return reader(found.body)
    except (KeyError, TypeError, AttributeError, ValueError):
        name = found.kind.rpartition(" ")[2]
        raise UsageError(f"{found.where}: this {name} is not as the API server shows it") from None
