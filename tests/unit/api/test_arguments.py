"""Words of `engine.extraArgs` that take memory: read as the engine's parser reads them, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage.api.acceptance import Refusal, accept
from tonnage.api.arguments import Unclear, adapters_of, loads_encoders, option_named, uncounted
from tonnage.planning.adapters import RANKS, Adapters
from unit.models.samples import DATA

OPTIONS = sorted((DATA / "vllm_options_0.32.0.txt").read_text().split())


@pytest.mark.parametrize(
    ("words", "adapters"),
    [
        ("", None),
        ("--max-loras 4 --max-lora-rank 64", None),
        ("--enable-lora", Adapters()),
        ("--enable-lora --no-enable-lora", None),
        ("--enable_lora --max_loras=8 --max-lora-rank 64", Adapters(slots=8, rank=64, kept=8)),
        ("--enable-lor --max-loras 2 --max-loras 4", Adapters(slots=4, kept=4)),
        ("--enable-lora --max-cpu-loras 32 --max-loras 8", Adapters(slots=8, kept=32)),
        ("--enable-lora --max-cpu-loras 0", Adapters()),
        ("--enable-lora --specialize-active-lora", Adapters(by_active=True)),
        ("--enable-lora --specialize-active-lora --no-specialize-active-lora", Adapters()),
        ("--lora-modules a=/mnt/a --enable-lora --fully-sharded-loras", Adapters()),
    ],
)
def test_adapters_are_read(words: str, adapters: Adapters | None) -> None:
    assert adapters_of(words.split()) == adapters


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--enable-lora --max-loras", "--max-loras has no value"),
        ("--enable-lora --max-loras many", "--max-loras is 'many'; write a whole number from 1"),
        ("--enable-lora --max-loras=0", "--max-loras is '0'"),
        ("--enable-lora --max-loras=-1", "--max-loras is '-1'"),
        ("--max-loras=99999999999999999999", "from 1 to 100000"),
        ("--enable-lora --max-lora-rank 24", "--max-lora-rank is 24; the engine knows 1, 8, 16, 32, 64"),
        ("--enable-lora --max-loras 8 --max-cpu-loras 4", "--max-cpu-loras is 4, fewer than the 8"),
    ],
)
def test_what_cannot_be_read_or_contradicts_itself_is_refused_with_why(words: str, says: str) -> None:
    found = adapters_of(words.split())
    assert isinstance(found, Unclear)
    assert says in found.message
    body = {"spec": {"model": {"uri": "pvc://models/m"}, "engine": {"extraArgs": words.split()}}}
    refusal = accept(body)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.message) == ("InvalidSpec", found.message)


@given(
    words=st.lists(
        st.one_of(st.sampled_from(OPTIONS), st.text(max_size=12), st.sampled_from("0128")), max_size=12
    )
)
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    found = adapters_of(words)
    if isinstance(found, Adapters):
        assert found.rank in RANKS
        assert 1 <= found.slots <= found.kept


@pytest.mark.parametrize("option", OPTIONS)
def test_no_other_option_of_the_engine_is_taken_for_one_of_adapters(option: str) -> None:
    """Every option that the engine knows, with a value that none of ours allows."""
    ours = ("--max-loras", "--max-lora-rank", "--max-cpu-loras")
    assert isinstance(adapters_of([option, "none"]), Unclear) == (option in ours)


def test_what_encoders_take_for_adapters_is_not_counted_and_said() -> None:
    tower = "--enable-tower-connector-lora"
    assert tower in uncounted(["--enable-lora", tower])
    assert uncounted([tower]) == uncounted(["--enable-lora", "--no-enable-tower-connector-lora"]) == ""
    assert loads_encoders(["--enable-lora"])
    assert not loads_encoders(["--language_model_only"])


def test_options_are_told_as_argparse_tells_them() -> None:
    assert option_named("--max_model_len=8", ["--max-model-len"]) == "--max-model-len"
    assert option_named("--max-mod", ["--max-model-len"]) == "--max-model-len"
    assert option_named("-qfp8", ["-q"]) == "-q"
    assert option_named("value", ["--max-model-len"]) is None
