"""The words of `engine.extraArgs`, read as the engine's own parser reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tonnage.planning.adapters import RANKS, Adapters

_FIELD: Final = "spec.engine.extraArgs"
_SWITCHES: Final = ("--enable-lora", "--no-enable-lora", "--specialize-active-lora")
_NUMBERS: Final = ("--max-loras", "--max-lora-rank", "--max-cpu-loras")
_OF_ENCODERS: Final = "--enable-tower-connector-lora"
_READ: Final = (*_SWITCHES, "--no-specialize-active-lora", *_NUMBERS, _OF_ENCODERS)
_LANGUAGE_ALONE: Final = ("--language-model-only",)
_MOST_SLOTS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Unclear:
    """Arguments of which nothing can be made, and why."""

    message: str


def option_named(word: str, options: Iterable[str]) -> str | None:
    """The option that a word of the command line means, its value behind `=` aside; argparse accepts _ for -
    and any unambiguous prefix, and one letter with its value behind it."""
    name = word.split("=", 1)[0]
    name = name.replace("_", "-") if name.startswith("--") else name
    name = name.split(".", 1)[0]
    known = tuple(options)
    if name in known:
        return name
    if not name.startswith("--"):
        return _short(name, known)
    if len(name) < 4:
        return None
    return next((option for option in known if option.startswith(name)), None)


def _short(name: str, options: Sequence[str]) -> str | None:
    """-t means -tp where nothing else begins so, and -qfp8 means -q fp8."""
    if len(name) < 2 or not name.startswith("-"):
        return None
    short = [option for option in options if not option.startswith("--")]
    return next((o for o in short if o.startswith(name) or (len(o) == 2 and name.startswith(o))), None)


def adapters_of(words: Sequence[str]) -> Adapters | Unclear | None:
    """The LoRA adapters that these arguments ask for, None for none; of an argument that is there twice the
    last counts (vllm/engine/arg_utils.py and config/lora.py 0.32)."""
    given = dict(_read(words))
    unread = next((each for each in given.values() if isinstance(each, Unclear)), None)
    if unread is not None:
        return unread
    if not given.get("--enable-lora"):
        return None
    numbers = {name: value for name, value in given.items() if isinstance(value, int)}
    slots, rank = numbers.get("--max-loras", 1), numbers.get("--max-lora-rank", Adapters().rank)
    kept = numbers.get("--max-cpu-loras", slots) or slots
    if rank not in RANKS:
        known = ", ".join(map(str, RANKS))
        return Unclear(f"{_FIELD}: --max-lora-rank is {rank}; the engine knows {known}")
    if kept < slots:
        return Unclear(
            f"{_FIELD}: --max-cpu-loras is {kept}, fewer than the {slots} of --max-loras: remove it"
        )
    return Adapters(slots=slots, rank=rank, kept=kept, by_active=bool(given.get("--specialize-active-lora")))


def uncounted(words: Sequence[str]) -> str:
    """What is wrong with arguments that take memory of a GPU which no plan counts; empty where none does."""
    given = dict(_read(words))
    if given.get("--enable-lora") and given.get(_OF_ENCODERS):
        return f"{_FIELD}: {_OF_ENCODERS} takes memory that no plan on GPUs counts: remove it"
    return ""


def loads_encoders(words: Sequence[str]) -> bool:
    """Does an engine with these arguments load what a model has for images, audio and video?"""
    return not any(option_named(word, _LANGUAGE_ALONE) for word in words)


def _read(words: Sequence[str]) -> Iterator[tuple[str, int | bool | Unclear]]:
    """What is said of adapters, in order: (option, its value)."""
    for at, word in enumerate(words):
        option = option_named(word, _READ)
        if option is None or not word.startswith("--"):
            continue
        if option in _NUMBERS:
            _, told, value = word.partition("=")
            text = value if told else (words[at + 1] if at + 1 < len(words) else "")
            yield option, _number(option, text)
        else:
            yield option.replace("--no-", "--"), not option.startswith("--no-")


def _number(option: str, text: str) -> int | Unclear:
    least = 0 if option == "--max-cpu-loras" else 1
    if not text.isascii() or not text.isdecimal() or not least <= int(text[:9]) <= _MOST_SLOTS:
        told = f"is {text[:40]!r}" if text else "has no value"
        return Unclear(f"{_FIELD}: {option} {told}; write a whole number from {least} to {_MOST_SLOTS}")
    return int(text[:9])
