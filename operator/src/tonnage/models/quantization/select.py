"""A scheme that picks a format for every module by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields
from tonnage.models.parameters import MODEL, Dimension, Parameter, whole
from tonnage.models.quantization.formats import Format
from tonnage.models.quantization.names import Naming
from tonnage.models.schemes import Experts, Matrix, Scheme

KV_SCALES: Final = (Parameter(MODEL, (Dimension((whole(1),)),), count=4),)
"""Scales of queries, keys, values and probabilities (quantization/kv_cache.py `BaseKVCacheMethod`): scalars
made in torch's default dtype, which is the model's while the engine builds it."""


class Module(StrEnum):
    """What a format is asked for."""

    LINEAR = "linear"
    EXPERTS = "experts"
    HEAD = "head"


Choice = Callable[[str, Module], Format]


class Selected:
    """The scheme of a checkpoint: `choose` names the format of each module, `attention` what each attention
    layer holds."""

    def __init__(self, choose: Choice, *, attention: tuple[Parameter, ...] = ()) -> None:
        self._choose = choose
        self._attention = attention

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """The tensors of a linear layer."""
        return self._choose(matrix.name, Module.LINEAR).matrix(matrix)

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """The tensors of routed experts."""
        return self._choose(experts.name, Module.EXPERTS).experts(experts)

    def attention(self, name: str) -> tuple[Parameter, ...]:
        """The scales of an attention layer's KV cache."""
        return self._attention

    def head(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """The tensors of the output head."""
        return self._choose(matrix.name, Module.HEAD).matrix(matrix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What a method's reader is given: the object that declares it, the config around it and its text part,
    ModelOpt's own file where there is one, how names are to be read, and whether the model has latent
    attention."""

    method: str
    fields: Fields
    root: Fields
    text: Fields
    naming: Naming
    hf_quant_config: Mapping[str, object] | None
    latent: bool

    @property
    def kv_scales(self) -> tuple[Parameter, ...]:
        """Scales of methods that know plain attention only (`isinstance(layer, Attention)`)."""
        return () if self.latent else KV_SCALES


Reader = Callable[[Declaration], Scheme | None]
"""The scheme of a declaration, None where it is not planned exactly. Raises `ConfigError`."""


def unsupported(problem: str) -> ConfigError:
    """The error about a declaration that the engine refuses."""
    return ConfigError("UnsupportedQuantization", f"config.json: {problem}")
