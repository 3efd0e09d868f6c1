"""GPUStack: one claim of GPU memory per model; the KV cache is never sized.

Read in gpustack/gpustack: `estimate_model_vram` in gpustack/policies/utils.py@0b8e5af2c97d: 1.2 times the
weights plus 2 GiB, whatever the context, the KV dtype or the architecture.
"""

from __future__ import annotations

from bench.peers.question import Peer, Question, UnansweredError


def tokens(question: Question) -> float:
    """There is no such figure."""
    raise UnansweredError("sizes no KV cache (claims 1.2 times the weights plus 2 GiB)")


PEER = Peer(name="GPUStack", source="gpustack/gpustack@0b8e5af2c97d", tokens=tokens)
