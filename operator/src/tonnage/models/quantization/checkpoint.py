"""quantization_config, compression_config and hf_quant_config.json -> a `Quantization`.

The methods are imported where something is declared: most of their code is of no use to a plain checkpoint,
and `tonnage fit` should start fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tonnage.models.fields import Fields
from tonnage.models.schemes import Scheme, Unquantized

WHERE: Final = "config.json quantization_config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """`method` is the engine's name of the declared method ("fp8", "modelopt_fp4") or None; `known` says
    that `scheme` is that method's, and `kv_dtype` the KV dtype that the engine takes for "auto", None where
    it takes the model's; `declared_plain` that something is declared which names no method."""

    method: str | None
    scheme: Scheme
    kv_dtype: str | None = None
    known: bool = True
    declared_plain: bool = False


def read_quantization(
    root: Fields, text: Fields, hf_quant_config: Mapping[str, object] | None
) -> Quantization:
    """The quantization that the files of a checkpoint declare; `text` is the text part of a wrapper.

    Raises `ConfigError` for declarations that the engine refuses too.
    """
    declared = _declared(root, text, hf_quant_config)
    if declared is None:
        return Quantization(method=None, scheme=Unquantized())
    from tonnage.models.quantization.declared import read_declared  # noqa: PLC0415 - see above

    return read_declared(declared, root, text, hf_quant_config)


def _declared(root: Fields, text: Fields, beside: Mapping[str, object] | None) -> Fields | None:
    """The declaration that counts: config.json's, ModelOpt's file, the text part's."""
    stated = root.optional_object("quantization_config")
    if stated is None and beside is not None:
        return Fields(beside, where="hf_quant_config.json")
    for fields, key in (
        (root, "compression_config"),
        (text, "quantization_config"),
        (text, "compression_config"),
    ):
        stated = fields.optional_object(key) if stated is None else stated
    return None if stated is None else Fields(stated, where=WHERE)
