"""The accelerator catalogue: what drivers and labels call a product, and what it has.

Sources. Compute capability: NVIDIA, "CUDA GPU Compute Capability" (developer.nvidia.com/cuda-gpus). Stated
memory and bandwidth: the vendor's data sheet of each product, and the tables of NVIDIA's "MIG User Guide"
(docs.nvidia.com) for B200 and GB200. Visible memory, the largest and the least: what engines logged as the
device's total in start-ups collected for this project, measured on an H200, and the totals that PyTorch's
out-of-memory errors state in public reports ("GPU 0 has a total capacity of 178.35 GiB" on a B200; 79.11 on
an H100, vllm-project/vllm#27508; 287.98 on an MI355X, ROCm/TheRock#2118), of which the least counts even
where only the class is certain (21.96 for the 24 GB cards with ECC, 23.41 for those without). It is less than
stated, because ECC and the driver keep some. Formats: NVIDIA's follow from compute capability (CUDA C++
Programming Guide, tensor cores), the others' are those of the data sheet. Names: NVIDIA's as NVML says them,
AMD's as its node labeller takes them from libdrm's amdgpu.ids (ROCm/k8s-device-plugin
cmd/k8s-node-labeller), with PCI device ids (74a1), which its older versions label instead; Intel's as the
rules for Node Feature Discovery in intel/intel-device-plugins-for-kubernetes (cmd/gpu_plugin/labels.md) write
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Final

_GIB: Final = 2**30
_GB: Final = 10**9
_UNSEEN_SHARE: Final = 0.97


class Vendor(StrEnum):
    """Who makes a device; CPU stands for the node's own processors."""

    NVIDIA = "NVIDIA"
    AMD = "AMD"
    INTEL = "Intel"
    CPU = "CPU"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A product: `product` is the driver's name, `stated_gb` the data sheet's figure.

    `visible_gib` and `least_gib` are the largest and the smallest total that an engine was seen to be shown;
    None where no log was at hand. `bandwidth_gb` is 10^9 bytes a second, of the slowest variant that the row
    stands for. `computes` are the formats it has arithmetic for, of bf16, fp8 and fp4. `also` are further
    names of it: variants with the same memory, labels, PCI device ids.
    """

    name: str
    product: str
    stated_gb: int
    visible_gib: float | None
    least_gib: float | None
    bandwidth_gb: int
    vendor: Vendor = field(kw_only=True)
    computes: tuple[str, ...] = field(kw_only=True)
    also: tuple[str, ...] = field(kw_only=True, default=())

    @property
    def memory_bytes(self) -> int:
        """The total that the engine's memory utilization is a share of: the visible one, or, where that is
        not known, the stated figure in GiB, which is a little more than CUDA shows."""
        return int((self.visible_gib or self.stated_gb) * _GIB)

    @property
    def safe_bytes(self) -> int:
        """A total that no device of this product was seen to fall below.

        Where none was seen: 97% of the stated figure in decimal gigabytes; of every product that was seen,
        the least is more than that.
        """
        return int(self.least_gib * _GIB) if self.least_gib else int(self.stated_gb * _GB * _UNSEEN_SHARE)

    @property
    def safe_source(self) -> str:
        """Where `safe_bytes` is from, for people."""
        if self.least_gib:
            return f"catalogue: the least seen of {self.name}"
        return f"catalogue: 97% of the {self.stated_gb} GB that the data sheet of {self.name} states"


@dataclass(frozen=True, slots=True)
class Card(Accelerator):
    """An NVIDIA card."""

    compute_capability: tuple[int, int]


def formats_of(compute_capability: tuple[int, int]) -> tuple[str, ...]:
    """What tensor cores of a compute capability multiply, of bf16 (8.0), fp8 (8.9) and fp4 (10.0)."""
    since = (("bf16", (8, 0)), ("fp8", (8, 9)), ("fp4", (10, 0)))
    return tuple(name for name, first in since if compute_capability >= first)


def _card(
    name: str,
    product: str,
    stated_gb: int,
    visible_gib: float | None,
    least_gib: float | None,
    bandwidth_gb: int,
    compute_capability: tuple[int, int],
    *also: str,
) -> Card:
    return Card(
        name,
        product,
        stated_gb,
        visible_gib,
        least_gib,
        bandwidth_gb,
        compute_capability,
        vendor=Vendor.NVIDIA,
        computes=formats_of(compute_capability),
        also=also,
    )


CARDS: Final = (
    _card("V100-16GB", "Tesla V100-SXM2-16GB", 16, 15.78, 15.70, 900, (7, 0), "Tesla V100-PCIE-16GB"),
    _card("V100-32GB", "Tesla V100-SXM2-32GB", 32, 31.75, 31.73, 900, (7, 0), "Tesla V100-PCIE-32GB"),
    _card("T4", "Tesla T4", 16, 14.74, 14.56, 320, (7, 5)),
    _card("A100-40GB", "NVIDIA A100-SXM4-40GB", 40, 39.56, 39.38, 1555, (8, 0), "NVIDIA A100-PCIE-40GB"),
    _card("A100-80GB", "NVIDIA A100-SXM4-80GB", 80, 79.33, 79.11, 1935, (8, 0), "NVIDIA A100 80GB PCIe"),
    _card("A800-80GB", "NVIDIA A800-SXM4-80GB", 80, 79.33, 79.11, 1935, (8, 0), "NVIDIA A800 80GB PCIe"),
    _card("A30", "NVIDIA A30", 24, None, None, 933, (8, 0)),
    _card("A10", "NVIDIA A10", 24, 22.16, 21.96, 600, (8, 6), "NVIDIA A10G"),
    _card("A40", "NVIDIA A40", 48, None, None, 696, (8, 6)),
    _card("RTX-3090", "NVIDIA GeForce RTX 3090", 24, 23.65, 23.41, 936, (8, 6)),
    _card("RTX-A4000", "NVIDIA RTX A4000", 16, None, None, 448, (8, 6)),
    _card("RTX-A5000", "NVIDIA RTX A5000", 24, None, None, 768, (8, 6)),
    _card("RTX-A6000", "NVIDIA RTX A6000", 48, None, None, 768, (8, 6)),
    _card("L4", "NVIDIA L4", 24, 22.16, 21.96, 300, (8, 9)),
    _card("L40", "NVIDIA L40", 48, None, None, 864, (8, 9)),
    _card("L40S", "NVIDIA L40S", 48, 44.42, 44.31, 864, (8, 9)),
    _card("L20", "NVIDIA L20", 48, None, None, 864, (8, 9)),
    _card("RTX-4090", "NVIDIA GeForce RTX 4090", 24, 23.65, 23.41, 1008, (8, 9)),
    _card("RTX-4000-Ada", "NVIDIA RTX 4000 Ada Generation", 20, None, None, 360, (8, 9)),
    _card("RTX-6000-Ada", "NVIDIA RTX 6000 Ada Generation", 48, None, None, 960, (8, 9)),
    _card("H100-80GB", "NVIDIA H100 80GB HBM3", 80, 79.19, 79.11, 3350, (9, 0), "H100"),
    _card("H100-PCIe", "NVIDIA H100 PCIe", 80, 79.19, 79.11, 2000, (9, 0)),
    _card("H100-NVL", "NVIDIA H100 NVL", 94, 93.11, 93.02, 3900, (9, 0)),
    _card("H800", "NVIDIA H800", 80, None, None, 2000, (9, 0), "NVIDIA H800 PCIe"),
    _card("H20", "NVIDIA H20", 96, None, None, 4000, (9, 0)),
    _card("H200", "NVIDIA H200", 141, 139.81, 139.72, 4800, (9, 0), "NVIDIA H200 NVL"),
    _card("GH200-96GB", "NVIDIA GH200 480GB", 96, None, None, 4000, (9, 0), "GH200"),
    _card("B200", "NVIDIA B200", 180, 178.36, 178.35, 8000, (10, 0)),
    _card("GB200", "NVIDIA GB200", 186, 184.31, 184.31, 8000, (10, 0)),
    _card("B300", "NVIDIA B300", 288, 276.6, 267.69, 8000, (10, 3), "NVIDIA B300 SXM6 AC"),
    _card("GB300", "NVIDIA GB300", 288, 276.6, 267.69, 8000, (10, 3)),
    _card("RTX-5080", "NVIDIA GeForce RTX 5080", 16, None, None, 960, (12, 0)),
    _card("RTX-5090", "NVIDIA GeForce RTX 5090", 32, 31.40, 31.34, 1792, (12, 0)),
    _card(
        "RTX-PRO-4500",
        "NVIDIA RTX PRO 4500 Blackwell",
        32,
        31.38,
        31.38,
        800,
        (12, 0),
        "NVIDIA RTX PRO 4500 Blackwell Server Edition",
    ),
    _card(
        "RTX-PRO-6000",
        "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        96,
        95.01,
        94.97,
        1597,
        (12, 0),
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
    ),
    _card("GB10", "NVIDIA GB10", 128, 121.7, 119.7, 273, (12, 1)),
)
"""NVIDIA's part, sorted by compute capability, then name of the family. GB10 shares its memory with the
system. B300 and GB300 are not told apart in the logs that showed 267.69 and 276.50 GiB: the least counts."""

_BF16: Final = ("bf16",)
_FP8: Final = ("bf16", "fp8")
_FP4: Final = ("bf16", "fp8", "fp4")
_AMD: Final = Vendor.AMD
_INTEL: Final = Vendor.INTEL

ACCELERATORS: Final[tuple[Accelerator, ...]] = (
    *CARDS,
    # Each of its two dies is a device of its own, to the driver, the device plugin and the engine.
    Accelerator(
        "MI250X",
        "AMD Instinct MI250X",
        64,
        63.98,
        63.98,
        1638,
        vendor=_AMD,
        computes=_BF16,
        also=(
            "AMD Instinct MI250X / MI250",
            "AMD Instinct MI250X MI250",
            "AMD Instinct MI250",
            "7408",
            "740c",
        ),
    ),
    Accelerator(
        "MI300X",
        "AMD Instinct MI300X OAM",
        192,
        191.98,
        191.69,
        5300,
        vendor=_AMD,
        computes=_FP8,
        also=("AMD Instinct MI300X", "74a1"),
    ),
    # A virtual function: its label says 191G, rounded to a whole GiB (Azure ND MI300X v5).
    Accelerator(
        "MI300X-VF",
        "AMD Instinct MI300X VF",
        192,
        191.5,
        190.5,
        5300,
        vendor=_AMD,
        computes=_FP8,
        also=("74b5",),
    ),
    Accelerator(
        "MI325X",
        "AMD Instinct MI325X",
        256,
        255.98,
        255.69,
        6000,
        vendor=_AMD,
        computes=_FP8,
        also=("AMD Instinct MI325 OAM", "AMD Instinct MI325X OAM", "74a5"),
    ),
    # The least: 0.31 below, as newer drivers show of the MI300X and the MI325X.
    Accelerator(
        "MI350X",
        "AMD Instinct MI350X",
        288,
        287.98,
        287.69,
        8000,
        vendor=_AMD,
        computes=_FP4,
        also=("AMD Instinct MI350X OAM", "75a0"),
    ),
    Accelerator(
        "MI355X",
        "AMD Instinct MI355X",
        288,
        287.98,
        287.69,
        8000,
        vendor=_AMD,
        computes=_FP4,
        also=("AMD Instinct MI355X OAM", "75a3"),
    ),
    Accelerator(
        "Gaudi-2",
        "Intel Gaudi 2",
        96,
        None,
        None,
        2450,
        vendor=_INTEL,
        computes=_FP8,
        also=("HL-225", "Gaudi2", "Intel-Gaudi-2-96GB"),
    ),
    Accelerator(
        "Gaudi-3",
        "Intel Gaudi 3",
        128,
        None,
        None,
        3700,
        vendor=_INTEL,
        computes=_FP8,
        also=("HL-325L", "HL-338", "Gaudi3", "Intel-Gaudi-3-128GB"),
    ),
    Accelerator(
        "Max-1100",
        "Intel Data Center GPU Max 1100",
        48,
        None,
        None,
        1229,
        vendor=_INTEL,
        computes=_BF16,
        also=("Max 1100",),
    ),
    # The card has two tiles of 64 GB; the engine is shown one of them as a device.
    Accelerator(
        "Max-1550",
        "Intel Data Center GPU Max 1550",
        64,
        63.98,
        63.98,
        1638,
        vendor=_INTEL,
        computes=_BF16,
        also=("Max 1550",),
    ),
)
"""The whole table; what is not NVIDIA's has no compute capability."""

COMMON: Final = ("L4", "A10", "RTX-4090", "L40S", "A100-80GB", "H100-80GB", "RTX-PRO-6000", "H200", "B200")
"""Names of the cards that a comparison shows when nobody says which."""

_REPRESENTATIVES: Final[Mapping[tuple[int, int], str]] = {
    (7, 0): "V100-32GB",
    (7, 5): "T4",
    (8, 0): "A100-80GB",
    (8, 6): "A10",
    (8, 9): "L40S",
    (9, 0): "H100-80GB",
    (10, 0): "B200",
    (10, 3): "B300",
    (12, 0): "RTX-PRO-6000",
    (12, 1): "GB10",
}


def accelerator_named(name: str) -> Accelerator | None:
    """The product with this name: ours, the driver's, or that of a Kubernetes label; case, spaces, hyphens
    and underscores do not matter."""
    return _by_name().get(_plain(name))


def card_named(name: str) -> Card | None:
    """As `accelerator_named`, of NVIDIA's cards."""
    found = accelerator_named(name)
    return found if isinstance(found, Card) else None


def representative(compute_capability: tuple[int, int]) -> Card | None:
    """The card that stands for a compute capability when no card is named."""
    name = _REPRESENTATIVES.get(compute_capability)
    return None if name is None else card_named(name)


@cache
def _by_name() -> Mapping[str, Accelerator]:
    return {_plain(name): each for each in ACCELERATORS for name in (each.name, each.product, *each.also)}


def _plain(name: str) -> str:
    text = name.lower().replace(" ", "").replace("-", "").replace("_", "").replace("/", "")
    return text.removeprefix("nvidia").removeprefix("geforce").removeprefix("amd").removeprefix("instinct")
