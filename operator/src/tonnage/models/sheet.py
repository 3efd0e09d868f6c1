"""The sheet on which an architecture writes down one layer: its tensors and its caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tonnage.models.parameters import MODEL, Dimension, Parameter, Part, Split, heads, ranks, whole
from tonnage.models.profile import CacheSpec, Layer
from tonnage.models.schemes import Experts, Matrix, Scheme

VOCABULARY_PADDING: Final = 64
"""vllm/model_executor/layers/vocab_parallel_embedding.py 0.32: DEFAULT_VOCAB_PADDING_SIZE."""


class Sheet:
    """Collects what one module of the model holds; `prefix` is its path in the engine ("model.layers.0.").

    Names of linear layers are the engine's ("self_attn.qkv_proj"): quantized checkpoints name by them what
    they leave as it is. Layer kinds are those of vllm/model_executor/layers/linear.py.
    """

    def __init__(self, scheme: Scheme, *, prefix: str) -> None:
        self._scheme = scheme
        self._prefix = prefix
        self._parameters: list[Parameter] = []
        self._caches: list[CacheSpec] = []

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All tensors written down so far."""
        return tuple(self._parameters)

    def layer(self, *, shares_cache: bool = False) -> Layer:
        """The sheet as a layer; `shares_cache` says that it reads another layer's cache."""
        return Layer(caches=tuple(self._caches), parameters=self.parameters, shares_cache=shares_cache)

    def cache(self, *specs: CacheSpec) -> None:
        """Caches that requests fill here."""
        self._caches.extend(specs)

    def matrix(self, name: str, rows: Sequence[Part], columns: Part, *, bias: bool = False) -> None:
        """A linear layer of any shape."""
        matrix = Matrix(name=self._prefix + name, rows=tuple(rows), columns=columns, bias=bias)
        self._parameters.extend(self._scheme.matrix(matrix))

    def column_parallel(self, name: str, columns: int, *rows: int, bias: bool = False) -> None:
        """Outputs divided by ranks; several `rows` are a fused layer."""
        self.matrix(name, [ranks(size) for size in rows], whole(columns), bias=bias)

    def row_parallel(self, name: str, columns: int, rows: int, *, bias: bool = False) -> None:
        """Inputs divided by ranks; the bias is whole."""
        self.matrix(name, [whole(rows)], ranks(columns), bias=bias)

    def replicated(self, name: str, columns: int, *rows: int, bias: bool = False) -> None:
        """Whole on every rank."""
        self.matrix(name, [whole(size) for size in rows], whole(columns), bias=bias)

    def qkv(
        self,
        name: str,
        columns: int,
        *,
        query_heads: int,
        kv_heads: int,
        head_size: int,
        head_size_v: int | None = None,
        bias: bool = False,
    ) -> None:
        """Queries, keys and values fused; ranks beyond the KV heads hold copies (`QKVParallelLinear`)."""
        value_size = head_size if head_size_v is None else head_size_v
        rows = [ranks(query_heads * head_size), heads(kv_heads, head_size), heads(kv_heads, value_size)]
        self.matrix(name, rows, whole(columns), bias=bias)

    def attention(self, name: str) -> None:
        """An attention layer's own tensors: scales of a quantized KV cache, if the scheme has them."""
        self._parameters.extend(self._scheme.attention(self._prefix + name))

    def experts(
        self,
        name: str,
        *,
        count: int,
        hidden: int,
        intermediate: int,
        gated: bool = True,
        bias: bool = False,
        pieces: int = 0,
        tiled: bool = True,
    ) -> None:
        """Routed experts (`FusedMoE`); `pieces` and `tiled` as in `Experts`."""
        experts = Experts(
            name=self._prefix + name,
            count=count,
            hidden=hidden,
            intermediate=intermediate,
            gated=gated,
            bias=bias,
            pieces=pieces,
            tiled=tiled,
        )
        self._parameters.extend(self._scheme.experts(experts))

    def vector(self, *parts: Part | int, element: str = MODEL, count: int = 1) -> None:
        """`count` vectors; plain numbers are whole on every rank."""
        laid = tuple(whole(part) if isinstance(part, int) else part for part in parts)
        self._parameters.append(Parameter(element, (Dimension(laid),), count=count))

    def tensor(self, *dimensions: Part | int, element: str = MODEL) -> None:
        """A tensor that no scheme quantizes."""
        self._parameters.append(
            Parameter(
                element,
                tuple(Dimension((whole(size) if isinstance(size, int) else size,)) for size in dimensions),
            )
        )

    def embedding(self, rows: int, columns: int, *, padding: int = VOCABULARY_PADDING) -> None:
        """A token table whose rows ranks divide after padding (`VocabParallelEmbedding`)."""
        self.tensor(vocabulary(rows, padding=padding), columns)

    def head(self, name: str, rows: int, columns: int, *, bias: bool = False) -> None:
        """The output head (`ParallelLMHead`)."""
        matrix = Matrix(name=self._prefix + name, rows=(vocabulary(rows),), columns=whole(columns), bias=bias)
        self._parameters.extend(self._scheme.head(matrix))


def vocabulary(rows: int, *, padding: int = VOCABULARY_PADDING) -> Part:
    """Rows of a token table: padded, then divided by ranks."""
    return Part(rows, Split.VOCABULARY, multiple=padding)
