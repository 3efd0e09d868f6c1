"""`tonnage crd`: the CustomResourceDefinition of LLMDeployment."""

from __future__ import annotations

import argparse
import sys

from tonnage.api.crd import build_crd
from tonnage.cli.exits import FINE
from tonnage.cli.output import render

_HEADER = "# Generated from tonnage.api by `make crd`; do not edit.\n"


def run(options: argparse.Namespace) -> int:
    """Print it."""
    if options.output == "yaml":
        sys.stdout.write(_HEADER)
    sys.stdout.write(render(build_crd(), options.output))
    return FINE
