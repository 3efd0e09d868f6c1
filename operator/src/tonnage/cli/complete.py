"""What may follow a half-written command line: `tonnage __complete WORD...`, asked by the shells' scripts.

The answer is in the form of cobra's, which kubectl asks its plugins for too: a line for each candidate, with
a description after a tab, and at the end `:0`, where files may follow as well, or `:4`, where not."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tonnage.cli.errors import Missing, UsageError
from tonnage.cli.exits import FINE
from tonnage.cli.main import COMMANDS, add_options
from tonnage.cli.parser import Parser

if TYPE_CHECKING:
    from tonnage.cluster.port import Kind

FILES, NO_FILES = 0, 4
SECONDS: Final = 3.0
"""How long the API server may take to name objects before the shell goes on without them."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What may be written, each with its description; `directive` as above."""

    values: Sequence[tuple[str, str]]
    directive: int = NO_FILES


def run(words: Sequence[str]) -> int:
    """Print what may follow; the last word is the one that is being written."""
    found = candidates(words)
    lines = [f"{value}\t{text}" if text else value for value, text in found.values]
    sys.stdout.write("\n".join([*lines, f":{found.directive}"]) + "\n")
    return FINE


def kubectl() -> None:
    """The program `kubectl_complete-tonnage`: kubectl asks it what may follow `kubectl tonnage`."""
    sys.exit(run(sys.argv[1:]))


def candidates(words: Sequence[str]) -> Candidates:
    """What may follow."""
    *before, current = words or [""]
    name = next((word for word in before if not word.startswith("-")), None)
    if name is None:
        known = {each: command.help for each, command in COMMANDS.items()} | {"--help": "", "--version": ""}
        return _starting(known.items(), current)
    if name not in COMMANDS:
        return Candidates(())
    parser = Parser(prog=name, add_help=True)
    add_options(parser, name)
    return _of_command(parser, name, before[before.index(name) + 1 :], current)


def _of_command(parser: Parser, name: str, before: Sequence[str], current: str) -> Candidates:
    options = parser._option_string_actions
    waiting = options.get(before[-1]) if before else None
    if waiting is not None and _takes_value(waiting):
        return _values(name, waiting, before, current)
    flag, equals, value = current.partition("=")
    if equals and flag in options:
        found = _values(name, options[flag], before, value)
        return Candidates([(f"{flag}={each}", text) for each, text in found.values], found.directive)
    if current.startswith("-"):
        return _starting(_unused(parser, before), current)
    positional = [action for action in parser._actions if not action.option_strings]
    written = _positionals(options, before)
    if written < len(positional):
        return _values(name, positional[written], before, current)
    return Candidates(())


def _unused(parser: Parser, before: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Options that may still be written, by their long names."""
    for action in parser._actions:
        again = isinstance(action, argparse._AppendAction)
        if action.option_strings and (again or not set(action.option_strings) & set(before)):
            long = [each for each in action.option_strings if each.startswith("--")]
            yield from ((each, (action.help or "").partition(";")[0]) for each in long)


def _positionals(options: Mapping[str, argparse.Action], before: Sequence[str]) -> int:
    """How many words before are neither options nor their values."""
    count, skip = 0, False
    for word in before:
        if skip:
            skip = False
        elif word.startswith("-") and word != "-":
            skip = word in options and _takes_value(options[word])
        else:
            count += 1
    return count


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs is None


def _values(name: str, action: argparse.Action, before: Sequence[str], current: str) -> Candidates:
    if action.choices is not None:
        return _starting(((str(choice), "") for choice in action.choices), current)
    source = _SOURCES.get(f"{name} {action.dest}", _SOURCES.get(action.dest))
    if source is None:
        return Candidates(())
    values, directive = source(before)
    return Candidates(_starting(values, current).values, directive)


def _starting(values: Iterable[tuple[str, str]], current: str) -> Candidates:
    wanted = current.lower()
    return Candidates(
        [(value, " ".join(text.split())) for value, text in values if value.lower().startswith(wanted)]
    )


Source = Callable[[Sequence[str]], tuple[Iterable[tuple[str, str]], int]]


def _files(_before: Sequence[str]) -> tuple[Iterable[tuple[str, str]], int]:
    return (), FILES


def _models(_before: Sequence[str]) -> tuple[Iterable[tuple[str, str]], int]:
    from tonnage import catalogue  # noqa: PLC0415 - one completion of several

    return ((name, "") for name in catalogue.names()), FILES


def _cards(_before: Sequence[str]) -> tuple[Iterable[tuple[str, str]], int]:
    from tonnage.gpus.cards import CARDS  # noqa: PLC0415

    return ((card.name, card.product) for card in CARDS), NO_FILES


def _kv_dtypes(_before: Sequence[str]) -> tuple[Iterable[tuple[str, str]], int]:
    from tonnage.engines import KV_ELEMENT_BYTES  # noqa: PLC0415

    return ((name, "") for name in ("auto", *KV_ELEMENT_BYTES)), NO_FILES


def _contexts(before: Sequence[str]) -> tuple[Iterable[tuple[str, str]], int]:
    from tonnage.cluster.kubeconfig import KubeconfigError, contexts  # noqa: PLC0415

    try:
        return [(name, "") for name in contexts(_written(before, "--kubeconfig"))], NO_FILES
    except KubeconfigError:
        return (), NO_FILES


def _objects(before: Sequence[str]) -> tuple[Iterable[tuple[str, str]], int]:
    from tonnage.cluster.port import LLM_DEPLOYMENT  # noqa: PLC0415

    found = _named(before, LLM_DEPLOYMENT, here=True)
    return [(name, phase) for name, phase in found], NO_FILES


def _namespaces(before: Sequence[str]) -> tuple[Iterable[tuple[str, str]], int]:
    from tonnage.cluster.port import Kind  # noqa: PLC0415

    return _named(before, Kind("", "v1", "Namespace", "namespaces", namespaced=False), here=False), NO_FILES


def _named(before: Sequence[str], kind: Kind, *, here: bool) -> list[tuple[str, str]]:
    """Names of objects with their phases; none where the cluster does not tell within a moment."""
    from tonnage.cli.session import Here, ask, read_all  # noqa: PLC0415 - the cluster's client is slow

    async def read(cluster: Here) -> list[tuple[str, str]]:
        namespace = cluster.namespace if here else ""
        found = await asyncio.wait_for(read_all(cluster, kind, namespace=namespace), SECONDS)
        if isinstance(found, Missing):
            return []
        return [(str(one["metadata"]["name"]), str(one.get("status", {}).get("phase", ""))) for one in found]

    options = argparse.Namespace(
        kubeconfig=_written(before, "--kubeconfig"),
        context=_written(before, "--context"),
        namespace=_written(before, "-n", "--namespace"),
    )
    try:
        return ask(options, read)
    except (UsageError, TimeoutError):
        return []


def _written(before: Sequence[str], *flags: str) -> str | None:
    """The value of an option that was written before."""
    for index, word in enumerate(before):
        flag, equals, value = word.partition("=")
        if flag in flags:
            return value if equals else next(iter(before[index + 1 :]), None)
    return None


_SOURCES: Final[Mapping[str, Source]] = {
    "model": _models,
    "gpu": _cards,
    "kv_dtype": _kv_dtypes,
    "filename": _files,
    "node": _files,
    "svg": _files,
    "kubeconfig": _files,
    "context": _contexts,
    "namespace": _namespaces,
    "explain name": _objects,
    "fit context": lambda _before: ((), NO_FILES),
}
"""Where values come from, by the option's destination, or that of one command."""
