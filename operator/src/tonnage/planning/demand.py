"""A demand with its defaults filled in, and the question the rules are asked."""

from __future__ import annotations

from dataclasses import dataclass

from tonnage.engines import KV_ELEMENT_BYTES, EngineRules
from tonnage.gpus.placement import NodeSelection
from tonnage.models import ModelProfile
from tonnage.planning.plan import Demand

_TYPICAL_SHARE = 4
"""A typical request is taken to end at a quarter of the context length unless the user says more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is wanted of which model, whatever the hardware."""

    demand: Demand
    model: ModelProfile

    @property
    def latent(self) -> bool:
        """Whether the model uses multi-head latent attention."""
        return self.model.shape.latent

    @property
    def context_tokens(self) -> int:
        """The longest request served."""
        return self.demand.context_length or self.model.shape.default_context_tokens

    @property
    def typical_tokens(self) -> int:
        """What a typical request holds at its end."""
        return self.demand.typical_tokens or -(-self.context_tokens // _TYPICAL_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Wanted):
    """All that planning for CPU nodes looks at: what is wanted, by which engine, on which nodes."""

    engine: EngineRules
    selection: NodeSelection

    @property
    def dtype(self) -> str:
        """The dtype the engine serves the model in."""
        return serving_dtype(self.model, engine=self.engine)

    def element_bytes(self, kv_dtype: str) -> int:
        """Bytes of one KV element; "auto" is the model's own dtype."""
        return KV_ELEMENT_BYTES[self.dtype if kv_dtype == "auto" else kv_dtype]


def serving_dtype(model: ModelProfile, *, engine: EngineRules) -> str:
    """What the engine makes of `--dtype auto`.

    vllm/config/model.py 0.32 `_resolve_auto_dtype`: the declared dtype, else that of the weights; float32
    is served in the platform's first dtype, and so is float16 where the model is unstable in it.
    """
    declared = model.shape.dtype or stored_dtype(model)
    unstable = declared == "float16" and model.shape.architecture in engine.no_float16
    return engine.dtypes[0] if declared == "float32" or unstable else declared


def stored_dtype(model: ModelProfile) -> str:
    """The dtype of the tensors of a checkpoint, as the engine takes it where none is declared."""
    names = {"BF16": "bfloat16", "F16": "float16"}
    stored = {dtype for dtype, _ in model.weights.bytes_by_dtype}
    # Two dtypes promote to float32, as does any other.
    return names.get(stored.pop(), "float32") if len(stored) == 1 else "float32"
