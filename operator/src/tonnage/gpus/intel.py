"""Intel's devices as extended resources: GPUs, and Gaudi.

Labels and resources: intel/intel-device-plugins-for-kubernetes cmd/gpu_plugin/labels.md
(`gpu.intel.com/product=Max_1550`, `.../device.count`, both by rules for Node Feature Discovery; none for
memory) and README.md (`gpu.intel.com/i915`, `gpu.intel.com/xe`; with -shared-dev-num N each device counts N
times). Gaudi: `habana.ai/gaudi` (HabanaAI/habanalabs-k8s-device-plugin); the label `habana.ai/product.name`
is the one that llm-d reads, no page of Intel's states it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tonnage.gpus.cards import Accelerator, accelerator_named
from tonnage.gpus.inventory import Access, Reason, Sharing, Vendor
from tonnage.gpus.memory import device_memory
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

PRODUCT_LABELS: Final[Mapping[str, str]] = {
    "gpu.intel.com/i915": "gpu.intel.com/product",
    "gpu.intel.com/xe": "gpu.intel.com/product",
    "habana.ai/gaudi": "habana.ai/product.name",
}
COUNT: Final = "gpu.intel.com/device.count"


def resources_of(node: Node) -> list[str]:
    """Names of the node's extended resources that are Intel's devices and not 0."""
    return [name for name in PRODUCT_LABELS if node.capacity.get(name, 0) > 0]


def read(node: Node, resource: str) -> Found:
    """What a resource of the node is, by the node's labels."""
    label = PRODUCT_LABELS[resource]
    by_hand = named_by_hand(node.labels, Vendor.INTEL)
    key = NAMED_BY_HAND if by_hand else label
    text = node.labels.get(key, "")
    if not text:
        return refused(node, Reason.NO_PRODUCT_LABEL, _NO_PRODUCT.format(label, resource))
    accelerator = by_hand or _of_intel(text)
    memory = device_memory(accelerator, reported_bytes=0)
    if memory is None or accelerator is None:
        return Found(None, (unknown_product(node.name, text, "no label says its memory"),))
    clients = _clients(node, resource)
    if clients is None:
        return refused(node, Reason.MIXED_PRODUCTS, _MORE.format(resource, COUNT))
    kind = Kind(
        vendor=Vendor.INTEL,
        product=accelerator.product.replace(" ", "_") if by_hand else text,
        accelerator=accelerator,
        access=Access.RESOURCE,
        resource=resource,
        pins={key: text},
        usual=frozenset(PRODUCT_LABELS.values()),
        sharing=Sharing.TIME_SLICING if clients > 1 else Sharing.NONE,
        clients=clients,
    )
    return found(node, kind, memory)


def _of_intel(text: str) -> Accelerator | None:
    known = accelerator_named(text)
    return known if known is not None and known.vendor is Vendor.INTEL else None


def _clients(node: Node, resource: str) -> int | None:
    """How often a device is counted; None where the offer is not a multiple of the devices there are."""
    devices = number(node.labels.get(COUNT)) if resource.startswith("gpu.intel.com/") else None
    offered = node.capacity[resource]
    if not devices or offered <= devices:
        return 1
    return offered // devices if offered % devices == 0 else None


_NO_PRODUCT: Final = (
    "devices without the label {}: install Node Feature Discovery with Intel's rules, or label the node "
    f"{NAMED_BY_HAND} with the product behind {{}}"
)
_MORE: Final = (
    "{} is no multiple of the devices that {} counts: other products may be among them; give each product "
    "its own nodes"
)
