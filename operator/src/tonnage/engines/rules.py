"""What an engine version does with memory, as data: every figure names the place in the engine it comes
from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRules:
    """How one engine version sizes its KV cache on one kind of hardware.

    `version` is what was asked for, `rules_version` the newest known release these rules were read from,
    and `assumed` says that the two differ, so that a plan can tell it. Sizes are in bytes, blocks or
    tokens as named; an empty set means "none".
    """

    version: str
    rules_version: str
    assumed: bool
    accelerator: str
    default_block_tokens: int
    latent_block_tokens: int
    latent_backend: str | None
    kernel_block_tokens: int
    head_sizes: frozenset[int]
    latent_sizes: frozenset[int]
    dtypes: tuple[str, ...]
    no_float16: frozenset[str]
    kv_dtypes: tuple[str, ...]
    latent_kv_dtypes: tuple[str, ...]
    wrong_kv_dtypes: tuple[str, ...]
    fp8_head_multiple: int
    quantizations: frozenset[str]
    default_batched_tokens: int
    default_max_num_seqs: int
    batches_in_flight: int
    chunks_latent_prefill: bool
    null_blocks: int
    padded_vocab_multiple: int
    copies_embeddings: bool
    overhead_bytes: int
    shared_memory_bytes: int

    def block_tokens(self, *, latent: bool) -> int:
        """Tokens of a KV block: multi-head latent attention has its own size."""
        return self.latent_block_tokens if latent else self.default_block_tokens

    def batched_tokens(self, *, latent: bool, max_num_seqs: int, context_tokens: int) -> int:
        """Tokens of one engine step (`--max-num-batched-tokens`), never fewer than sequences.

        Where prefill cannot be split, a step must hold a whole request (vllm/platforms/cpu.py 0.32,
        "forcing chunked prefill and prefix caching to be disabled").
        """
        whole = context_tokens if latent and not self.chunks_latent_prefill else 0
        return max(self.default_batched_tokens, max_num_seqs, whole)

    def allowed_kv_dtypes(self, *, latent: bool) -> tuple[str, ...]:
        """KV dtypes this engine computes rightly, the default first."""
        return self.latent_kv_dtypes if latent else self.kv_dtypes
