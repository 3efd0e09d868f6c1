"""Writes OCI image archives from local files, layer by layer, reproducibly.

A layer is one tar file in the cache under a key of its content, so that a change of code rebuilds only the
small layer that holds it. An archive is streamed: nothing large is held in memory or copied twice.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from harness.paths import IMAGES

_MEDIA = "application/vnd.oci.image."
_KEPT_VERSIONS = 3
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


@dataclass(frozen=True)
class Layer:
    """One tar file of the cache, and its SHA-256 in hex."""

    tar: Path
    digest: str


@dataclass(frozen=True)
class Image:
    """Layers and how a container of them starts."""

    name: str
    layers: Sequence[Layer]
    command: Sequence[str] = ()
    environment: Mapping[str, str] | None = None
    user: str = "65532:65532"

    @property
    def reference(self) -> str:
        """Name with a tag that changes whenever the content does."""
        return f"{self.name}:{hashlib.sha256(self._config()).hexdigest()[:12]}"

    def _config(self) -> bytes:
        variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", **(self.environment or {})}
        config = {
            "architecture": _ARCHITECTURE,
            "os": "linux",
            "config": {
                "Cmd": list(self.command),
                "Env": [f"{name}={value}" for name, value in variables.items()],
                "User": self.user,
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in self.layers]},
        }
        return _json(config)

    def write(self, target: IO[bytes], *, reference: str = "", present: frozenset[str] = frozenset()) -> None:
        """Stream the archive that `ctr images import` reads, without layers that are `present` there."""
        reference = reference or self.reference
        config = self._config()
        layers = [
            _descriptor("layer.v1.tar", layer.digest, layer.tar.stat().st_size) for layer in self.layers
        ]
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": f"{_MEDIA}manifest.v1+json",
                "config": _described("config.v1+json", config),
                "layers": layers,
            }
        )
        names = {
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
        }
        described = {**_described("manifest.v1+json", manifest), "annotations": names}
        with tarfile.open(fileobj=target, mode="w|") as archive:
            _add_bytes(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add_bytes(archive, "index.json", _json({"schemaVersion": 2, "manifests": [described]}))
            for blob in (config, manifest):
                _add_bytes(archive, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
            for layer in self.layers:
                if layer.digest in present:
                    continue
                _add_file(archive, f"blobs/sha256/{layer.digest}", layer.tar)


def build_layer(name: str, key: str, files: Callable[[], Mapping[str, Path | bytes]]) -> Layer:
    """The cached layer of that name and key; if absent, `files` maps paths in the image to content."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    tar = IMAGES / f"{name}-{key}.tar"
    digest_file = tar.with_suffix(".sha256")
    if not digest_file.exists():
        draft = tar.with_suffix(f".draft-{os.getpid()}")
        with draft.open("wb") as output:
            hashing = _HashingWriter(output)
            _write_tree(cast(IO[bytes], hashing), files())
        draft.rename(tar)
        digest_file.write_text(hashing.sha256.hexdigest())
        _forget_old(name)
    return Layer(tar=tar, digest=digest_file.read_text())


def _forget_old(name: str) -> None:
    """Keep a layer's newest versions: with the engine in it, one has nearly 2 GB."""
    versions = sorted(IMAGES.glob(f"{name}-{'[0-9a-f]' * 16}.tar"), key=lambda tar: tar.stat().st_mtime)
    for tar in versions[:-_KEPT_VERSIONS]:
        tar.with_suffix(".sha256").unlink(missing_ok=True)
        tar.unlink()


class _HashingWriter:
    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._output.write(data)


def _write_tree(output: IO[bytes], files: Mapping[str, Path | bytes]) -> None:
    directories = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    with tarfile.open(fileobj=output, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        for directory in sorted(directories):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            archive.addfile(entry)
        for name, source in sorted(files.items()):
            if isinstance(source, bytes):
                _add_bytes(archive, name, source)
            else:
                _add_file(archive, name, source)


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _add_file(archive: tarfile.TarFile, name: str, source: Path) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = source.stat().st_size
    entry.mode = 0o755 if os.access(source, os.X_OK) else 0o644
    with source.open("rb") as content:
        archive.addfile(entry, content)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": f"{_MEDIA}{kind}", "digest": f"sha256:{digest}", "size": size}


def _described(kind: str, blob: bytes) -> dict[str, Any]:
    return _descriptor(kind, hashlib.sha256(blob).hexdigest(), len(blob))
