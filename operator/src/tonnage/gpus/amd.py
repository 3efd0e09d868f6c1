"""AMD's devices as extended resources, by the labels of its node labeller.

Labels: ROCm/k8s-device-plugin cmd/k8s-node-labeller/main.go, createLabels: `amd.com/gpu.product-name`,
`.device-id` and `.vram` (whole GiB, `192G`) with the value where all devices have the same, else one
`amd.com/gpu.vram.192G` with the count for each value; older versions write only the second form, with prefix
`beta.`. Resources and partitions: docs/user-guide/configuration.md (`amd.com/gpu`; with the strategy `mixed`
one for each partition type, `amd.com/cpx_nps4`; `compute-memory-partition` if the labeller is asked for it,
as `amd.com/` or `amd.com/gpu.`). Compute units of whole devices: AMD's data sheets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from tonnage.gpus.cards import Accelerator, accelerator_named
from tonnage.gpus.inventory import Access, Reason, Vendor
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

GPU: Final = "amd.com/gpu"
PRODUCT: Final = f"{GPU}.product-name"
DEVICE_ID: Final = f"{GPU}.device-id"
_PREFIX: Final = "amd.com/"
_BETA: Final = "beta."
_GIB: Final = 2**30
_ROUNDED: Final = _GIB // 2
_COMPUTE_UNITS: Final = {"MI300X": 304, "MI300X-VF": 304, "MI325X": 304, "MI350X": 256, "MI355X": 256}


def resources_of(node: Node) -> list[str]:
    """Names of the node's extended resources that are AMD's devices and not 0."""
    return [name for name, count in sorted(node.capacity.items()) if count > 0 and name.startswith(_PREFIX)]


class _Value(NamedTuple):
    """What a label says: the text, how many have it (None: all), and the label itself."""

    text: str
    devices: int | None
    pin: tuple[str, str]


def read(node: Node, resource: str) -> Found:
    """What a resource of the node is, by the node's labels."""
    if resource != GPU:
        return refused(node, Reason.PARTITIONED, _PARTITIONS.format(resource))
    named = [_values(node.labels, key) for key in (PRODUCT, DEVICE_ID)]
    if any(len(values) > 1 for values in named):
        return refused(node, Reason.MIXED_PRODUCTS, _MIXED)
    product = _product(node.labels, *(values[0] if values else None for values in named))
    if product is None:
        return refused(node, Reason.NO_PRODUCT_LABEL, _NO_PRODUCT)
    name, accelerator, value = product
    if value.devices is not None and value.devices < node.capacity[GPU]:
        return refused(node, Reason.MIXED_PRODUCTS, _MIXED)
    if _is_partitioned(node.labels, accelerator):
        return refused(node, Reason.PARTITIONED, _PARTITIONS.format(GPU))
    memory = device_memory(accelerator, reported_bytes=_vram(node.labels), rounding_bytes=_ROUNDED)
    if memory is None or accelerator is None:
        return Found(None, (unknown_product(node.name, name, "it is not known what it computes"),))
    kind = Kind(
        vendor=Vendor.AMD,
        product=name,
        accelerator=accelerator,
        access=Access.RESOURCE,
        resource=GPU,
        pins=dict([value.pin]),
        usual=frozenset({PRODUCT}),
    )
    return found(node, kind, memory)


def _product(
    labels: Mapping[str, str], name: _Value | None, device: _Value | None
) -> tuple[str, Accelerator | None, _Value] | None:
    by_hand = named_by_hand(labels, Vendor.AMD)
    if by_hand is not None:
        value = _Value(labels[NAMED_BY_HAND], None, (NAMED_BY_HAND, labels[NAMED_BY_HAND]))
        return by_hand.product.replace(" ", "_"), by_hand, value
    for each in (name, device):
        known = accelerator_named(each.text) if each else None
        if each is not None and known is not None and known.vendor is Vendor.AMD:
            return (each.text if each is name else known.product.replace(" ", "_")), known, each
    unknown = name or device
    return None if unknown is None else (unknown.text, None, unknown)


def _values(labels: Mapping[str, str], key: str) -> list[_Value]:
    """Every value that the devices of a node have of an attribute."""
    for whole in (key, _BETA + key):
        if labels.get(whole):
            return [_Value(labels[whole], None, (whole, labels[whole]))]
    values: dict[str, _Value] = {}
    for label, text in sorted(labels.items()):
        start = label.removeprefix(_BETA)
        if start.startswith(f"{key}."):
            value = start.removeprefix(f"{key}.")
            values.setdefault(value, _Value(value, number(text), (label, text)))
    return [values[value] for value in sorted(values)]


def _vram(labels: Mapping[str, str]) -> int:
    """Bytes by the label; 0 where there is none, or one for each of several."""
    values = _values(labels, f"{GPU}.vram")
    gib = number(values[0].text.removesuffix("G")) if len(values) == 1 else None
    return (gib or 0) * _GIB


def _is_partitioned(labels: Mapping[str, str], accelerator: Accelerator | None) -> bool:
    """Whether what is counted are parts of devices, which the label for memory does not always show."""
    for key in ("amd.com/compute-memory-partition", f"{GPU}.compute-memory-partition"):
        if not labels.get(key, "spx").lower().startswith("spx"):
            return True
    whole = _COMPUTE_UNITS.get(accelerator.name, 0) if accelerator else 0
    units = _values(labels, f"{GPU}.cu-count")
    return any((number(each.text) or whole) < whole for each in units)


_NO_PRODUCT: Final = (
    "devices without the label amd.com/gpu.product-name or .device-id: run AMD's node labeller with "
    f"-product-name, -device-id and -vram, or label the node {NAMED_BY_HAND}"
)
_MIXED: Final = (
    "several products behind the one resource amd.com/gpu: a pod cannot say which it gets; give each product "
    "its own nodes"
)
_PARTITIONS: Final = (
    "{} counts partitions, whose memory is not known: set compute partition SPX and memory partition NPS1, "
    "or keep the node for others"
)
