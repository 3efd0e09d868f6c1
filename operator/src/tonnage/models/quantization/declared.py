"""quantization_config, compression_config and hf_quant_config.json -> a `Quantization`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tonnage.models.fields import Fields
from tonnage.models.schemes import Scheme, Unquantized


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """`method` is the declared method ("fp8", "awq") or None; `known` says that `scheme` is that method's,
    and `kv_dtype` the KV dtype that the engine takes for "auto"."""

    method: str | None
    scheme: Scheme
    kv_dtype: str | None = None
    known: bool = True


def read_quantization(
    root: Fields, text: Fields, hf_quant_config: Mapping[str, object] | None
) -> Quantization:
    """The quantization that the files of a checkpoint declare; `text` is the text part of a wrapper.

    Raises `ConfigError` for declarations that the engine refuses too.
    """
    declared = (
        root.optional_object("quantization_config")
        or root.optional_object("compression_config")
        or text.optional_object("quantization_config")
    )
    if declared is None:
        if hf_quant_config is None:
            return Quantization(method=None, scheme=Unquantized())
        return Quantization(method="modelopt", scheme=Unquantized(), known=False)
    inner = Fields(declared, where="config.json quantization_config")
    method = inner.optional_text("quant_method", max_length=40) or "undeclared"
    return Quantization(method=method.lower().replace("_", "-"), scheme=Unquantized(), known=False)
