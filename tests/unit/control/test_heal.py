"""What is mended while a spec is refused, by a process that did not deploy it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tonnage.cluster.port import BY_KIND, Kind, Object
from tonnage.control.hardware import Hardware
from tonnage.control.steps.apply import heal_children
from tonnage.control.store import Store
from tonnage.control.world import Clock, Memory, Pass, World
from tonnage.rendering.children import build_children
from tonnage.rendering.plan import Kept
from unit.rendering.samples import CLAIMED, KEPT, ON_FOUR, OWNER, SETTINGS, on_gpus, spec

HASH = "0123456789"


class Made:
    """A cluster that takes whatever is made."""

    def __init__(self) -> None:
        self.names: list[tuple[str, str]] = []

    async def create(self, kind: Kind, body: Object) -> Object:
        self.names.append((kind.kind, body["metadata"]["name"]))
        return {**body, "metadata": {**body["metadata"], "resourceVersion": "2"}}


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (KEPT, []),
        (on_gpus(ON_FOUR), []),
        (on_gpus(CLAIMED), [("ResourceClaimTemplate", f"chat-plan-{HASH}")]),
    ],
    ids=["cpu", "resource", "claim"],
)
def test_the_template_by_which_new_pods_claim_their_devices_comes_back(
    kept: Kept, expected: list[tuple[str, str]]
) -> None:
    store, made = Store(touched=lambda _key, _first: None), Made()
    for body in build_children(kept, plan_hash=HASH, spec=spec(), owner=OWNER, settings=SETTINGS):
        body["metadata"]["resourceVersion"] = "1"
        if body["kind"] in ("ConfigMap", "Deployment"):
            store.put(BY_KIND[body["kind"]], body)
    world = World(
        cluster=made,  # type: ignore[arg-type]
        scraper=None,  # type: ignore[arg-type]
        store=store,
        hardware=Hardware(changed=lambda: None),
        settings=SETTINGS,
        clock=Clock(monotonic=lambda: 0.0, now=lambda: "2026-01-01T00:00:00Z"),
    )
    asyncio.run(heal_children(_refused(), world))
    assert sorted(made.names) == sorted([("Service", "chat"), *expected])


def _refused() -> Pass:
    body: dict[str, Any] = {"metadata": {"namespace": OWNER.namespace, "name": OWNER.name, "uid": OWNER.uid}}
    return Pass(key=(OWNER.namespace, OWNER.name), body=body, owner=OWNER, memory=Memory(uid=OWNER.uid))
