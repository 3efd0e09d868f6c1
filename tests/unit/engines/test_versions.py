"""Which rules an engine version gets, and the figures of vLLM 0.32 on CPU."""

from __future__ import annotations

import pytest

from tonnage.engines import KV_ELEMENT_BYTES, UnknownEngineVersionError, rules_for


@pytest.mark.parametrize("version", ["0.32.0", "0.32.3", "v0.32.0", "0.32", "0.32.0+cpu", "0.32.1rc2"])
def test_releases_of_a_known_minor_follow_it(version: str) -> None:
    rules = rules_for(version)
    assert (rules.version, rules.rules_version, rules.assumed) == (version, "0.32.0", False)


@pytest.mark.parametrize("version", ["0.33.0", "0.40.1", "1.0.0"])
def test_newer_versions_take_the_newest_rules_and_say_so(version: str) -> None:
    rules = rules_for(version)
    assert (rules.version, rules.rules_version, rules.assumed) == (version, "0.32.0", True)


@pytest.mark.parametrize("version", ["0.31.9", "0.6.0"])
def test_older_versions_are_refused_with_the_way_out(version: str) -> None:
    with pytest.raises(
        UnknownEngineVersionError, match=rf"{version} is older than 0\.32\.0.*engine\.version"
    ):
        rules_for(version)


@pytest.mark.parametrize(
    "version", ["", "latest", "0", "0.32.0 ; rm", "0.32.0\n--x", "99999.1", "٠.٣٢", "a" * 500]
)
def test_unreadable_versions_are_refused(version: str) -> None:
    with pytest.raises(UnknownEngineVersionError, match="not of the form"):
        rules_for(version)


def test_other_hardware_is_refused_by_name() -> None:
    with pytest.raises(UnknownEngineVersionError, match="'GPU'; known: CPU"):
        rules_for("0.32.0", accelerator="GPU")


def test_cpu_figures_of_0_32() -> None:
    rules = rules_for("0.32.0")
    assert (rules.block_tokens(latent=False), rules.block_tokens(latent=True)) == (128, 16)
    assert rules.allowed_kv_dtypes(latent=False) == (
        "auto",
        "bfloat16",
        "float16",
        "fp8",
        "fp8_e4m3",
        "fp8_e5m2",
    )
    assert rules.allowed_kv_dtypes(latent=True) == ("auto",)
    assert set(rules.kv_dtypes) - {"auto"} <= set(KV_ELEMENT_BYTES)
    assert not set(rules.wrong_kv_dtypes) & set(rules.kv_dtypes)


@pytest.mark.parametrize(
    ("latent", "sequences", "context", "expected"),
    [
        (False, 16, 32768, 2048),
        (False, 4096, 32768, 4096),
        (True, 16, 32768, 32768),
        (True, 16, 1024, 2048),
    ],
)
def test_batched_tokens(latent: bool, sequences: int, context: int, expected: int) -> None:
    rules = rules_for("0.32.0")
    assert rules.batched_tokens(latent=latent, max_num_seqs=sequences, context_tokens=context) == expected
