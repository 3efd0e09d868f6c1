"""The drain: when it waits, when it stops the engine, when it kills."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage_worker.connections import Connections
from tonnage_worker.drain import (
    Action,
    DrainState,
    begin,
    decide,
    keep_alive_seconds,
    needed_grace_seconds,
    observe,
)
from tonnage_worker.plan import Drain

LIMITS = Drain(endpoint_seconds=7, shutdown_timeout_seconds=60)


@dataclass(frozen=True)
class Moment:
    """What is observed at a second of the drain."""

    at: float
    open: int | None
    seen: frozenset[str] = frozenset()
    requests: int | None = None


def play(*moments: Moment, serving: bool = True) -> tuple[DrainState, Action, str]:
    state = begin(now=0.0, serving=serving)
    action, why = Action.WAIT, ""
    for moment in moments:
        connections = None if moment.open is None else Connections(open=moment.open, seen=moment.seen)
        state = observe(state, now=moment.at, connections=connections, requests=moment.requests)
        action, why = decide(state, now=moment.at, limits=LIMITS, keep_alive_seconds=5.0)
    return state, action, why


A, B = frozenset({"a"}), frozenset({"b"})

CASES = [
    ("nobody there, but endpoints may not know yet", [Moment(0, 0), Moment(6.9, 0)], Action.WAIT),
    ("nobody there and endpoints had their time", [Moment(0, 0), Moment(7, 0)], Action.TERMINATE),
    ("a client is connected", [Moment(0, 1, A), Moment(7, 1, A)], Action.WAIT),
    ("the client has just left", [Moment(7, 1, A), Moment(7.5, 0, A)], Action.WAIT),
    ("the client has left a second ago", [Moment(7, 1, A), Moment(8.1, 0, A)], Action.TERMINATE),
    ("another came and went between two looks", [Moment(7, 0, A), Moment(8.1, 0, A | B)], Action.WAIT),
    ("the kernel forgot a closed one", [Moment(7, 0, A | B), Moment(8.1, 0, A)], Action.TERMINATE),
    ("idle connection, requests still running", [Moment(60, 1, A, 1)], Action.WAIT),
    ("connection that never asks", [Moment(1, 1, A, 1), Moment(8.1, 1, A, 0)], Action.TERMINATE),
    ("no request, but not for long", [Moment(2, 1, A, 1), Moment(8.1, 1, A, 0)], Action.WAIT),
    ("short requests that no look caught", [Moment(1, 1, A, 0), Moment(8.1, 1, A | B, 0)], Action.WAIT),
    ("connected beyond the time for requests", [Moment(66.9, 1, A, 1)], Action.WAIT),
    ("connected at the end of the time for requests", [Moment(67, 1, A, 1)], Action.TERMINATE),
    ("nothing can be read: only time counts", [Moment(66.9, None)], Action.WAIT),
    ("nothing can be read and the time is over", [Moment(67, None)], Action.TERMINATE),
    ("no table, but no request for long", [Moment(1, None, A, 1), Moment(8.1, None, A, 0)], Action.TERMINATE),
    ("the engine does not stop", [Moment(77, 1, A, 1)], Action.KILL),
]  # fmt: skip


@pytest.mark.parametrize(("moments", "action"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_table(moments: list[Moment], action: Action) -> None:
    assert play(*moments)[1] is action


def test_an_engine_that_never_served_is_stopped_at_once() -> None:
    assert play(Moment(0, 0), serving=False)[1] is Action.TERMINATE


def test_after_sigterm_it_waits_until_the_kill() -> None:
    state = DrainState(started_at=0, serving=True, busy_at=0, arrived_at=0, requests_at=0, terminated_at=8.0)
    actions = [decide(state, now=now, limits=LIMITS, keep_alive_seconds=5.0)[0] for now in (8, 76.9, 77)]
    assert actions == [Action.WAIT, Action.WAIT, Action.KILL]


def test_the_grace_period_covers_the_kill() -> None:
    assert needed_grace_seconds(LIMITS) == 77.0


@pytest.mark.parametrize(("value", "seconds"), [("30", 30.0), ("", 5.0), ("soon", 5.0), (None, 5.0)])
def test_keep_alive_time_of_the_engine(value: str | None, seconds: float) -> None:
    environment = {} if value is None else {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": value}
    assert keep_alive_seconds(environment.items()) == seconds


MOMENTS = st.lists(
    st.builds(
        Moment,
        at=st.floats(min_value=0, max_value=100),
        open=st.none() | st.integers(min_value=0, max_value=3),
        seen=st.frozensets(st.sampled_from("abc")),
        requests=st.none() | st.integers(min_value=0, max_value=3),
    ),
    min_size=1,
).map(lambda moments: sorted(moments, key=lambda moment: moment.at))


@given(MOMENTS)
def test_never_before_endpoints_forgot_never_beyond_the_bound(moments: list[Moment]) -> None:
    _, action, _ = play(*moments)
    at = moments[-1].at
    if at < LIMITS.endpoint_seconds:
        assert action is Action.WAIT
    assert (action is Action.KILL) == (at >= needed_grace_seconds(LIMITS))
    if LIMITS.endpoint_seconds + LIMITS.shutdown_timeout_seconds <= at < needed_grace_seconds(LIMITS):
        assert action is Action.TERMINATE


@given(MOMENTS)
def test_a_connected_client_with_a_running_request_is_never_cut_short(moments: list[Moment]) -> None:
    last = moments[-1]
    if last.open and last.requests and last.at < LIMITS.endpoint_seconds + LIMITS.shutdown_timeout_seconds:
        assert play(*moments)[1] is Action.WAIT
