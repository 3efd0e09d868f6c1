"""The accelerator catalogue: names, and figures on the safe side of everything that was seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tonnage.gpus.cards import ACCELERATORS, CARDS, Vendor, accelerator_named, card_named, formats_of
from tonnage.gpus.memory import REPORTED_SHARE, device_memory, instance_memory
from tonnage.gpus.mig import LISTED_GIB, Profile, instance_bytes, read_profile

GIB, MIB = 2**30, 2**20


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("NVIDIA-H100-80GB-HBM3", "H100-80GB"),
        ("NVIDIA-H100-PCIe", "H100-PCIe"),
        ("NVIDIA-A100-80GB-PCIe", "A100-80GB"),
        ("Tesla-V100-SXM2-32GB", "V100-32GB"),
        ("NVIDIA-RTX-6000-Ada-Generation", "RTX-6000-Ada"),
        ("NVIDIA H200", "H200"),
        ("AMD_Instinct_MI300X_OAM", "MI300X"),
        ("AMD_Instinct_MI325_OAM", "MI325X"),
        ("AMD Instinct MI250X / MI250", "MI250X"),
        ("74a1", "MI300X"),
        ("74b5", "MI300X-VF"),
        ("Max_1550", "Max-1550"),
        ("Intel-Gaudi-2-96GB", "Gaudi-2"),
    ],
)
def test_names_as_labels_and_drivers_spell_them(label: str, name: str) -> None:
    found = accelerator_named(label)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    "label", ["", "AMD", "Tesla", "GRID-A100-10C", "Max", "H100-80GB-HBM2", "A100", "V100"]
)
def test_other_names_are_not_guessed(label: str) -> None:
    """An A100 has 40 or 80 GB: to take it for the larger would promise what half of them have not."""
    assert accelerator_named(label) is None


def test_cards_are_nvidias() -> None:
    assert card_named("AMD_Instinct_MI300X_OAM") is None
    assert {card.vendor for card in CARDS} == {Vendor.NVIDIA}
    assert {each.vendor for each in ACCELERATORS} == {Vendor.NVIDIA, Vendor.AMD, Vendor.INTEL}


def test_every_name_is_of_one_product() -> None:
    every = [name for each in ACCELERATORS for name in (each.name, each.product, *each.also)]
    assert all(accelerator_named(name) is not None for name in every)
    for each in ACCELERATORS:
        assert {accelerator_named(name) for name in (each.name, each.product, *each.also)} == {each}


@pytest.mark.parametrize(
    ("capability", "formats"),
    [
        ((7, 0), ()),
        ((7, 5), ()),
        ((8, 0), ("bf16",)),
        ((8, 6), ("bf16",)),
        ((8, 9), ("bf16", "fp8")),
        ((9, 0), ("bf16", "fp8")),
        ((10, 0), ("bf16", "fp8", "fp4")),
        ((12, 1), ("bf16", "fp8", "fp4")),
    ],
)
def test_formats_by_compute_capability(capability: tuple[int, int], formats: tuple[str, ...]) -> None:
    assert formats_of(capability) == formats


def test_figures_are_ordered_and_the_unseen_are_safe() -> None:
    """97% of stated decimal gigabytes is below the least of every product that was seen."""
    for each in ACCELERATORS:
        assert each.bandwidth_gb > 0
        assert each.safe_bytes <= each.memory_bytes <= each.stated_gb * GIB
        if each.least_gib is not None:
            assert each.visible_gib is not None
            assert replace(each, least_gib=None).safe_bytes <= each.safe_bytes, each.name


REPORTS = {
    "T4": 15360,
    "V100-16GB": 16384,
    "V100-32GB": 32768,
    "A100-40GB": 40960,
    "A100-80GB": 81920,
    "L4": 23034,
    "L40S": 46068,
    "H100-80GB": 81559,
    "H100-PCIe": 81559,
    "H200": 143771,
    "B200": 183359,
}
"""MiB that NVML, and so the label, states."""


@pytest.mark.parametrize("name", REPORTS)
def test_a_usual_report_changes_nothing(name: str) -> None:
    """The catalogue's figure holds beside the label's, which overstates; as an unknown product the same label
    is believed on the safe side of what was seen."""
    card = accelerator_named(name)
    assert card is not None
    assert card.least_gib is not None
    reported = REPORTS[name] * MIB
    assert reported > card.memory_bytes
    known = device_memory(card, reported_bytes=reported)
    assert known == device_memory(card, reported_bytes=0)
    assert known is not None
    assert (known.total_bytes, known.own_bytes, known.doubt) == (card.safe_bytes, 0, "")
    unknown = device_memory(None, reported_bytes=reported)
    assert unknown is not None
    assert unknown.total_bytes == int(reported * REPORTED_SHARE) <= card.safe_bytes


def test_a_report_is_never_believed_beyond_the_catalogue() -> None:
    card = accelerator_named("H100-80GB")
    assert card is not None
    for mib in (81559, 90000, 10**6):
        memory = device_memory(card, reported_bytes=mib * MIB)
        assert memory is not None
        assert memory.total_bytes == card.safe_bytes
        assert bool(memory.doubt) is (mib > 84000)


def test_a_small_report_is_believed_less_what_reports_overstate() -> None:
    card = accelerator_named("H100-80GB")
    memory = device_memory(card, reported_bytes=40_000 * MIB)
    assert memory is not None
    assert (memory.total_bytes, memory.own_bytes) == (int(40_000 * MIB * 0.97), 40_000 * MIB)
    assert memory.doubt == "39.06 GiB is less than any H100-80GB shows (79.11 GiB)"


def test_no_report_and_no_catalogue_is_no_figure() -> None:
    assert device_memory(None, reported_bytes=0) is None
    assert instance_memory(None, profile=Profile("1g.5gb", 1, 5, False), reported_bytes=0) is None


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        ("1g.5gb", Profile("1g.5gb", 1, 5, False)),
        ("1g.5gb+me", Profile("1g.5gb", 1, 5, False)),
        ("1g.10gb.me", Profile("1g.10gb", 1, 10, False)),
        ("7g.141gb", Profile("7g.141gb", 7, 141, False)),
        ("1c.3g.20gb", Profile("3g.20gb", 3, 20, True)),
        ("3c.3g.20gb", Profile("3g.20gb", 3, 20, False)),
        ("INVALID", None),
        ("", None),
        ("5gb", None),
    ],
)
def test_profiles_are_read(text: str, profile: Profile | None) -> None:
    assert read_profile(text) == profile


def test_a_listed_instance_is_within_its_card_and_above_the_rule_for_unlisted_ones() -> None:
    for name, profiles in LISTED_GIB.items():
        card = accelerator_named(name)
        assert card is not None
        for text in profiles:
            profile = read_profile(text)
            assert profile is not None
            size, source = instance_bytes(card, profile)
            assert size <= card.safe_bytes
            assert "nvidia-smi" in source
            slices = min(max(round(8 * profile.gigabytes / card.stated_gb), 1), 8)
            assert size >= 0.9 * card.safe_bytes * slices / 8


def test_an_unlisted_instance_takes_its_slices_less_ten_percent() -> None:
    card = accelerator_named("B200")
    profile = read_profile("1g.23gb")
    assert card is not None
    assert profile is not None
    size, source = instance_bytes(card, profile)
    assert size == int(card.safe_bytes / 8 * 0.9)
    assert source == "catalogue: 90% of 1 of 8 memory slices of B200"


@pytest.mark.parametrize(
    ("mib", "gib", "doubtful"),
    [(0, 9.75, False), (9984, 9.75, False), (12000, 9.75, False), (9728, 9.5, False)],
)
def test_what_is_reported_of_an_instance(mib: int, gib: float, doubtful: bool) -> None:
    profile = read_profile("1g.10gb")
    assert profile is not None
    memory = instance_memory(accelerator_named("H100"), profile=profile, reported_bytes=mib * MIB)
    assert memory is not None
    assert memory.total_bytes == int(gib * GIB)
    assert bool(memory.doubt) is doubtful


@pytest.mark.parametrize("mib", [4864, 9484])
def test_less_than_an_instance_shows_is_believed_as_of_a_whole_device(mib: int) -> None:
    """9484 MiB are 95% of what a 1g.10gb shows; from there on it is another version of the driver."""
    profile = read_profile("1g.10gb")
    assert profile is not None
    little = instance_memory(accelerator_named("H100"), profile=profile, reported_bytes=mib * MIB)
    assert little is not None
    assert little.total_bytes == int(mib * MIB * REPORTED_SHARE)
    assert little.doubt == f"{mib / 1024:.2f} GiB is less than a 1g.10gb of H100-80GB shows (9.75 GiB)"
    enough = instance_memory(accelerator_named("H100"), profile=profile, reported_bytes=9485 * MIB)
    assert enough is not None
    assert (enough.total_bytes, enough.doubt) == (9485 * MIB, "")
