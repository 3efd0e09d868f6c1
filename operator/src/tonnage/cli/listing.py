"""`tonnage fit --list`: the models of the catalogue, and which of them are planned."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tonnage.catalogue import Entry, entries
from tonnage.cli.output import render
from tonnage.models import ConfigError, parse_config


def run_list(options: argparse.Namespace) -> int:
    """Print the catalogue."""
    rows = [_row(entry) for entry in entries()]
    if options.output == "text":
        sys.stdout.write(_table(rows))
    else:
        sys.stdout.write(render({"models": rows}, options.output))
    return 0


def _row(entry: Entry) -> dict[str, Any]:
    reason: str | None = None
    try:
        parse_config(entry.config, hf_quant_config=entry.hf_quant_config)
    except ConfigError as error:
        reason = error.reason
    return {
        "name": entry.name,
        "architecture": entry.config["architectures"][0],
        "supported": reason is None,
        "reason": reason,
        "repository": entry.repository,
        "path": entry.path,
        "commit": entry.commit,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    names = max(len(row["name"]) for row in rows)
    architectures = max(len(row["architecture"]) for row in rows)
    lines = [
        f"{row['name']:<{names}}  {row['architecture']:<{architectures}}  {row['reason'] or 'planned'}"
        for row in rows
    ]
    planned = sum(row["supported"] for row in rows)
    lines.append(f"{len(rows)} models, {planned} planned; -o json tells where each config.json was published")
    return "\n".join(lines) + "\n"
