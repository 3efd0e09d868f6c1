"""The engine's environment for the oracle: the CPU engine of the harness, and for faked CUDA platforms two
packages of its own (`requirements/engine-oracle.txt`)."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from pathlib import Path

from harness.engine.install import PYTHON, engine_site, install_packages
from harness.paths import CACHE, REPOSITORY, content_key
from harness.steps import step

REQUIREMENTS = REPOSITORY / "requirements/engine-oracle.txt"


def missing() -> str:
    """Why the engine cannot be had here, "" where it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "vLLM's CPU wheels for tests are for Linux on x86-64"
    if not PYTHON.exists():
        return f"{PYTHON} is not there"
    absent = [name for name in ("gcc", "objdump", "nm") if not shutil.which(name)]
    return f"not installed: {', '.join(absent)}" if absent else ""


def python_path(platform_name: str) -> str:
    """Where the engine's interpreter finds the engine, and this package; installed at the first call."""
    sites = [engine_site(), *([] if platform_name == "cpu" else [_extra_site()])]
    return ":".join(str(each) for each in (*sites, REPOSITORY / "tests"))


def _extra_site() -> Path:
    site = CACHE / "engine-oracle" / content_key(REQUIREMENTS, Path(__file__))
    if not site.exists():
        site.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=site.parent))
        with step("install what the oracle needs beside vLLM"):
            install_packages(draft, REQUIREMENTS)
        draft.rename(site)
    return site
