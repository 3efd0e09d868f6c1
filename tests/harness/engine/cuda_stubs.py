"""Empty stand-ins for the CUDA libraries that torch links, so that it imports without nvidia wheels.

Every needed library becomes a few kilobytes with the same name and symbol versions. Each function returns 100
(cudaErrorNoDevice), so `torch.cuda.is_available()` is False and nothing else of CUDA is ever called.
Needs gcc, objdump and nm.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_CUDA_LIBRARY = re.compile(r"lib(cu|nv|nccl)")
_CUDA_SYMBOL = re.compile(r"_*(cu|nv|nccl)[A-Za-z_]\w*$")


@dataclass
class Needs:
    """What a set of libraries asks of CUDA: sonames, symbols by version, symbols without one."""

    sonames: set[str] = field(default_factory=set)
    version_owners: dict[str, str] = field(default_factory=dict)
    versioned: dict[str, set[str]] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)


def _output(*argv: str | Path) -> str:
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=True).stdout


def _read_header(library: Path, needs: Needs) -> None:
    owner = ""
    for line in _output("objdump", "-p", library).splitlines():
        if needed := re.match(r"\s+NEEDED\s+(\S+)", line):
            needs.sonames |= {needed[1]} if _CUDA_LIBRARY.match(needed[1]) else set()
        elif required := re.match(r"\s+required from (\S+):", line):
            owner = required[1]
        elif (version := re.match(r"\s+0x\S+ 0x\S+ \d+ (\S+)", line)) and _CUDA_LIBRARY.match(owner):
            needs.version_owners[version[1]] = owner


def _read_symbols(library: Path, needs: Needs) -> None:
    for line in _output("nm", "-D", "--undefined-only", library).splitlines():
        name, _, version = line.split()[-1].partition("@")
        version = version.lstrip("@")
        if version in needs.version_owners:
            needs.versioned.setdefault(version, set()).add(name)
        elif not version and _CUDA_SYMBOL.match(name):
            needs.plain.add(name)


def _defined(libraries: Iterable[Path]) -> set[str]:
    lines = (line for path in libraries for line in _output("nm", "-D", "--defined-only", path).splitlines())
    return {line.split()[-1].partition("@")[0] for line in lines}


def find_needs(libraries: list[Path]) -> Needs:
    """Read what the given shared libraries need of CUDA and none of them defines."""
    needs = Needs()
    for library in libraries:
        _read_header(library, needs)
    needs.sonames -= {library.name for library in libraries}
    for library in libraries:
        _read_symbols(library, needs)
    needs.plain -= _defined(libraries)
    return needs


def _compile(target: Path, versions: dict[str, set[str]], plain: set[str]) -> None:
    symbols = sorted(plain.union(*versions.values()))
    script = "\n".join(
        f"{version} {{ global: {' '.join(f'{name};' for name in sorted(names))} }};"
        for version, names in sorted(versions.items())
    )
    with tempfile.TemporaryDirectory() as scratch:
        source, map_file = Path(scratch, "stub.c"), Path(scratch, "stub.map")
        source.write_text("".join(f"int {name}(void) {{ return 100; }}\n" for name in symbols))
        map_file.write_text(script)
        version_script = [f"-Wl,--version-script={map_file}"] if script else []
        flags = ["-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{target.name}"]
        _output("gcc", *flags, *version_script, "-o", target, source)


def write_stubs(torch_lib: Path) -> list[str]:
    """Write the stand-ins beside torch's libraries; returns their names."""
    libraries = sorted(
        path
        for path in torch_lib.glob("*.so*")
        if not _CUDA_LIBRARY.match(path.name) and path.name != "libtorch_cuda_linalg.so"
    )
    needs = find_needs(libraries)
    for soname in needs.sonames:
        # A symbol without a version may come from any library, so each stand-in offers all of them.
        versions = {
            version: needs.versioned.get(version, set())
            for version, owner in needs.version_owners.items()
            if owner == soname
        }
        _compile(torch_lib / soname, versions, needs.plain)
    return sorted(needs.sonames)
