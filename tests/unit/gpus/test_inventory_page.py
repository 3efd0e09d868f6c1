"""docs/inventory.md: every reason and its remedy, examples that the code gives."""

from __future__ import annotations

import re
from typing import Any

import yaml

from harness.paths import REPOSITORY
from tonnage.api.static_inventory import read_static
from tonnage.gpus.inventory import Inventory, Reason
from tonnage.planning.gpu.contend import Site, contend
from tonnage.planning.plan import Rejection
from unit.gpus.clusters import real
from unit.planning.gpu.test_contend import contender, with_memory

PAGE = (REPOSITORY / "docs" / "inventory.md").read_text()


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_reason_has_a_remedy() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", section("Problems"), re.MULTILINE)
    assert rows == [reason.value for reason in Reason]


def test_names_of_pools_are_those_that_are_given() -> None:
    shown = set(re.findall(r"^\| `([^`]+)` \|", section("Pools"), re.MULTILINE))
    given = {pool.name for pool in real().inventory().pools}
    assert shown - given == {"grid-a100-10c-10240mib", "max-1100-xe"}


def test_the_static_example_is_taken() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    values: Any = yaml.safe_load(text)
    found = read_static(values["inventory"])
    assert isinstance(found, Inventory)
    assert [(pool.name, pool.devices) for pool in found.pools] == [("nvidia-h100-80gb-hbm3", 16)]


def test_the_refusal_shown_is_one_that_is_given() -> None:
    (shown,) = re.findall(r"^> (.*)$", PAGE, re.MULTILINE)
    site = Site(hardware=with_memory(25), prices={})
    found = contend([contender(name, tensor=1) for name in "abc"], site=site)["ns/c"]
    assert isinstance(found, Rejection)
    assert shown == found.message
