"""The human form: heading, table, bars."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tonnage.cli import table
from tonnage.cli.bar import Memory, bar, cells, legend, memories
from tonnage.cli.style import Style, printable, size, style_of
from unit.cli.samples import GIB, Run, answer, model_directory, question

PLAIN = Style()
UNICODE = Style(unicode=True)


def test_table_tells_what_fits_and_why_not() -> None:
    rows = table.rows(
        [
            answer(exact=False, card="H100-80GB"),
            answer(fits=False, exact=False, card="L4", kv_dtype="fp8"),
            answer(fits=False, supported=False, exact=False, card="T4", message="no such kernel"),
        ],
        {"L4": 2},
        PLAIN,
    )
    assert rows[0].split() == [
        *("place", "memory", "KV", "dtype", "fits", "KV", "cache", "tokens", "requests"),
    ]
    assert "yes" in rows[1]
    assert "16,000" in rows[1]
    assert rows[1].endswith("3.91")
    assert "at most 128 tokens long; fits with --tensor-parallel 2" in rows[2]
    assert rows[3].endswith("no such kernel")
    assert all(row == row.rstrip() and "\x1b" not in row for row in rows)


def test_details_name_blocks_and_groups() -> None:
    assert table.details(answer()) == [
        "1,000 blocks of 65,536 bytes; block size 16; batches of 8,192 tokens, 1,024 requests at a time",
        "  4 layers of full: 16,384 bytes a layer and block, 256 blocks a request",
    ]
    assert table.details(answer(fits=False)) == []


def test_heading_tells_savings_and_weights() -> None:
    asked = question(tensor_parallel=2)
    lines = table.heading(asked, asked.savings(), [answer(weights_bytes_by_stage=(10 * GIB,))])
    assert lines[0].startswith("org/model: LlamaForCausalLM, from catalogue org/repo@12345678 a/b")
    assert "4.0x less than" in "\n".join(lines)
    assert "  weights   10.00 GiB on each of 2 ranks" in lines
    assert "  engine    vLLM 0.32.0, context 4,096" in lines


def test_bar_parts_add_up() -> None:
    memory = Memory(label="H100", total_bytes=80 * GIB, weights_bytes=20 * GIB, kv_bytes=50 * GIB)
    assert cells(memory, 40) == (10, 25, 5)
    assert bar(memory, style=PLAIN) == (
        f"H100           |{'#' * 10}{'=' * 25}{'.' * 5}| 20.00 GiB + 50.00 GiB + 10.00 GiB"
    )
    assert f"|{'█' * 10}{'▓' * 25}{'░' * 5}|" in bar(memory, style=UNICODE)


def test_small_parts_are_still_seen() -> None:
    memory = Memory(label="x", total_bytes=1000 * GIB, weights_bytes=1, kv_bytes=900 * GIB)
    weights, kv, reserve = cells(memory, 40)
    assert weights == 1
    assert weights + kv + reserve == 40


def test_bar_of_weights_that_do_not_fit_says_so() -> None:
    memory = Memory(label="T4", total_bytes=15 * GIB, weights_bytes=60 * GIB, kv_bytes=0)
    assert bar(memory, style=PLAIN).endswith("> 60.00 GiB of weights, the card has 15.00 GiB")


def test_legend_names_the_parts() -> None:
    assert legend(PLAIN) == "## weights  == KV cache  .. reserve"


def test_one_bar_for_each_card() -> None:
    found = memories([answer(exact=False, card="L4"), answer(exact=False, card="L4"), answer()])
    assert [memory.label for memory in found] == ["L4"]


class _Stream(io.StringIO):
    def __init__(self, *, terminal: bool, encoding: str) -> None:
        super().__init__()
        self._terminal = terminal
        self._name = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._name

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("encoding", "environ", "unicode"),
    [
        ("utf-8", {}, True),
        ("UTF-8", {"NO_COLOR": ""}, True),
        ("utf-8", {"NO_COLOR": "1"}, False),
        ("utf-8", {"TERM": "dumb"}, False),
        ("ascii", {}, False),
        ("latin-1", {}, False),
    ],
)
def test_blocks_only_where_they_can_be_shown(encoding: str, environ: dict[str, str], unicode: bool) -> None:
    assert style_of(_Stream(terminal=True, encoding=encoding), environ).unicode is unicode


def test_colour_only_on_a_terminal() -> None:
    assert style_of(_Stream(terminal=True, encoding="utf-8"), {"COLUMNS": "90"}).colour
    assert not style_of(_Stream(terminal=False, encoding="utf-8"), {}).colour
    assert "\x1b[32m" in Style(colour=True).paint("yes", "32")


def test_sizes_and_control_characters() -> None:
    assert size(3 * GIB // 2) == "1.50 GiB"
    assert size(2**20) == "1.00 MiB"
    assert size(0) == "0.00 GiB"
    assert printable("a\x1b[2Jb\n") == "a?[2Jb?"


def test_whole_answer(fit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    code, output, complaint = fit(str(model_directory(tmp_path / "tiny")), "--what-if", "window=128")
    assert (code, complaint) == (0, "")
    assert output.isascii()
    for words in ("tiny: LlamaForCausalLM", "H100-80GB", "what if", "with window=128", "upper bounds", "##"):
        assert words in output


def test_hint_says_how_many_ranks_would_hold_it(fit: Run) -> None:
    code, output, _ = fit("Qwen/Qwen3-32B", "--gpu", "L40S")
    assert code == 1
    assert "fits with --tensor-parallel 2" in output
    assert "use more ranks, a larger card or a quantized checkpoint" in output


def test_given_bytes_show_their_groups(fit: Run, tmp_path: Path) -> None:
    _, output, _ = fit(str(model_directory(tmp_path)), "--kv-bytes", "1GiB")
    assert "4 layers of full" in output
    assert "upper bounds" not in output
