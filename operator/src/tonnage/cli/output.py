"""Documents for programs: JSON and YAML."""

from __future__ import annotations

import json
from typing import Any


def render(document: dict[str, Any], form: str) -> str:
    """The document as `form`, json or yaml."""
    if form == "yaml":
        import yaml  # noqa: PLC0415 - slow to import, and only this form needs it

        text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=False, width=110)
        return text
    return json.dumps(document, indent=2, allow_nan=False) + "\n"
