"""Which memory rules an engine version gets."""

from __future__ import annotations

import pytest

from tonnage.engines import UnknownEngineVersionError
from tonnage.engines.overheads import memory_rules_for


@pytest.mark.parametrize(
    ("version", "rules", "assumed"),
    [
        ("0.9.2", "0.9.0", False),
        ("0.16.0", "0.9.0", False),
        ("0.17.0", "0.17.0", False),
        ("0.20.1rc1.dev16", "0.17.0", False),
        ("0.21.0", "0.21.0", False),
        ("0.26.1.dev0", "0.26.0", False),
        ("0.32.0", "0.26.0", True),
    ],
)
def test_versions_take_the_newest_rules_that_are_not_newer(version: str, rules: str, assumed: bool) -> None:
    found = memory_rules_for(version)
    assert (found.version, found.rules_version, found.assumed) == (version, rules, assumed)


def test_what_changed_between_releases() -> None:
    old, new, today = map(memory_rules_for, ("0.16.0", "0.19.0", "0.26.0"))
    assert old.logit_bytes > 2.5 * new.logit_bytes
    assert (old.expert_workspace, new.expert_workspace) == (False, True)
    assert (new.graphs_within, today.graphs_within) == (False, True)
    assert (new.keeps_counts, today.keeps_counts) == (False, True)


@pytest.mark.parametrize("version", ["0.8.5", "0.6.4.post1"])
def test_versions_older_than_all_are_refused(version: str) -> None:
    with pytest.raises(UnknownEngineVersionError, match=rf"{version} is older than 0\.9\.0"):
        memory_rules_for(version)


@pytest.mark.parametrize("version", ["", "latest"])
def test_unreadable_versions_are_refused(version: str) -> None:
    with pytest.raises(UnknownEngineVersionError, match="not of the form"):
        memory_rules_for(version)
