"""The picture: well-formed XML whatever the names are."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from tonnage.cli.bar import Memory
from tonnage.cli.svg import escape, picture
from unit.cli.samples import GIB, Run, model_directory

SVG = "{http://www.w3.org/2000/svg}"


def _memory(label: str, weights: int = 20, total: int = 80) -> Memory:
    return Memory(label=label, total_bytes=total * GIB, weights_bytes=weights * GIB, kv_bytes=30 * GIB)


def test_parts_are_as_long_as_their_share() -> None:
    root = ElementTree.fromstring(picture("m", [_memory("a"), _memory("b")], note="n"))
    bars = [each for each in root.iter(f"{SVG}rect") if each.get("height") == "22"]
    lengths = [float(each.get("width", "0")) for each in bars[:3]]
    assert len(bars) == 6
    assert [round(length / sum(lengths), 3) for length in lengths] == [0.25, 0.375, 0.375]


def test_markup_in_names_is_text() -> None:
    evil = "</text><script>alert('&\"')</script>\x00\x1b"
    root = ElementTree.fromstring(picture(evil, [_memory(evil)], note=evil))
    assert root.findall(f".//{SVG}script") == []
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert "</text><script>alert('&\"')</script>" in texts
    assert escape("<a href='x'>&") == "&lt;a href=&#39;x&#39;&gt;&amp;"


def test_weights_that_do_not_fit_are_said() -> None:
    assert "weights 90.00 GiB, more than 80.00 GiB" in picture("m", [_memory("a", weights=90)], note="n")


def test_written_to_the_file_named(fit: Run, tmp_path: Path) -> None:
    path = tmp_path / "fit.svg"
    code, _, _ = fit(str(model_directory(tmp_path / "a<b")), "--gpu", "L4", "--svg", str(path))
    assert code == 0
    root = ElementTree.fromstring(path.read_text())
    assert root.find(f"{SVG}title") is not None
    assert "a<b" in str(root.findtext(f"{SVG}title"))
