"""The decision in a pass: which objects hold devices, also where nothing new may be decided."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from tonnage.api.status import ConditionType
from tonnage.cluster.port import BY_KIND, LLM_DEPLOYMENT, NODE, POD, ApiError
from tonnage.control import reconcile as passes
from tonnage.control.hardware import Hardware
from tonnage.control.queue import Key
from tonnage.control.reconcile import reconcile
from tonnage.control.room import Arbiter
from tonnage.control.steps.decide import decide_plan
from tonnage.control.store import Store
from tonnage.control.world import Clock, Known, Pass, World
from tonnage.models import ResolvedModel
from tonnage.rendering.children import build_children
from tonnage.rendering.inspection import reading_of
from tonnage.rendering.names import PLAN, Owner
from tonnage.rendering.plan import Kept
from tonnage.rendering.setback import SLACK_BYTES
from unit.control.test_room import bound
from unit.gpus import clusters
from unit.planning.gpu.samples import GIB, LLAMA_8B
from unit.rendering.samples import SETTINGS, spec

GPUS = {"hardware": {"accelerator": "GPU", "parallelism": {"tensor": 8}}, "workload": {"contextLength": 4096}}


class Room:
    """A world of one node with eight devices; passes decide, and bring nothing about."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.again: list[Key] = []
        self.versions = itertools.count(1)
        self.world = self._new_world()
        self.objects: dict[Key, Mapping[str, Any]] = {}
        self.last: Pass | None = None
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(passes, "_decide_and_bring", self._decide)
        monkeypatch.setattr(passes, "LOOKING", ())

    def _new_world(self) -> World:
        hardware = Hardware(changed=lambda: None)
        hardware.put(NODE, clusters.body("Node", "h100-0"))
        return World(
            cluster=None,  # type: ignore[arg-type]
            scraper=None,  # type: ignore[arg-type]
            store=Store(touched=lambda _key, _first: None),
            hardware=hardware,
            settings=SETTINGS,
            clock=Clock(monotonic=lambda: 0.0, now=lambda: "2026-01-01T00:00:00Z"),
            room_changed=lambda: self.again.extend(self.world.waiting_for_room),
        )

    async def _decide(self, p: Pass, world: World) -> None:
        self.last = p
        fields = self.objects[p.key]
        if "refused" in fields:
            return
        p.spec = spec(**fields)
        p.reading = reading_of(p.spec, annotations={})
        p.known = Known(model=ResolvedModel(profile=LLAMA_8B, revision="abcdef0"), refreshed="")
        await decide_plan(p, world)

    def put(self, name: str, **fields: Any) -> None:
        """An object with this spec."""
        key = ("ns", name)
        self.objects[key] = fields
        self.world.store.put(LLM_DEPLOYMENT, self._body(name))

    def _body(self, name: str) -> dict[str, Any]:
        version = next(self.versions)
        meta = {"namespace": "ns", "name": name, "uid": name, "generation": version}
        meta["resourceVersion"] = str(version)
        return {"kind": "LLMDeployment", "metadata": meta}

    def planned(self, name: str) -> tuple[bool | None, str, str]:
        """Status, reason and message of Planned after a pass."""
        asyncio.run(reconcile(("ns", name), self.world))
        assert self.last is not None
        found = self.last.findings[ConditionType.PLANNED]
        return found.status, found.reason, found.message

    def passed(self, name: str) -> None:
        """A pass of an object whose spec is refused before anything is planned."""
        asyncio.run(reconcile(("ns", name), self.world))

    def restart_with(self, name: str, *, replicas: int) -> None:
        """Another process, which finds what this one deployed for the last object."""
        assert self.last is not None
        kept = self.last.kept
        assert kept is not None
        children = build_children(
            kept,
            plan_hash=self.last.plan_hash,
            spec=spec(**self.objects["ns", name], replicas=replicas),
            owner=Owner(namespace="ns", name=name, uid=name),
            settings=SETTINGS,
        )
        self.world = self._new_world()
        for child in children:
            child["metadata"]["resourceVersion"] = "1"
            self.world.store.put(BY_KIND[child["kind"]], child)
        for other in self.objects:
            self.world.store.put(LLM_DEPLOYMENT, self._body(other[1]))
        self.world.unseen = set(self.objects)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(monkeypatch)


def test_a_plan_over_nodes_waits_for_the_kind_that_it_needs_and_goes_with_it(room: Room) -> None:
    second = clusters.body("Node", "h100-0")
    room.world.hardware.put(NODE, {**second, "metadata": {**second["metadata"], "name": "h100-1"}})
    spread = {**GPUS, "hardware": {"accelerator": "GPU", "parallelism": {"tensor": 8, "pipeline": 2}}}
    room.put("a", **spread)
    assert room.planned("a")[:2] == (False, "MultiNodeNotSupported")
    assert room.world.waiting_for_room == {("ns", "a")}
    room.world.groups_served = lambda: True
    room.world.arbiter = Arbiter(
        room.world.hardware, offer=room.world.offer, changed=lambda: None, groups=lambda: True
    )
    assert room.planned("a")[:2] == (True, "Planned")
    assert room.last is not None
    assert room.last.kept is not None
    # its pods have two nodes, of which others get nothing
    room.put("b", **GPUS)
    assert room.planned("b")[1] == "NotEnoughGpus"
    room.world.groups_served = lambda: False
    # its set is gone with the kind, which the store tells
    room.world.store.touch(("ns", "a"))
    assert room.planned("a")[:2] == (False, "MultiNodeNotSupported")
    assert room.world.waiting_for_room == {("ns", "a"), ("ns", "b")}


def test_a_plan_holds_its_devices_and_the_next_is_told_by_whom(room: Room) -> None:
    room.put("a", **GPUS)
    assert room.planned("a")[:2] == (True, "Planned")
    room.put("b", **GPUS)
    status, reason, message = room.planned("b")
    assert (status, reason) == (False, "NotEnoughGpus")
    assert "8 by ns/a" in message
    assert room.world.waiting_for_room == {("ns", "b")}


@pytest.mark.parametrize(
    "change",
    [
        {"refused": True},
        {**GPUS, "workload": {"contextLength": 10_000_000}},
        {**GPUS, "template": {"resources": {"memory": "1Gi"}}},
        # there is no CPU node
        {"hardware": {"accelerator": "CPU"}},
    ],
    ids=["refused", "no such plan", "too little memory", "no CPU node"],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_the_plan_in_force_of_one_whose_change_came_to_nothing_keeps_its_devices(
    room: Room, change: dict[str, Any], restarted: bool
) -> None:
    room.put("a", **GPUS)
    assert room.planned("a")[0]
    if restarted:
        room.restart_with("a", replicas=1)
    room.put("a", **change)
    room.passed("a")
    assert room.last is not None
    assert room.last.kept is None
    room.put("b", **GPUS)
    status, _, message = room.planned("b")
    assert status is False
    assert "8 by ns/a" in message


def test_one_that_runs_on_cpu_nodes_from_now_on_frees_its_devices(room: Room) -> None:
    room.put("a", **GPUS)
    assert room.planned("a")[0]
    room.put("b", **GPUS)
    assert room.planned("b")[0] is False
    room.world.hardware.put(NODE, clusters.body("Node", "cpu-0"))
    room.put("a", hardware={"accelerator": "CPU"}, workload={"contextLength": 4096, "concurrency": 1})
    assert room.planned("a")[:2] == (True, "Planned")
    assert ("ns", "b") in room.again
    assert room.planned("b")[0]


def test_one_that_serves_on_cpu_nodes_and_waits_for_gpus_stays_in_line_quietly(room: Room) -> None:
    room.world.hardware.put(NODE, clusters.body("Node", "cpu-0"))
    room.put("a", hardware={"accelerator": "CPU"}, workload={"contextLength": 4096, "concurrency": 1})
    assert room.planned("a")[0]
    room.restart_with("a", replicas=1)
    room.put("a", **{**GPUS, "hardware": {"accelerator": "GPU", "parallelism": {"tensor": 16}}})
    assert room.planned("a")[0] is False
    room.again.clear()
    assert room.planned("a")[0] is False
    assert room.again == []


def test_no_plan_is_made_before_all_others_were_looked_at(room: Room) -> None:
    room.put("a", **GPUS)
    assert room.planned("a")[0]
    room.put("b", **GPUS)
    room.restart_with("a", replicas=1)
    assert room.planned("b")[:2] == (None, "Waiting")
    assert room.planned("a")[0]
    assert "8 by ns/a" in room.planned("b")[2]


@pytest.mark.parametrize("deleted", [False, True])
def test_an_object_that_is_made_later_or_leaves_keeps_no_other_waiting(room: Room, deleted: bool) -> None:
    room.put("a", **GPUS)
    if deleted:
        room.world.unseen = {("ns", "a")}
        body = room.world.store.objects["ns", "a"]
        body["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "99"}
        room.world.store.put(LLM_DEPLOYMENT, body)
        room.passed("a")
    room.put("b", **GPUS)
    assert room.planned("b")[:2] == (True, "Planned")


def test_a_plan_that_came_to_nothing_keeps_no_devices(room: Room) -> None:
    room.put("a", **GPUS, template={"resources": {"memory": "1Gi"}})
    assert room.planned("a")[:2] == (False, "MemoryRequestTooSmall")
    assert room.world.waiting_for_room == set()
    room.put("b", **GPUS)
    assert room.planned("b")[0]


def test_where_there_is_no_accelerator_one_is_waited_for(room: Room) -> None:
    hardware = room.world.hardware
    body = clusters.body("Node", "h100-0")
    hardware.remove(NODE, body)
    room.put("a", **GPUS)
    assert room.planned("a")[:2] == (False, "NoAccelerators")
    assert room.world.waiting_for_room == {("ns", "a")}
    hardware.put(NODE, body)
    assert room.planned("a")[0]
    assert room.world.waiting_for_room == set()


def test_where_nodes_may_not_be_read_it_is_said_what_to_set(room: Room) -> None:
    room.world.nodes_readable = lambda: False
    room.put("a", **GPUS)
    status, reason, message = room.planned("a")
    assert (status, reason) == (False, "NodesUnknown")
    assert "rbac.nodes" in message
    assert "inventory.pools" in message


def test_a_new_plan_waits_for_room_beside_pods_that_serve_unless_they_may_go_down(room: Room) -> None:
    room.put("a", **GPUS)
    assert room.planned("a")[0]
    assert room.last is not None
    first = room.last.plan_hash
    room.world.hardware.put(POD, bound("a-0", gpus=8, plan=first))
    larger = {**GPUS, "workload": {"contextLength": 8192}}
    room.put("a", **larger)
    assert room.planned("a")[:2] == (False, "NoRoomForSurge")
    room.put("a", **larger, rollout={"allowDowntime": True})
    assert room.planned("a")[0]
    assert room.last.plan_hash != first


LORA = ["--enable-lora", "--max-loras", "8"]


def test_adapters_make_a_plan_anew_that_holds_them_and_nothing_else_of_the_arguments_does(room: Room) -> None:
    def planned(*words: str) -> Kept:
        room.put("a", **GPUS, engine={"extraArgs": list(words)}, rollout={"allowDowntime": True})
        assert room.planned("a")[:2] == (True, "Planned")
        assert room.last is not None
        assert room.last.kept is not None
        return room.last.kept

    plain = planned()
    assert planned("--max-logprobs", "8") == plain
    slotted = planned(*LORA)
    assert slotted.inputs != plain.inputs
    assert slotted.plan.memory.weights > plain.plan.memory.weights
    assert "8 slots of LoRA adapters of rank 16" in slotted.plan.reason
    assert planned(*LORA, "--max-logprobs", "8") == slotted
    assert planned() == plain


def test_what_encoders_take_for_adapters_is_refused_on_gpus(room: Room) -> None:
    room.put("a", **GPUS, engine={"extraArgs": [*LORA, "--enable-tower-connector-lora"]})
    assert room.planned("a")[:2] == (False, "UncountedArgument")


# setbacks

LACKED = {"reason": "OutOfMemory", "message": "CUDA out of memory", "exitCode": 1}


def runs_out(room: Room, name: str, *, missing: int, serves: bool = False) -> None:
    """The worker of an object's plan ends for want of so many bytes."""
    assert room.last is not None
    body = bound(f"{name}-0", gpus=8, deployment=name, plan=room.last.plan_hash)
    figures = {"triedBytes": missing + GIB, "freeBytes": GIB}
    ended = {"exitCode": 1, "reason": "Error", "message": json.dumps({**LACKED, "figures": figures})}
    body["metadata"] |= {"uid": f"{name}-0", "resourceVersion": str(next(room.versions))}
    body["status"] |= {
        "containerStatuses": [{"name": "engine", "lastState": {"terminated": ended}}],
        "conditions": [{"type": "Ready", "status": str(serves)}],
    }
    room.world.store.put(POD, body)
    room.world.hardware.put(POD, body)


def degraded(room: Room) -> str:
    assert room.last is not None
    found = room.last.findings.get(ConditionType.DEGRADED)
    return found.message if found is not None else ""


def test_a_plan_whose_worker_ran_out_of_memory_is_replaced_once_by_one_that_keeps_more_free(
    room: Room,
) -> None:
    """There is no room beside its pods, and none is needed: they fail."""
    room.put("a", **GPUS)
    assert room.planned("a")[0]
    assert room.last is not None
    assert room.last.kept is not None
    first = room.last.kept
    runs_out(room, "a", missing=2 * GIB)
    status, _, message = room.planned("a")
    second = room.last.kept
    assert (status, second.withheld_bytes) == (True, 2 * GIB + SLACK_BYTES)
    assert "2.50 GiB of each device are kept free" in message
    block = first.plan.bytes_per_block
    given_up = first.plan.memory.kv - second.plan.memory.kv
    assert abs(given_up - second.withheld_bytes) < block
    assert second.plan.memory.total <= first.plan.memory.total + block
    assert degraded(room) == ""
    # what the pods of the plan before say means nothing any more
    assert (room.planned("a")[0], room.last.kept) == (True, second)
    runs_out(room, "a", missing=GIB)
    assert (room.planned("a")[0], room.last.kept) == (True, second)
    assert "1.00 GiB were missing, in a plan that keeps 2.50 GiB free already. 8x" in degraded(room)
    assert "can hold the same work with 4.00 GiB of each kept free" in degraded(room)
    runs_out(room, "a", missing=GIB, serves=True)
    assert (room.planned("a")[0], degraded(room)) == (True, "")


def test_a_pod_that_is_gone_with_its_group_leads_to_another_plan_too(room: Room) -> None:
    room.put("a", **GPUS)
    assert room.planned("a")[0]
    runs_out(room, "a", missing=2 * GIB)
    [failed] = room.world.store.pods(("ns", "a"))
    body = bound("a-0", gpus=8, deployment="a", plan=failed.labels[PLAN])
    body["metadata"] |= {"uid": "a-0", "resourceVersion": str(next(room.versions))}
    room.world.store.remove(POD, body)
    room.world.hardware.remove(POD, body)
    assert room.world.store.pods(("ns", "a")) == []
    room.world.memory(("ns", "a"), uid="a").ended = failed
    assert room.planned("a")[0]
    assert room.last is not None
    assert room.last.kept is not None
    assert room.last.kept.withheld_bytes == 2 * GIB + SLACK_BYTES


def fills_its_devices(room: Room) -> Kept | None:
    """An object whose workload takes all that there is, but for one request; its plan."""
    longest = 131072
    workload = {"contextLength": longest, "typicalTokens": longest}
    room.put("a", **GPUS)
    assert room.planned("a")[0]
    assert room.last is not None
    assert room.last.kept is not None
    most = room.last.kept.plan.tokens // longest - 1
    room.put("a", **{**GPUS, "quality": "Lossless", "workload": {**workload, "concurrency": most}})
    assert room.planned("a")[0]
    return room.last.kept


def test_where_no_plan_with_more_room_is_possible_the_one_before_stays_and_it_is_said(room: Room) -> None:
    first = fills_its_devices(room)
    assert room.last is not None
    runs_out(room, "a", missing=7 * GIB)
    assert (room.planned("a")[0], room.last.kept) == (True, first)
    assert "With 7.50 GiB of each device kept free there is no plan: " in degraded(room)
    assert room.world.waiting_for_room == {("ns", "a")}


def fails_for_good(room: Room, *, missing: int) -> Kept:
    """An object whose second plan is deployed, and fails for want of so many bytes too."""
    fills_its_devices(room)
    assert room.last is not None
    runs_out(room, "a", missing=GIB // 4)
    assert room.planned("a")[0]
    second = room.last.kept
    assert second is not None
    assert second.withheld_bytes == 3 * GIB // 4
    room.restart_with("a", replicas=1)
    runs_out(room, "a", missing=missing)
    assert (room.planned("a")[0], room.last.kept) == (True, second)
    return second


def test_the_remedy_after_two_failures_is_a_figure_and_what_is_changed_so_keeps_more_free(room: Room) -> None:
    second = fails_for_good(room, missing=6 * GIB)
    said = degraded(room)
    (most,) = re.findall(r"workload\.concurrency <= (\d+)", said)
    (longest,) = re.findall(r"workload\.contextLength <= (\d+)", said)
    assert "in a plan that keeps 768.0 MiB free already. With 7.25 GiB of each device kept free there" in said
    asked = room.objects["ns", "a"]
    workload = asked["workload"]
    assert int(longest) < workload["contextLength"]
    assert int(most) < workload["concurrency"]
    beyond = {**workload, "concurrency": int(most) + 1}
    assert beyond["concurrency"] < workload["concurrency"]
    room.put("a", **{**asked, "workload": beyond})
    status, reason, message = room.planned("a")
    assert (status, reason) == (False, "NotEnoughMemory")
    assert "7.25 GiB of each device are kept free" in message
    room.put("a", **{**asked, "workload": {**workload, "concurrency": int(most)}})
    assert room.planned("a")[0]
    assert room.last is not None
    assert room.last.kept is not None
    assert room.last.kept.withheld_bytes == 29 * GIB // 4
    assert room.last.kept.plan.memory.total <= second.plan.memory.total + second.plan.bytes_per_block


@pytest.mark.parametrize(
    ("missing", "serves", "withheld"), [(GIB, False, 9 * GIB // 4), (GIB, True, 0), (40 * GIB, False, 0)]
)
def test_a_plan_that_is_asked_for_keeps_more_free_while_the_one_before_fails_for_a_known_reason(
    room: Room, missing: int, serves: bool, withheld: int
) -> None:
    fails_for_good(room, missing=missing)
    if serves:
        runs_out(room, "a", missing=missing, serves=True)
    asked = room.objects["ns", "a"]
    room.put("a", **{**asked, "quality": "NearLossless"}, rollout={"allowDowntime": True})
    assert room.planned("a")[0]
    assert room.last is not None
    assert room.last.kept is not None
    assert room.last.kept.withheld_bytes == withheld


def test_what_moves_to_cpu_nodes_keeps_nothing_free_there(room: Room) -> None:
    room.world.hardware.put(NODE, clusters.body("Node", "cpu-0"))
    room.put("a", **GPUS)
    assert room.planned("a")[0]
    room.restart_with("a", replicas=1)
    room.world.hardware.put(NODE, clusters.body("Node", "cpu-0"))
    runs_out(room, "a", missing=GIB)
    room.put("a", hardware={"accelerator": "CPU"}, workload={"contextLength": 4096, "concurrency": 1})
    assert room.planned("a")[0]
    assert room.last is not None
    assert room.last.kept is not None
    assert (room.last.kept.plan.gpu, room.last.kept.withheld_bytes) == (None, 0)


def test_what_no_estimate_explains_leads_to_no_other_plan(room: Room) -> None:
    room.put("a", **GPUS)
    assert room.planned("a")[0]
    assert room.last is not None
    first = room.last.kept
    runs_out(room, "a", missing=78 * GIB)
    assert (room.planned("a")[0], room.last.kept) == (True, first)
    assert "78.00 GiB were missing; that is more than an eighth of a device" in degraded(room)
    assert "no plan keeps as much free" in degraded(room)
    room.put("b", **GPUS)
    assert "8 by ns/a" in room.planned("b")[2]


def test_a_setback_that_waits_for_room_is_looked_at_in_every_pass(room: Room) -> None:
    first = fills_its_devices(room)
    assert room.last is not None
    runs_out(room, "a", missing=7 * GIB, serves=True)
    assert (room.planned("a")[0], room.last.kept) == (True, first)
    assert room.world.waiting_for_room == {("ns", "a")}
    before = room.last
    room.passed("a")
    assert room.last is not before


def test_a_setback_leads_to_no_plan_on_cpu_nodes_where_the_gpus_are_gone(room: Room) -> None:
    anywhere = {"workload": {"contextLength": 4096, "concurrency": 1}}
    room.put("a", **anywhere)
    assert room.planned("a")[0]
    assert room.last is not None
    first = room.last.kept
    runs_out(room, "a", missing=GIB)
    room.world.hardware.remove(NODE, clusters.body("Node", "h100-0"))
    room.world.hardware.put(NODE, clusters.body("Node", "cpu-0"))
    assert (room.planned("a")[0], room.last.kept) == (True, first)
    assert "of each device kept free there is no plan: " in degraded(room)


def test_a_restarted_operator_keeps_the_plan_that_was_made_after_a_setback(room: Room) -> None:
    room.put("a", **GPUS)
    assert room.planned("a")[0]
    runs_out(room, "a", missing=GIB)
    assert room.planned("a")[0]
    assert room.last is not None
    second = room.last.kept
    room.restart_with("a", replicas=1)
    assert (room.planned("a")[0], room.last.kept) == (True, second)


def test_a_first_pass_that_has_only_begun_tells_no_other_what_is_free(room: Room) -> None:
    room.put("a", **GPUS)
    assert room.planned("a")[0]
    room.put("b", **GPUS)
    room.restart_with("a", replicas=1)
    decided = dict[str, Pass]()

    async def slowly(p: Pass, world: World) -> None:
        for _ in range(9 if p.key[1] == "a" else 0):
            # a request on the way
            await asyncio.sleep(0)
        await room._decide(p, world)
        decided[p.key[1]] = p

    async def at_once() -> None:
        await asyncio.gather(*(reconcile(("ns", name), room.world) for name in "ab"))

    room.monkeypatch.setattr(passes, "_decide_and_bring", slowly)
    asyncio.run(at_once())
    assert decided["b"].findings[ConditionType.PLANNED].reason == "Waiting"
    assert decided["a"].kept is not None


async def no_status(_p: Pass, _world: World) -> bool:
    raise ApiError(422, "a webhook refuses the status")


def test_one_whose_status_cannot_be_written_keeps_no_other_waiting(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.put("a", **GPUS)
    assert room.planned("a")[0]
    room.put("b", **GPUS)
    room.restart_with("a", replicas=1)
    monkeypatch.setattr(passes, "LOOKING", (no_status,))
    with pytest.raises(ApiError):
        room.passed("a")
    monkeypatch.setattr(passes, "LOOKING", ())
    assert "8 by ns/a" in room.planned("b")[2]
