"""Between config.json and a `ModelShape`: what a reader of one architecture is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tonnage.models.fields import Fields
from tonnage.models.profile import Layer, Outside, Trait
from tonnage.models.schemes import Scheme
from tonnage.models.sheet import Sheet

MAX_LAYERS: Final = 1024
MAX_HEADS: Final = 4096
MAX_HEAD_SIZE: Final = 16384
MAX_HIDDEN: Final = 2**20
MAX_VOCABULARY: Final = 2**24
MAX_EXPERTS: Final = 2**16
MAX_CONTEXT: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A config to read: `fields` is the part about the text model, `root` the whole file (the same object
    for text models). `prefix` is the path of the text model's modules in the engine ("language_model." in
    wrappers, else ""), by which quantized checkpoints name what they leave as it is.
    """

    architecture: str
    fields: Fields
    root: Fields
    scheme: Scheme
    prefix: str = ""

    def sheet(self, path: str) -> Sheet:
        """A sheet for the module at `path` ("model.layers.0.") of the text model."""
        return Sheet(self.scheme, prefix=self.prefix + path)

    def size(self, name: str, *, high: int = MAX_HIDDEN, low: int = 1) -> int:
        """A required count or width."""
        return self.fields.integer(name, low=low, high=high)

    def optional_size(self, name: str, *, high: int = MAX_HIDDEN, low: int = 0) -> int | None:
        """A count or width that may be absent."""
        return self.fields.optional_integer(name, low=low, high=high)

    @property
    def layers(self) -> int:
        """`num_hidden_layers`."""
        return self.size("num_hidden_layers", high=MAX_LAYERS)

    @property
    def hidden(self) -> int:
        """`hidden_size`."""
        return self.size("hidden_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What an architecture makes of a config: its layers and all that is outside them.

    Fields are those of `ModelShape` of the same name; `vocab_size` rows are those of the token table.
    """

    layers: tuple[Layer, ...]
    outside: Outside
    hidden_size: int
    vocab_size: int
    num_attention_heads: int
    head_size: int
    head_elements: int
    traits: frozenset[Trait] = frozenset()
    encoder_tokens: int = 0


Reader = Callable[[Source], Body]
