"""Nodes join, leave, fail and fill up: as long as the devices of a plan are there and none is freed, the same
question has the same plan."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tonnage.gpus.inventory import Pool, PoolNode
from tonnage.planning.gpu import rules
from tonnage.planning.gpu.candidates import Choice
from tonnage.planning.gpu.question import GpuQuestion
from tonnage.planning.gpu.search import search
from tonnage.planning.plan import Plan
from unit.planning.gpu.samples import node
from unit.planning.gpu.test_search import as_plan, questions


def holders(asked: GpuQuestion, choice: Choice) -> set[str]:
    """Nodes of its pool on which the replica has its devices."""
    memory = rules.main_memory_bytes(asked, choice)
    able = [
        each.name
        for each in choice.pool.nodes
        if each.free >= choice.devices_per_pod and each.memory_bytes >= memory
    ]
    return set(able[: choice.nodes])


@st.composite
def changed(draw: st.DrawFn, pool: Pool, kept: set[str]) -> Pool:
    """The pool after some events, none of which frees a device; of its largest nodes one stays, busy or
    not, since it decides what a replica may be."""
    largest = pool.devices_per_pod
    one = next((each.name for each in pool.nodes if each.devices >= largest), "")
    nodes: list[PoolNode] = []
    for each in pool.nodes:
        event = "" if each.name in kept else draw(st.sampled_from(["", "leaves", "fails", "fills up"]))
        if event == "fails" and each.name != one:
            less = draw(st.integers(0, each.devices))
            nodes.append(replace(each, devices=less, free=min(less, each.free)))
        elif event == "fills up":
            left = draw(st.integers(0, 2**39))
            nodes.append(replace(each, free=draw(st.integers(0, each.free)), memory_bytes=left))
        elif not event or each.name == one:
            nodes.append(each)
    for number in range(draw(st.integers(0, 3))):
        devices = draw(st.integers(0, largest))
        nodes.append(node(f"{draw(st.sampled_from('amz'))}{number}", devices=devices, free=0))
    return replace(pool, nodes=tuple(nodes))


@settings(max_examples=100)
@given(asked=questions(), data=st.data())
def test_node_events_that_free_nothing_never_change_a_plan(asked: GpuQuestion, data: st.DataObject) -> None:
    before = as_plan(asked)
    if not isinstance(before, Plan):
        return
    chosen = search(asked).chosen
    assert chosen is not None
    mine = chosen.choice.pool
    kept = holders(asked, chosen.choice)
    assert len(kept) == chosen.choice.nodes
    for _ in range(data.draw(st.integers(1, 3))):
        pools = tuple(
            data.draw(changed(each, kept if each.name == mine.name else set())) for each in asked.pools
        )
        gone = data.draw(st.sets(st.sampled_from([each.name for each in pools])))
        asked = replace(
            asked, pools=tuple(each for each in pools if each.name == mine.name or each.name not in gone)
        )
        after = as_plan(asked)
        assert isinstance(after, Plan)
        # What others were beside it, and why they lost, is told as it is now.
        assert replace(after, alternatives=()) == replace(before, alternatives=())
