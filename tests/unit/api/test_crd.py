"""The generated CRD: what is committed is what the models say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from tonnage.api.crd import build_crd, structural

ROOT = Path(__file__).parents[3]
COMMITTED = [
    ROOT / "crds" / "tonnage.dev_llmdeployments.yaml",
    ROOT / "charts" / "tonnage" / "crds-generated" / "llmdeployments.yaml",
]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_the_committed_crd_is_current(path: Path) -> None:
    assert yaml.safe_load(path.read_text()) == build_crd(), "run `make crd`"


def nodes(schema: dict[str, Any], path: str = "spec") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


def api_schema() -> dict[str, Any]:
    version = build_crd()["spec"]["versions"][0]
    root: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return root


def test_every_field_that_users_see_is_described() -> None:
    root = api_schema()["properties"]
    missing = [
        path
        for part in ("spec", "status")
        for path, node in nodes(root[part], part)
        if not node.get("description") and not path.endswith("[]")
    ]
    assert missing == []


def test_lists_and_strings_of_the_spec_are_bounded() -> None:
    unbounded = [
        path
        for path, node in nodes(api_schema()["properties"]["spec"])
        if (node.get("type") == "array" and "maxItems" not in node)
        or (node.get("type") == "string" and not {"maxLength", "enum", "pattern"} & set(node))
    ]
    assert unbounded == []


def test_nothing_but_structural_keys_is_left() -> None:
    foreign = [
        (path, key)
        for path, node in nodes(api_schema())
        for key in ("$ref", "anyOf", "oneOf", "title", "const", "$defs")
        if key in node
    ]
    assert foreign == []


class Either(BaseModel):
    value: int | str


def test_a_union_of_types_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Either\.value"):
        structural(Either)
