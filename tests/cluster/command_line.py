"""The installed programs, run against the test cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.cluster import Cluster

PROGRAMS = Path(sys.executable).parent


@dataclass(frozen=True)
class Ran:
    """How a program ended, and what it said."""

    code: int
    output: str
    complaint: str

    @property
    def document(self) -> dict[str, Any]:
        """The answer of `-o json`."""
        read: dict[str, Any] = json.loads(self.output)
        return read

    @property
    def words(self) -> str:
        """The answer without its line breaks."""
        return " ".join(self.output.split())


def tonnage(cluster: Cluster, *words: str, kubeconfig: Path | None = None, stdin: object = None) -> Ran:
    """Run `tonnage`; an object as `stdin` becomes YAML."""
    return run(cluster, str(PROGRAMS / "tonnage"), *words, kubeconfig=kubeconfig, stdin=stdin)


def run(cluster: Cluster, *argv: str, kubeconfig: Path | None = None, stdin: object = None) -> Ran:
    """Run a program with the environment of the cluster and the installed programs on its PATH."""
    environment = {
        **cluster.full_environment,
        "KUBECONFIG": str(kubeconfig or cluster.kubeconfig),
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "NO_COLOR": "1",
    }
    text = None if stdin is None else yaml.safe_dump(stdin)
    done = subprocess.run(argv, env=environment, input=text, capture_output=True, text=True, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)
