"""What a family of architectures is: how its config.json is read and which defaults stand behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Final

from tonnage.models.body import Reader
from tonnage.models.decoder import Style

ANY: Final = "*"
ABSENT: Final = ""
"""Keys of `Family.texts` beside model types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How one family's config.json is read.

    `defaults` are those of the config classes of transformers 5.19.0, which apply where config.json omits a
    field.
    `reader` is "module:function" in `tonnage.models.architectures`; without one the common decoder is
    built in `style`. `text` names the object that describes the text model of a wrapper, `prefix` the path
    of its modules in the engine. `plans` lists keys of `NOT_PLANNED` that the reader does plan.

    `texts` says which architecture's family reads the text model of a wrapper, by the model_type of the
    text part: `ANY` for all others, `ABSENT` where it states none. That family's defaults and plans are the
    wrapper's too, and `text_defaults` of that architecture. `flat` wrappers may state the text model beside
    the rest instead of in an object.
    """

    defaults: Mapping[str, object] = field(default_factory=dict)
    style: Style = field(default_factory=Style)
    reader: str = ""
    text: str = ""
    prefix: str = ""
    rope_scales_context: bool = True
    plans: frozenset[str] = frozenset()
    texts: Mapping[str, str] = field(default_factory=dict)
    text_defaults: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    flat: bool = False


def reader_of(family: Family) -> Reader:
    """The reader that a family names; imported when it is first needed, so that others cost no start-up
    time."""
    module, _, function = family.reader.partition(":")
    reader: Reader = getattr(import_module(f"tonnage.models.architectures.{module}"), function)
    return reader
