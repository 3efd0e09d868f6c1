"""Drift: only what we state counts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.rendering.drift import projection, stamped

DESIRED: dict[str, Any] = {
    "spec": {
        "replicas": 2,
        "containers": [
            {"name": "engine", "args": ["--a", "1"], "ports": [{"name": "http", "containerPort": 8000}]}
        ],
    }
}


def live(**changes: Any) -> dict[str, Any]:
    body = copy.deepcopy(DESIRED)
    body["spec"].update({"strategy": {"type": "RollingUpdate"}, **changes})
    return body


def test_fields_that_others_add_are_no_drift() -> None:
    body = live()
    body["spec"]["containers"].insert(0, {"name": "sidecar"})
    body["spec"]["containers"][1]["terminationMessagePath"] = "/dev/termination-log"
    assert projection(body, desired=DESIRED) == DESIRED


@pytest.mark.parametrize(
    "body",
    [
        live(replicas=3),
        live(containers=[]),
        live(
            containers=[
                {"name": "engine", "args": ["--a", "2"], "ports": DESIRED["spec"]["containers"][0]["ports"]}
            ]
        ),
        live(
            containers=[
                {
                    "name": "engine",
                    "args": ["--a", "1", "--b"],
                    "ports": [{"name": "http", "containerPort": 8000}],
                }
            ]
        ),
        live(
            containers=[
                {"name": "engine", "args": ["--a", "1"], "ports": [{"name": "http", "containerPort": 80}]}
            ]
        ),
        {},
    ],
)
def test_a_field_of_ours_that_differs_is_drift(body: dict[str, Any]) -> None:
    assert projection(body, desired=DESIRED) != DESIRED


values = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_an_object_never_drifts_from_itself(value: Any) -> None:
    assert projection(value, desired=value) == value


@given(
    st.dictionaries(st.text(max_size=5), values, max_size=4),
    st.dictionaries(st.text(max_size=5), values, max_size=4),
)
def test_added_keys_never_count(desired: dict[str, Any], added: dict[str, Any]) -> None:
    assert projection({**added, **desired}, desired=desired) == desired


def test_a_field_that_we_no_longer_state_is_drift() -> None:
    before = {"metadata": {"name": "x"}, "spec": {"env": [{"name": "A"}, {"name": "B"}]}}
    after = {"metadata": {"name": "x"}, "spec": {"env": [{"name": "A"}]}}
    live_body = stamped(before)
    assert projection(live_body, desired=stamped(before)) == stamped(before)
    assert projection(live_body, desired=stamped(after)) != stamped(after)
