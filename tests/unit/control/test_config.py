"""The operator's settings: what the chart sets, and what is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import islice

import pytest

from tonnage.control.config import ConfigError, read_config
from tonnage.control.main import Backoffs
from tonnage.control.room import NOTHING_STATED

SET = {
    "TONNAGE_OPERATOR_IMAGE": "operator",
    "TONNAGE_WORKER_IMAGE": "worker",
    "TONNAGE_ENGINE_VERSION": "0.32.0",
    "TONNAGE_NAMESPACE": "tonnage-system",
}


@pytest.mark.parametrize(
    ("text", "watched"),
    [("", ()), ("a", ("a",)), ("a,b", ("a", "b")), (" a , b ,", ("a", "b")), ("a,a", ("a",))],
)
def test_the_namespaces_are_those_of_the_list(text: str, watched: tuple[str, ...]) -> None:
    assert read_config({**SET, "TONNAGE_WATCH_NAMESPACES": text}).watched == watched


@pytest.mark.parametrize("text", ["a*", "!a", "A", "a b", "-a", "a-", "x" * 64])
def test_what_is_no_name_of_a_namespace_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="watchNamespaces"):
        read_config({**SET, "TONNAGE_WATCH_NAMESPACES": f"ok,{text}"})


def test_nodes_are_read_unless_that_is_switched_off() -> None:
    assert read_config(SET).reads_nodes
    assert not read_config({**SET, "TONNAGE_READ_NODES": "false"}).reads_nodes
    with pytest.raises(ConfigError, match=r"rbac\.nodes"):
        read_config({**SET, "TONNAGE_READ_NODES": "no"})


@pytest.mark.parametrize("name", SET)
def test_a_missing_setting_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        read_config({key: value for key, value in SET.items() if key != name})


def test_kopf_never_gives_up_and_starts_anew_for_each_request() -> None:
    backoffs = Backoffs()
    first, second = list(islice(backoffs, 1000)), list(islice(backoffs, 1000))
    assert first == second
    assert first[0] == 1
    assert max(first) == 30


def stated(**values: object) -> dict[str, str]:
    return {**SET, "TONNAGE_INVENTORY": json.dumps(values)}


def test_prices_and_pools_are_what_the_administrator_states() -> None:
    assert read_config(SET).offer == NOTHING_STATED
    pool = {"product": "L40S", "nodes": 1, "devicesPerNode": 4, "nodeCPU": 63, "nodeMemory": "500Gi"}
    offer = read_config(stated(prices={"L40S": "0.8", "H100": 2.5, "T4": 0}, pools=[pool])).offer
    assert offer.prices == {"L40S": Decimal("0.8"), "H100": Decimal("2.5"), "T4": Decimal(0)}
    assert offer.inventory is not None
    assert offer.inventory.pools[0].devices == 4
    assert read_config(stated(prices={"L40S": 1}, pools=[])).offer.inventory is None


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"prices": {"L40S": "cheap"}}, r"inventory\.prices\.L40S is 'cheap'"),
        ({"prices": {"L40S": -1}}, r"inventory\.prices\.L40S"),
        ({"prices": {"L40S": "NaN"}}, r"inventory\.prices\.L40S"),
        ({"prices": [1]}, r"inventory\.prices must be a mapping"),
        ({"pools": [{"product": "L40S"}]}, r"inventory\.pools\[0\]\.nodes: it is missing"),
    ],
)
def test_what_is_wrong_in_the_inventory_is_named(values: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_config(stated(**values))


@pytest.mark.parametrize("text", ["{", "[1]", "1"])
def test_an_inventory_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="inventory"):
        read_config({**SET, "TONNAGE_INVENTORY": text})
