"""NVIDIA's devices as extended resources, by the labels of GPU feature discovery.

Labels: NVIDIA/k8s-device-plugin internal/lm/resource.go (`RESOURCE.product`, `.memory` in MiB as NVML says,
`.count`, `.replicas`; product with `-SHARED` where sharing does not rename the resource),
internal/lm/mig-strategy.go (`single`: resource nvidia.com/gpu, product with `-MIG-1g.5gb`; `mixed`: resource
and labels nvidia.com/mig-1g.5gb, while nvidia.com/gpu.count counts cards with MIG too; `-MIG-INVALID`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple

from tonnage.gpus.cards import Card, accelerator_named
from tonnage.gpus.inventory import Access, Problem, Reason, Sharing, Vendor
from tonnage.gpus.memory import Memory, device_memory, instance_memory
from tonnage.gpus.mig import Profile, read_profile
from tonnage.gpus.nodes import Node
from tonnage.gpus.offers import (
    NAMED_BY_HAND,
    Found,
    Kind,
    found,
    named_by_hand,
    number,
    refused,
    unknown_product,
)

GPU: Final = "nvidia.com/gpu"
_PREFIX: Final = "nvidia.com/"
_MIG: Final = "nvidia.com/mig-"
_SHARED: Final = ".shared"
_MIB: Final = 2**20
GKE: Final = "cloud.google.com/gke-accelerator"
"""GKE's own label of a node pool, where GFD does not run (cloud.google.com, "About GPUs in GKE")."""
GKE_PROFILE: Final = "cloud.google.com/gke-gpu-partition-size"
GKE_STRATEGY: Final = "cloud.google.com/gke-gpu-sharing-strategy"
GKE_CLIENTS: Final = "cloud.google.com/gke-max-shared-clients-per-gpu"
"""How GKE cuts or shares cards: the profile; time-sharing or mps; by how many ("About GPU sharing")."""
_GKE_PRODUCTS: Final[Mapping[str, str]] = {
    "nvidia-tesla-v100": "V100-16GB",
    "nvidia-tesla-t4": "T4",
    "nvidia-tesla-a100": "A100-40GB",
    "nvidia-a100-80gb": "A100-80GB",
    "nvidia-l4": "L4",
    "nvidia-h100-80gb": "H100-80GB",
    "nvidia-h100-mega-80gb": "H100-80GB",
    "nvidia-h200-141gb": "H200",
    "nvidia-b200": "B200",
    "nvidia-gb200": "GB200",
}


def resources_of(node: Node) -> list[str]:
    """Names of the node's extended resources that are NVIDIA's devices and not 0."""
    return [
        name
        for name, count in sorted(node.capacity.items())
        if count > 0 and name.startswith(_PREFIX) and (name in {GPU, GPU + _SHARED} or name.startswith(_MIG))
    ]


def read(node: Node, resource: str) -> Found:
    """What a resource of the node is, by the node's labels."""
    return _Reading(node, resource).read()


class _Product(NamedTuple):
    """What names a product: the whole name, MIG profile and sharing apart, and the label it is from."""

    name: str
    profile: str
    shared: bool
    card: Card | None
    pin: tuple[str, str]
    gke: bool = False


class _Reading:
    """One resource of one node, read step by step; the first step that fails ends it with a problem."""

    def __init__(self, node: Node, resource: str) -> None:
        self.node = node
        self.labels = node.labels
        self.resource = resource
        self.prefix = resource.removesuffix(_SHARED)

    def read(self) -> Found:
        product = _product(self.labels, self.prefix)
        if product is None:
            return self._no(Reason.NO_PRODUCT_LABEL, _NO_PRODUCT)
        profile = read_profile(product.profile) if product.profile else None
        if product.profile and profile is None:
            return self._no(Reason.MIG_INVALID, _MIG_INVALID.format(product.name, product.profile))
        if profile is not None and profile.part:
            return self._no(Reason.MIG_SHARED, _MIG_PART.format(product.profile))
        sharing, clients = self._sharing(product)
        if clients is None:
            return self._no(Reason.SHARING_UNKNOWN, _SHARING.format(self.resource, self.prefix))
        counted = self._count(clients if sharing is not Sharing.NONE else 1)
        if counted is not None and counted.reason == Reason.MIXED_PRODUCTS:
            return Found(None, (counted,))
        return self._offer(product, profile, sharing, clients, counted)

    def _offer(
        self,
        product: _Product,
        profile: Profile | None,
        sharing: Sharing,
        clients: int,
        counted: Problem | None,
    ) -> Found:
        capability = self._capability()
        if product.card is not None and capability not in {None, product.card.compute_capability}:
            return self._no(Reason.CONTRADICTION, _CAPABILITY.format(product.name, self._capability_text()))
        memory = self._memory(product, profile)
        if memory is None or (product.card is None and capability is None):
            return Found(None, (unknown_product(self.node.name, product.name, _UNKNOWN),))
        if profile is not None and sharing is Sharing.NONE:
            sharing = Sharing.MIG
        kind = Kind(
            vendor=Vendor.NVIDIA,
            product=product.name,
            accelerator=product.card,
            access=Access.RESOURCE,
            resource=self.resource,
            pins=self._pins(product, memory, sharing),
            usual=_usual(self.prefix),
            compute_capability=capability,
            sharing=sharing,
            mig_profile=profile.name if profile else "",
            clients=clients,
        )
        offered = found(self.node, kind, memory)
        return offered._replace(problems=(*offered.problems, *([counted] if counted else [])))

    def _memory(self, product: _Product, profile: Profile | None) -> Memory | None:
        reported = (number(self.labels.get(f"{self.prefix}.memory")) or 0) * _MIB
        if profile is not None:
            return instance_memory(product.card, profile=profile, reported_bytes=reported)
        return device_memory(product.card, reported_bytes=reported)

    def _sharing(self, product: _Product) -> tuple[Sharing, int | None]:
        """How the resource is shared, and by how many; None where nothing says by how many."""
        clients, how = _sharing_labels(self.prefix, gke=product.gke)
        replicas = number(self.labels.get(clients))
        renamed = self.resource.endswith(_SHARED)
        if not (product.shared or renamed or (self._shares_all() and (replicas or 0) > 1)):
            return Sharing.NONE, 1
        if replicas is None or replicas < 2:
            return Sharing.TIME_SLICING, None
        return Sharing.MPS if self.labels.get(how) == "mps" else Sharing.TIME_SLICING, replicas

    def _shares_all(self) -> bool:
        """With a renamed resource beside it, `replicas` is about that one."""
        return not self.node.capacity.get(self.prefix + _SHARED)

    def _count(self, clients: int) -> Problem | None:
        """The problem of a node that offers another number of devices than its labels count."""
        counted = number(self.labels.get(f"{self.prefix}.count"))
        if counted is None:
            return None
        both = self.node.capacity.get(self.prefix, 0), self.node.capacity.get(self.prefix + _SHARED, 0)
        replicas = number(self.labels.get(f"{self.prefix}.replicas")) or 1
        offered = both[0] + both[1] / replicas if both[1] else both[0] / clients
        if offered > counted:
            return self._problem(
                Reason.MIXED_PRODUCTS, _MORE.format(self.resource, offered, self.prefix, counted)
            )
        mixed = self.prefix == GPU and self.labels.get("nvidia.com/mig.strategy") == "mixed"
        if offered < counted and not mixed:
            return self._problem(
                Reason.FEWER_DEVICES, _FEWER.format(self.resource, offered, self.prefix, counted)
            )
        return None

    def _capability(self) -> tuple[int, int] | None:
        major = number(self.labels.get(f"{GPU}.compute.major"))
        minor = number(self.labels.get(f"{GPU}.compute.minor"))
        return None if major is None or minor is None else (major, minor)

    def _capability_text(self) -> str:
        return ".".join(self.labels.get(f"{GPU}.compute.{end}", "") for end in ("major", "minor"))

    def _pins(self, product: _Product, memory: Memory, sharing: Sharing) -> dict[str, str]:
        """The labels that pods are pinned by. How devices are shared is one for MPS only: that it is time
        slicing, older versions of GPU feature discovery do not say."""
        pins = dict([product.pin])
        clients, how = _sharing_labels(self.prefix, gke=product.gke)
        also = {Sharing.MPS: [clients, how], Sharing.TIME_SLICING: [clients]}.get(sharing, [])
        also += [GKE_PROFILE] if product.gke and product.profile else []
        also += [f"{self.prefix}.memory"] if memory.own_bytes else []
        return pins | {key: self.labels[key] for key in also if key in self.labels}

    def _no(self, reason: Reason, message: str) -> Found:
        return refused(self.node, reason, message)

    def _problem(self, reason: Reason, message: str) -> Problem:
        return Problem(node=self.node.name, reason=reason, message=message)


@cache
def _usual(prefix: str) -> frozenset[str]:
    """Labels that pin pods to most pools of a resource."""
    own, gke = _sharing_labels(prefix, gke=False), _sharing_labels(prefix, gke=True)
    return frozenset({f"{prefix}.product", f"{prefix}.memory", GKE_PROFILE, *own, *gke})


def _sharing_labels(prefix: str, *, gke: bool) -> tuple[str, str]:
    """By how many devices are shared, and how."""
    return (GKE_CLIENTS, GKE_STRATEGY) if gke else (f"{prefix}.replicas", f"{prefix}.sharing-strategy")


def _product(labels: Mapping[str, str], prefix: str) -> _Product | None:
    """By the label of the resource itself, that of the whole card, GKE's, or the one for people."""
    profile = prefix.removeprefix(_MIG) if prefix.startswith(_MIG) else ""
    for key in dict.fromkeys((f"{prefix}.product", f"{GPU}.product")):
        text = labels.get(key)
        if text:
            plain = text.removesuffix("-SHARED")
            name, _, own = plain.partition("-MIG-")
            card = accelerator_named(name)
            return _Product(
                name=name,
                profile=own or profile,
                shared=plain != text,
                card=card if isinstance(card, Card) else None,
                pin=(key, text),
            )
    return _without_discovery(labels, profile)


def _without_discovery(labels: Mapping[str, str], profile: str) -> _Product | None:
    by_hand = named_by_hand(labels, Vendor.NVIDIA)
    known = accelerator_named(_GKE_PRODUCTS.get(labels.get(GKE, ""), ""))
    for key, card in ((NAMED_BY_HAND, by_hand), (GKE, known)):
        if isinstance(card, Card):
            return _Product(
                name=card.product.replace(" ", "-"),
                profile=profile or labels.get(GKE_PROFILE, ""),
                shared=bool(labels.get(GKE_STRATEGY)),
                card=card,
                pin=(key, labels[key]),
                gke=GKE in labels,
            )
    return None


_NO_PRODUCT: Final = (
    "devices without the label nvidia.com/gpu.product: install GPU feature discovery (part of NVIDIA's GPU "
    f"operator and of k8s-device-plugin with gfd.enabled), or label the node {NAMED_BY_HAND}"
)
_MIG_INVALID: Final = (
    "MIG of {} is labelled {}: with mig.strategy single all cards of a node must have MIG enabled and be cut "
    "into one profile; change the layout (nvidia.com/mig.config) or use mig.strategy mixed"
)
_MIG_PART: Final = (
    "{} is a compute instance, which shares memory with its neighbours: create GPU instances with one "
    "compute instance each"
)
_SHARING: Final = (
    "{} is shared, and {}.replicas does not say by how many: let GPU feature discovery read the "
    "configuration of the device plugin (one ConfigMap for both)"
)
_CAPABILITY: Final = (
    "{} is labelled with compute capability {}, which it does not have: restart GPU feature discovery on the "
    "node and remove labels that were set by hand"
)
_MORE: Final = (
    "{} has {:g} devices, {}.count says {}: other products, which labels do not describe, are among them; "
    "give each product its own nodes, or hide the others from the device plugin"
)
_FEWER: Final = (
    "{} has {:g} devices, {}.count says {}: the smaller number is counted on; look for a failed device, or "
    "restart the device plugin and GPU feature discovery on the node"
)
_UNKNOWN: Final = (
    "GPU feature discovery must say nvidia.com/gpu.memory and nvidia.com/gpu.compute.major and .minor"
)
