"""What one node offers, for the readers of each vendor: devices of a pool, or a problem with a remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from tonnage.gpus.cards import Accelerator, Card, accelerator_named, formats_of
from tonnage.gpus.inventory import Access, Pool, Problem, Reason, Sharing, Vendor
from tonnage.gpus.memory import Memory
from tonnage.gpus.nodes import Node

NAMED_BY_HAND: Final = "tonnage.dev/accelerator"
"""A label for nodes that no labeller names: the product as the catalogue or the driver calls it."""
_RESOURCES: Final = frozenset({"nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "habana.ai/gaudi"})


@dataclass(frozen=True, slots=True)
class Offer:
    """Devices of a pool that a node has. `pool` has no nodes yet. `taken` is of what is not seen as requests
    of pods: devices that ResourceClaims hold, and `ours` those that claims of LLMDeployments do."""

    pool: Pool
    devices: int
    taken: int = 0
    ours: int = 0


class Found(NamedTuple):
    """What one extended resource of a node turned out to be: an offer, None if it is not to be used, and
    what is not believed of it."""

    offer: Offer | None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a pool's devices are, before their memory is known. `usual` are labels whose presence among
    `pins` says nothing about the pool, so that its name leaves them out."""

    vendor: Vendor
    product: str
    accelerator: Accelerator | None
    access: Access
    resource: str
    pins: Mapping[str, str]
    usual: frozenset[str]
    compute_capability: tuple[int, int] | None = None
    sharing: Sharing = Sharing.NONE
    mig_profile: str = ""
    clients: int = 1
    selectors: tuple[str, ...] = ()


def found(node: Node, kind: Kind, memory: Memory) -> Found:
    """The node's devices of an extended resource, and what is not believed of their memory."""
    doubt = memory_doubt(node.name, kind.product, memory)
    offer = Offer(build_pool(kind, memory), node.allocatable.get(kind.resource, 0))
    return Found(offer, (doubt,) if doubt else ())


def refused(node: Node, reason: Reason, message: str) -> Found:
    """No offer, and why."""
    return Found(None, (Problem(node=node.name, reason=reason, message=message),))


def build_pool(kind: Kind, memory: Memory) -> Pool:
    """The pool of a kind of devices with this much memory, without nodes."""
    accelerator, capability = kind.accelerator, kind.compute_capability
    share = kind.clients if kind.sharing is Sharing.MPS else 1
    if accelerator is not None:
        computes = accelerator.computes
        capability = accelerator.compute_capability if isinstance(accelerator, Card) else None
    else:
        computes = formats_of(capability) if capability else ()
    return Pool(
        name=pool_name(kind, memory),
        vendor=kind.vendor,
        product=kind.product,
        memory_bytes=memory.total_bytes // share,
        memory_source=memory.source if share == 1 else f"1/{share} (MPS) of {memory.source}",
        access=kind.access,
        resource=kind.resource,
        selectors=kind.selectors,
        compute_capability=capability,
        computes=computes,
        bandwidth_bytes=accelerator.bandwidth_gb * 10**9 if accelerator else 0,
        sharing=kind.sharing,
        mig_profile=kind.mig_profile,
        clients=kind.clients,
        node_labels=dict(kind.pins),
    )


def pool_name(kind: Kind, memory: Memory) -> str:
    """The pool's name: the product, and what tells its devices from others of that product.

    `-mig-PROFILE`; `-shared-N` or `-mps-N` for N clients; `-Nmib` or `-Nb` where memory is not the
    catalogue's figure; `-dra` for claims; the ends of resources and labels that are not the usual ones.
    """
    parts = [slug(kind.product)]
    if kind.mig_profile:
        parts.append(f"mig-{slug(kind.mig_profile)}")
    if kind.sharing in {Sharing.TIME_SLICING, Sharing.MPS}:
        parts.append(f"{'mps' if kind.sharing is Sharing.MPS else 'shared'}-{kind.clients}")
    if kind.resource.endswith(".shared"):
        parts.append("renamed")
    usual = kind.resource.removesuffix(".shared") in {*_RESOURCES, f"nvidia.com/mig-{kind.mig_profile}"}
    if kind.access is Access.RESOURCE and not usual:
        parts.append(slug(kind.resource.partition("/")[2]))
    if memory.own_bytes:
        whole = memory.own_bytes % 2**20 == 0
        parts.append(f"{memory.own_bytes >> 20}mib" if whole else f"{memory.own_bytes}b")
    if kind.access is Access.CLAIM:
        parts.append("dra")
    # Values as they are, so that no two that are spelled alike give one name to different nodes.
    parts.extend(
        f"by-{slug(key)}-{value}" for key, value in sorted(kind.pins.items()) if key not in kind.usual
    )
    return "-".join(parts)


def slug(text: str) -> str:
    """Lower case letters, digits, hyphens and periods."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def named_by_hand(labels: Mapping[str, str], vendor: Vendor) -> Accelerator | None:
    """The product that the label for this purpose names, if it is one of this vendor."""
    found = accelerator_named(labels.get(NAMED_BY_HAND, ""))
    return found if found is not None and found.vendor is vendor else None


def number(text: str | None) -> int | None:
    """A label's whole number; None where it is absent or none."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 16 else None


def memory_doubt(node: str, product: str, memory: Memory) -> Problem | None:
    """The problem of a report that was not believed."""
    if not memory.doubt:
        return None
    used = f"{memory.total_bytes / 2**30:.2f} GiB are counted on"
    return Problem(
        node=node,
        reason=Reason.MEMORY_DOUBTFUL,
        message=f"memory reported of {product}: {memory.doubt}; {used}. Compare with the driver's own tool "
        f"on the node; if a vGPU or a partition is meant, name it in the product label",
    )


def unknown_product(node: str, product: str, remedy: str) -> Problem:
    """The problem of a product that neither the catalogue nor the node describes."""
    return Problem(
        node=node,
        reason=Reason.UNKNOWN_PRODUCT,
        message=f"{product} is not in the catalogue of accelerators: {remedy}, or label the node "
        f"{NAMED_BY_HAND} with a product that is",
    )
