"""Where the harness keeps what it builds: everything under `TONNAGE_CACHE` (default `~/.cache/tonnage`)."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
K8S = Path(__file__).resolve().parent / "k8s"
CACHE = Path(os.environ.get("TONNAGE_CACHE") or Path.home() / ".cache/tonnage").resolve()
BIN = CACHE / "bin"
BIN_CACHE = CACHE / "bin-cache"
IMAGES = CACHE / "images"
STATE = Path(os.environ.get("TONNAGE_STATE") or CACHE / "cluster").resolve()
"""Clusters live here. The path must stay short: unix sockets below it have a limit of 108 bytes."""


def content_key(*parts: str | bytes | Path) -> str:
    """Sixteen hex digits that change when any part changes; a `Path` stands for its content."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part
        digest.update(hashlib.sha256(data.encode() if isinstance(data, str) else data).digest())
    return digest.hexdigest()[:16]


def source_files(*roots: Path) -> Iterable[Path]:
    """Regular files below the roots in a stable order, without compiled Python."""
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path
