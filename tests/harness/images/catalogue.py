"""The images of this project's tests and demo, each a stack of layers: Debian's Python, libraries, code."""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.engine import install
from harness.engine.install import IMAGE_SITE, PYTHON
from harness.images.oci import Image, Layer, build_layer
from harness.paths import BIN, IMAGES, REPOSITORY, content_key, source_files
from harness.steps import step

PAUSE = "localhost/pause:1"
"""The sandbox image that containerd's configuration names."""

_STANDARD_LIBRARY = Path("/usr/lib/python3.11")
_UNUSED = {"__pycache__", "test", "idlelib", "tkinter", "ensurepip", "lib2to3", "turtledemo", "pydoc_data"}
_TOOLS = [Path(path) for path in ("/bin/sh", "/bin/cat", "/bin/ls", "/bin/sleep", "/usr/bin/env", "/bin/tar")]
_ACCOUNTS = {
    "etc/passwd": b"root:x:0:0:root:/:/bin/sh\ntonnage:x:65532:65532:tonnage:/tmp:/bin/false\n",
    "etc/group": b"root:x:0:\ntonnage:x:65532:\n",
    "etc/nsswitch.conf": b"hosts: files dns\n",
    "tmp/.keep": b"",
}
_PYTHON_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def pause() -> Image:
    """The image that holds a pod's namespaces."""
    binary = BIN / "pause"
    layer = build_layer("pause", content_key(binary), lambda: {"pause": binary})
    return Image(name="localhost/pause", layers=[layer], command=["/pause"], user="65535:65535")


def python() -> Image:
    """Debian's Python and a shell, for load generators and probes inside the cluster."""
    return Image(
        name="localhost/tonnage-python",
        layers=[_python_layer()],
        command=["/usr/bin/python3"],
        environment=_PYTHON_ENVIRONMENT,
    )


def operator() -> Image:
    """The operator as it stands in this working tree."""
    return Image(
        name="localhost/tonnage-operator",
        layers=[
            _python_layer(),
            _libraries_layer("operator-libraries", REPOSITORY / "requirements/operator.txt"),
            _code_layer("operator-code", REPOSITORY / "operator/src"),
        ],
        command=["python3", "-P", "-m", "tonnage.control"],
        environment=_PYTHON_ENVIRONMENT,
    )


def worker_cpu() -> Image:
    """Real vLLM on CPU with this working tree's worker."""
    return Image(
        name="localhost/tonnage-worker-cpu",
        layers=[
            _python_layer(),
            _engine_layer(),
            _code_layer("worker-code", REPOSITORY / "worker/src", install.LAUNCHER.parent),
            _entry_points_layer(REPOSITORY / "worker/pyproject.toml"),
        ],
        command=["python3", "-P", "-m", "tonnage_worker.serve"],
        environment={**_PYTHON_ENVIRONMENT, **install.ENVIRONMENT},
    )


def pause_archive() -> Path:
    """The pause image as a file: the node imports it before the kubelet starts."""
    image, archive = pause(), IMAGES / "pause.tar"
    with archive.open("wb") as output:
        image.write(output, reference=PAUSE)
    return archive


def _python_layer() -> Layer:
    key = content_key(PYTHON, Path(__file__), *_TOOLS)

    def files() -> dict[str, Path | bytes]:
        staged = _staged("python", [_STANDARD_LIBRARY], _STANDARD_LIBRARY)
        binaries = {"usr/bin/python3": PYTHON} | {str(path).lstrip("/"): path for path in _TOOLS}
        libraries = _shared_libraries([*binaries.values(), *_extensions(staged)])
        return {**_ACCOUNTS, **staged, **binaries, **libraries}

    return build_layer("python", key, files)


def _libraries_layer(name: str, requirements: Path) -> Layer:
    def files() -> dict[str, Path | bytes]:
        staging = IMAGES / "staging" / name
        shutil.rmtree(staging, ignore_errors=True)
        install.install_packages(staging, requirements)
        install.compile_python(staging)
        tree = _tree(staging, IMAGE_SITE)
        return {**tree, **_shared_libraries(_extensions(tree))}

    return build_layer(name, content_key(requirements, Path(__file__)), files)


def _engine_layer() -> Layer:
    site = install.engine_site()
    lscpu, numa = Path("/usr/bin/lscpu"), Path("/usr/lib/x86_64-linux-gnu/libnuma.so.1")

    def files() -> dict[str, Path | bytes]:
        with step("pack the engine's image layer"):
            tree = _tree(site, IMAGE_SITE)
            return {
                **tree,
                "usr/bin/lscpu": lscpu,  # vLLM's CPU worker runs it
                **_shared_libraries([lscpu, numa, *_extensions(tree)]),
                str(numa).lstrip("/"): numa,
            }

    return build_layer("engine", content_key(site.name, Path(__file__), lscpu), files)


def _code_layer(name: str, *sources: Path) -> Layer:
    files = [path for path in source_files(*sources) if path.suffix in {".py", ".typed", ".json", ".yaml"}]
    names = [str(path) for path in files]
    key = content_key(Path(__file__), "\n".join(names), *files)
    return build_layer(name, key, lambda: dict(_staged(name, sources, Path(IMAGE_SITE))))


def entry_points(project: Path) -> dict[str, bytes]:
    """What an installation adds beside the code, by path: the metadata by which vLLM finds the worker's
    plug-in."""
    about = tomllib.loads(project.read_text())["project"]
    groups = about["entry-points"]
    lines = [
        line
        for group, points in groups.items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in points.items()))
    ]
    folder = f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
    return {
        f"{folder}/METADATA": metadata.encode(),
        f"{folder}/entry_points.txt": ("\n".join(lines) + "\n").encode(),
    }


def _entry_points_layer(project: Path) -> Layer:
    files: dict[str, Path | bytes] = {
        f"{IMAGE_SITE}/{path}".lstrip("/"): content for path, content in entry_points(project).items()
    }
    return build_layer("worker-metadata", content_key(project, Path(__file__)), lambda: files)


def _staged(name: str, sources: Iterable[Path], target: Path) -> dict[str, Path]:
    """Copy sources, compile them with hash-based byte code, and map image paths to the copies."""
    staging = IMAGES / "staging" / name
    shutil.rmtree(staging, ignore_errors=True)
    for source in sources:
        shutil.copytree(source, staging, dirs_exist_ok=True, ignore=_unused)
    install.compile_python(staging, prefix=str(target))
    return _tree(staging, str(target))


def _unused(_directory: str, names: list[str]) -> set[str]:
    return {
        name for name in names if name in _UNUSED or name.startswith("config-3") or name.endswith(".egg-info")
    }


def _tree(root: Path, target: str) -> dict[str, Path]:
    return {
        f"{target.lstrip('/')}/{path.relative_to(root)}": path for path in root.rglob("*") if path.is_file()
    }


def _extensions(tree: Mapping[str, Path]) -> list[Path]:
    return [path for path in tree.values() if re.search(r"\.so(\.|$)", path.name)]


def _shared_libraries(binaries: Iterable[Path]) -> dict[str, Path]:
    """System libraries that the binaries load, by their paths in the image."""
    found: set[str] = set()
    for binary in binaries:
        listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
        found |= {word for word in listed.split() if word.startswith(("/lib", "/usr/lib"))}
    return {path.lstrip("/"): Path(path) for path in sorted(found)}
