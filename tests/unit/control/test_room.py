"""The arbiter: the answers of the pure arbitration, whoever asks first, and no more work than is needed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tonnage.api.workload import Accelerator
from tonnage.cluster.port import NODE, POD
from tonnage.control import room
from tonnage.control.hardware import Hardware
from tonnage.control.room import Accepted, Arbiter, Offer
from tonnage.gpus.records import Records
from tonnage.planning.gpu.again import sized_again
from tonnage.planning.gpu.candidates import key_of as taught_by
from tonnage.planning.gpu.contend import Contender, Site, contend
from tonnage.planning.gpu.question import Hardware as Wanted
from tonnage.planning.plan import Plan, Rejection
from tonnage.planning.residuals import NOTHING_LEARNED
from unit.gpus.clusters import body
from unit.planning.gpu.samples import GIB
from unit.planning.gpu.test_contend import TOLERANT, contender

KEY = ("ns", "a")


class Cluster:
    def __init__(self, *nodes: str, offer: Offer = room.NOTHING_STATED) -> None:
        self.told = 0
        self.hardware = Hardware(changed=lambda: None)
        for name in nodes:
            self.hardware.put(NODE, body("Node", name))
        self.arbiter = Arbiter(self.hardware, offer=offer, changed=self.tell)

    def tell(self) -> None:
        self.told += 1

    def ask(self, *asked: Contender) -> list[Plan | Rejection]:
        async def all_of_them() -> list[Plan | Rejection]:
            return [await self.arbiter.outcome(key_of(each), each) for each in asked]

        return asyncio.run(all_of_them())

    def accept(self, key: tuple[str, str], plan: Plan, *, pods: int = 1, plan_hash: str = "h1") -> None:
        assert plan.gpu is not None
        self.arbiter.accept(
            key,
            Accepted(
                memory_bytes=0,
                plan_hash=plan_hash,
                pool=plan.pool,
                pods=pods,
                devices=plan.gpu.devices_per_pod,
                priority=0,
                created="",
                placement=TOLERANT,
            ),
        )


def key_of(each: Contender) -> tuple[str, str]:
    namespace, _, name = each.key.partition("/")
    return namespace, name


def bound(name: str, *, gpus: int, deployment: str = "a", plan: str = "h1") -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/managed-by": "tonnage",
        "tonnage.dev/deployment": deployment,
        "tonnage.dev/plan": plan,
    }
    requests = {"requests": {"nvidia.com/gpu": str(gpus)}}
    return {
        "metadata": {"namespace": "ns", "name": name, "labels": labels},
        "spec": {"nodeName": "h100-0", "containers": [{"name": "engine", "resources": requests}]},
        "status": {"phase": "Running"},
    }


@pytest.mark.parametrize("backwards", [False, True])
def test_whoever_asks_first_the_answers_are_those_of_the_arbitration(backwards: bool) -> None:
    asked = [contender(name, priority=at % 3) for at, name in enumerate("abcde")]
    cluster = Cluster("h100-0")
    alone = contend(asked, site=Site(hardware=cluster.hardware.records, prices={}))
    cluster.ask(*(reversed(asked) if backwards else asked))
    assert cluster.ask(*asked) == [alone[each.key] for each in asked]


def test_what_was_worked_out_stands_until_something_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []
    plan_next = room.plan_next
    monkeypatch.setattr(room, "plan_next", lambda c, **rest: turns.append(c.key) or plan_next(c, **rest))
    cluster, asked = Cluster("h100-0"), [contender(name) for name in "ab"]
    cluster.ask(*asked, *asked)
    assert turns == ["ns/a", "ns/b"]
    cluster.ask(contender("c"))
    # the third is refused, and told what would do
    assert turns[2:] == ["ns/c", "ns/c"]
    cluster.ask(replace(asked[1], replicas=2))
    assert turns[4:] == ["ns/b"]
    cluster.hardware.put(POD, bound("x", gpus=1))
    cluster.ask(asked[0])
    assert turns[5:] == ["ns/a"]


def test_what_was_learned_since_counts_for_those_who_ask_again() -> None:
    cluster, asked = Cluster("h100-0"), contender("a")
    known = NOTHING_LEARNED
    cluster.arbiter = Arbiter(
        cluster.hardware, offer=room.NOTHING_STATED, changed=cluster.tell, learned=lambda: known
    )
    (by_law,) = cluster.ask(asked)
    assert isinstance(by_law, Plan)
    found = sized_again(by_law, model=asked.model)
    assert found is not None
    key = taught_by(
        found.choice,
        engine_version="0.32.0",
        architecture=asked.model.shape.architecture,
        compiled=False,
    )
    assert key is not None
    law = found.budget.at_ready
    known = known.with_start(key, started_at=1, measured_bytes=law.likely + 3 * GIB, law=law, trusted=True)
    (by_starts,) = cluster.ask(asked)
    assert isinstance(by_starts, Plan)
    assert by_starts.memory.kv < by_law.memory.kv
    assert cluster.ask(asked) == [by_starts]
    # of an engine with arguments of its user's nothing was learned
    assert cluster.ask(replace(asked, plain=False)) == [by_law]


def test_an_accepted_plan_has_its_devices_before_its_pods_have_a_node_and_once_after() -> None:
    cluster, asked = Cluster("h100-0"), contender("a")
    (plan,) = cluster.ask(asked)
    assert isinstance(plan, Plan)
    cluster.accept(KEY, plan, pods=2)
    (late,) = cluster.ask(contender("b", tensor=2, priority=9))
    assert isinstance(late, Rejection)
    cluster.hardware.put(POD, bound("a-0", gpus=4))
    (late,) = cluster.ask(contender("b", tensor=2, priority=9))
    assert isinstance(late, Rejection)
    cluster.accept(KEY, plan, pods=1)
    (late,) = cluster.ask(contender("b", tensor=4, priority=9))
    assert isinstance(late, Plan)


def test_what_is_accepted_while_turns_are_taken_has_first_call() -> None:
    cluster, asked = Cluster("h100-0"), [contender(name, tensor=4) for name in "bc"]
    (plan,) = contend(
        [contender("a", tensor=4)], site=Site(hardware=cluster.hardware.records, prices={})
    ).values()
    assert isinstance(plan, Plan)

    async def scale(pods: int) -> None:
        cluster.accept(KEY, plan, pods=pods)

    async def meanwhile() -> list[Any]:
        both = cluster.arbiter.outcome(key_of(asked[0]), asked[0]), scale(2)
        return await asyncio.gather(*both)

    assert isinstance(asyncio.run(meanwhile())[0], Rejection)


def test_one_that_cannot_be_planned_for_a_bug_fails_none_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plan_next = room.plan_next

    def fails(each: Contender, **rest: Any) -> Any:
        if each.key == "ns/a":
            raise ZeroDivisionError
        return plan_next(each, **rest)

    monkeypatch.setattr(room, "plan_next", fails)
    cluster = Cluster("h100-0")
    with pytest.raises(ZeroDivisionError):
        cluster.ask(contender("a"))
    assert isinstance(cluster.ask(contender("b"))[0], Plan)


def test_of_many_accepted_plans_that_may_run_on_the_same_nodes_the_inventory_is_taken_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster("h100-0")
    (plan,) = cluster.ask(contender("a", tensor=1))
    assert isinstance(plan, Plan)
    for number in range(20):
        cluster.accept(("ns", f"a{number}"), plan)
    taken, inventory = [], Records.inventory
    monkeypatch.setattr(
        Records, "inventory", lambda self, **rest: taken.append(rest) or inventory(self, **rest)
    )
    assert isinstance(cluster.ask(contender("b", tensor=4))[0], Rejection)
    assert len(taken) < 20


def test_who_leaves_frees_its_devices_and_the_others_are_told() -> None:
    cluster = Cluster("h100-0")
    (plan,) = cluster.ask(contender("a", tensor=8))
    assert isinstance(plan, Plan)
    cluster.accept(KEY, plan)
    cluster.accept(KEY, plan)
    assert cluster.told == 1
    assert isinstance(cluster.ask(contender("b"))[0], Rejection)
    cluster.arbiter.leave(KEY)
    assert cluster.told == 2
    assert isinstance(cluster.ask(contender("b"))[0], Plan)
    cluster.arbiter.leave(KEY)
    assert cluster.told == 2


def test_one_that_contends_no_more_holds_nothing_and_the_others_are_told() -> None:
    cluster = Cluster("h100-0")
    cluster.ask(contender("a", tensor=8))
    assert isinstance(cluster.ask(contender("b"))[0], Rejection)
    assert cluster.told == 0
    cluster.arbiter.withdraw(KEY)
    assert cluster.told == 1
    assert isinstance(cluster.ask(contender("b"))[0], Plan)
    cluster.arbiter.withdraw(KEY)
    assert cluster.told == 1


def test_others_are_told_where_one_ahead_wants_something_else() -> None:
    cluster = Cluster("h100-0")
    cluster.ask(contender("a", tensor=8), contender("b"))
    cluster.ask(contender("a", tensor=8), contender("b"))
    assert cluster.told == 0
    cluster.ask(contender("a", tensor=4))
    assert cluster.told == 1
    assert isinstance(cluster.ask(contender("b"))[0], Plan)


def test_a_plan_that_cannot_become_pods_keeps_no_devices_from_others() -> None:
    cluster = Cluster("h100-0")
    other = body("Node", "h100-0")
    cluster.hardware.put(NODE, {**other, "metadata": {**other["metadata"], "name": "h100-1"}})
    spread = contender("a", hardware=Wanted(tensor_parallel=8, pipeline_parallel=2))
    (alone,) = contend([spread], site=Site(hardware=cluster.hardware.records, prices={})).values()
    assert isinstance(alone, Plan)
    assert alone.gpu is not None
    assert alone.gpu.nodes_per_replica == 2
    (found, _) = cluster.ask(spread, contender("b", tensor=8))
    assert isinstance(found, Rejection)
    assert found.reason == "MultiNodeNotSupported"
    for name in ("b", "c"):
        assert isinstance(cluster.ask(contender(name, tensor=8))[0], Plan)


def test_where_groups_can_be_made_a_replica_of_two_nodes_gets_both() -> None:
    cluster = Cluster("h100-0")
    other = body("Node", "h100-0")
    cluster.hardware.put(NODE, {**other, "metadata": {**other["metadata"], "name": "h100-1"}})
    served: list[bool] = []
    cluster.arbiter = Arbiter(
        cluster.hardware, offer=room.NOTHING_STATED, changed=cluster.tell, groups=lambda: bool(served)
    )
    spread = contender("a", hardware=Wanted(tensor_parallel=8, pipeline_parallel=2))
    assert isinstance(cluster.ask(spread)[0], Rejection)
    served.append(True)
    (plan, late) = cluster.ask(spread, contender("b", tensor=8))
    assert isinstance(plan, Plan)
    assert isinstance(late, Rejection)


def test_what_comes_in_place_of_a_pod_that_leaves_has_first_call_on_its_devices() -> None:
    cluster = Cluster("h100-0")
    (plan,) = cluster.ask(contender("a", tensor=8))
    assert isinstance(plan, Plan)
    cluster.accept(KEY, plan)
    running = bound("a-0", gpus=8)
    cluster.hardware.put(POD, running)
    leaving = {**running, "metadata": {**running["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    for change in (lambda: cluster.hardware.put(POD, leaving), lambda: cluster.hardware.remove(POD, leaving)):
        change()
        assert isinstance(cluster.ask(contender("b", priority=9))[0], Rejection)
    cluster.hardware.put(POD, bound("a-1", gpus=8))
    assert isinstance(cluster.ask(contender("b", priority=9))[0], Rejection)
    cluster.arbiter.leave(KEY)
    cluster.hardware.remove(POD, running | {"metadata": {**running["metadata"], "name": "a-1"}})
    assert isinstance(cluster.ask(contender("b"))[0], Plan)


def test_without_a_word_of_accelerators_gpus_are_taken_where_there_are_any() -> None:
    assert Cluster("h100-0").arbiter.takes_gpus(None)
    assert not Cluster("cpu-0").arbiter.takes_gpus(None)
    assert Cluster("cpu-0").arbiter.takes_gpus(Accelerator.GPU)
    assert not Cluster("h100-0").arbiter.takes_gpus(Accelerator.CPU)


def test_a_stated_inventory_takes_the_place_of_nodes() -> None:
    stated = Cluster("h100-0").hardware.devices
    cluster = Cluster(offer=Offer(inventory=stated))
    assert cluster.arbiter.is_stated
    assert cluster.arbiter.takes_gpus(None)
    resources = [cluster.arbiter.stated_resources(each) for each in (None, Accelerator.GPU, Accelerator.CPU)]
    assert resources == [("nvidia.com/gpu",), ("nvidia.com/gpu",), ()]
    assert Cluster("h100-0").arbiter.stated_resources(None) == ()
    (plan,) = cluster.ask(contender("a", tensor=8))
    assert isinstance(plan, Plan)
    cluster.accept(KEY, plan)
    # its pods are not seen on the stated nodes, wherever they run
    cluster.hardware.put(POD, bound("a-0", gpus=8))
    assert isinstance(cluster.ask(contender("b"))[0], Rejection)
