"""Objects of `resource.k8s.io/v1` parsed into slim frozen records: slices, claims and device classes.

What is missing or unreadable never raises; a device without a readable part is one that is not planned on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tonnage.cluster.records import taints, whole_number
from tonnage.gpus.slices import Counter, Device, DeviceClass, DeviceRef, ResourceClaim, ResourceSlice
from tonnage.rendering.names import DEPLOYMENT, MANAGED_BY, MANAGER


def slice_record(body: Mapping[str, Any]) -> ResourceSlice:
    """The record of a ResourceSlice."""
    spec = body.get("spec") or {}
    pool, driver = spec.get("pool") or {}, spec.get("driver", "")
    return ResourceSlice(
        name=body["metadata"]["name"],
        driver=driver,
        pool=pool.get("name", ""),
        generation=pool.get("generation") or 0,
        slices_in_pool=pool.get("resourceSliceCount") or 1,
        node=spec.get("nodeName") or "",
        devices=tuple(_device(each, driver) for each in spec.get("devices") or ()),
        counters=_counters(spec.get("sharedCounters") or (), "name"),
    )


def claim_record(body: Mapping[str, Any]) -> ResourceClaim:
    """The record of a ResourceClaim: what is allocated to it, administrative access left out."""
    meta, status = body["metadata"], body.get("status") or {}
    devices = (status.get("allocation") or {}).get("devices") or {}
    labels = meta.get("labels") or {}
    return ResourceClaim(
        namespace=meta.get("namespace", ""),
        name=meta["name"],
        devices=tuple(
            DeviceRef(each.get("driver", ""), each.get("pool", ""), each.get("device", ""))
            for each in devices.get("results") or ()
            if not each.get("adminAccess")
        ),
        deployment=labels.get(DEPLOYMENT, "") if labels.get(MANAGED_BY) == MANAGER else "",
    )


def class_record(body: Mapping[str, Any]) -> DeviceClass:
    """The record of a DeviceClass."""
    return DeviceClass(name=body["metadata"]["name"])


def _device(body: Mapping[str, Any], driver: str) -> Device:
    own = f"{driver}/"
    return Device(
        name=body.get("name", ""),
        attributes={
            name.removeprefix(own): _text(value) for name, value in (body.get("attributes") or {}).items()
        },
        capacity={
            name.removeprefix(own): _whole(value) for name, value in (body.get("capacity") or {}).items()
        },
        consumes=_counters(body.get("consumesCounters") or (), "counterSet"),
        taints=taints(body),
        node=body.get("nodeName") or "",
    )


def _text(value: Any) -> str:
    """An attribute, which is a string, a version, a whole number or a truth, as text."""
    for kind in ("string", "version", "int", "bool"):
        if isinstance(value, Mapping) and kind in value:
            found = value[kind]
            return str(found).lower() if isinstance(found, bool) else str(found)
    return ""


def _whole(value: Any) -> int:
    return whole_number(value.get("value")) if isinstance(value, Mapping) else 0


def _counters(sets: Iterable[Mapping[str, Any]], named: str) -> tuple[Counter, ...]:
    return tuple(
        Counter(each.get(named, ""), counter, _whole(value))
        for each in sets
        for counter, value in sorted((each.get("counters") or {}).items())
    )
