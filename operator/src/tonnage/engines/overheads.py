"""What an engine version takes of a GPU beside weights and KV cache, and what of it counts within
`--gpu-memory-utilization`: data by release, newest last.

From start-up logs of 0.9 to 0.20 (tests/data/vllm_startup_logs.jsonl, ids such as C063), from 0.26 on an H200
(tests/data/gpu_rows.jsonl, ids such as qwen3-8b) and from the source of the release named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from tonnage.engines.versions import UnknownEngineVersionError, release_of

_MIB: Final = 2**20
_OTHER_VECTORS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRules:
    """Device memory of one engine version (its V1 core).

    `version`, `rules_version` and `assumed` as in `EngineRules`. `logit_bytes` are those of one logit of
    every sequence while tokens are drawn, beyond the logits in the model's dtype; `sampler_bytes` what
    comes on top, the workspace of matrix products included. `lean_logit_bytes` and `lean_sampler_bytes` are
    what the second model runner profiles of it. `keeps_counts`: that runner holds a counter of four bytes,
    and a bit, for each of them. `graphs_within`: an estimate of CUDA graphs counts within the utilization,
    except on the second runner. `expert_workspace`: buffers of routed experts are kept and stand beside
    every other peak. `family_vectors` are hidden vectors of every token that stand beside the widest
    tensors of an eager forward pass, by the first word of the architecture, 4 for others.
    `compiled_vectors`: hidden vectors of every token that a compiled forward pass holds beyond those of an
    eager one. `copies_table`: a start that compiles copies the token table for a while. `non_torch_mib` are
    of one rank alone, `linked_mib` of each of several over NVLink: two, up to four, more.
    """

    version: str
    rules_version: str
    assumed: bool = False
    logit_bytes: float
    sampler_bytes: int
    lean_logit_bytes: float = 0.0
    lean_sampler_bytes: int = 0
    keeps_counts: bool = False
    graphs_within: bool
    expert_workspace: bool
    family_vectors: Mapping[str, int]
    compiled_vectors: float
    copies_table: bool = False
    non_torch_mib: int
    linked_mib: tuple[int, int, int]

    def vectors(self, architecture: str) -> int:
        """Hidden vectors of an eager forward pass of this architecture."""
        known = self.family_vectors.items()
        return next((count for word, count in known if architecture.startswith(word)), _OTHER_VECTORS)


# Exact to the MiB on an H200: qwen3-0.6b to qwen3-32b (4), llama31-8b-128k (3), gemma2-default (5); to 9 MiB
# mixtral-8x7b-kvfp8 (3).
_FAMILY_VECTORS: Final = {"Llama": 3, "Mistral": 3, "Mixtral": 3, "Granite": 3, "Phi": 3, "Gemma": 5}

# 38.9 bytes in all: C063 (0.15), and with other models, cards and sequences C141 (0.10), C081 (0.10), C198.
# The step down at 0.17 is in the logs (C064, C065: one model, one card); its cause was not looked for.
# Graphs came on top of the utilization (C140, C141).
MEMORY_0_9: Final = MemoryRules(
    version="0.9.0",
    rules_version="0.9.0",
    logit_bytes=36.9,
    sampler_bytes=0,
    graphs_within=False,
    expert_workspace=False,
    family_vectors=_FAMILY_VECTORS,
    compiled_vectors=0.75,
    non_torch_mib=133,
    linked_mib=(1413, 1413, 1413),
)

# 14.07 bytes in all, whatever the ranks: 14 starts of 0.19 with vocabularies above 90,000 (C005 to C062).
MEMORY_0_17: Final = MemoryRules(
    version="0.17.0",
    rules_version="0.17.0",
    logit_bytes=12.07,
    sampler_bytes=115 * _MIB,
    graphs_within=False,
    expert_workspace=True,
    family_vectors=_FAMILY_VECTORS,
    compiled_vectors=0.75,
    non_torch_mib=251,
    linked_mib=(2120, 2200, 2400),
)

# vllm/envs.py 0.21: VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS is on unless it is switched off (C115, C116).
MEMORY_0_21: Final = replace(MEMORY_0_17, version="0.21.0", rules_version="0.21.0", graphs_within=True)

# An H200: 2 bytes and 42 MiB (qwen3-8b-s1024-t2048); counters of 0.15 GiB at 256 sequences, twice that at 512
# (qwen3-8b-graph, qwen3-8b-press-bf16: memory after loading, less the weights); a vector less than eagerly
# where compiled code was loaded (fill-8b-pinned, fill-70b-fp8-pinned), the token table and two vectors
# where it was made (fill-8b-control, fill-32b-control, gpt-oss-20b-graph: exact; fill-70b-fp8-control: 0.06
# GiB more).
MEMORY_0_26: Final = replace(
    MEMORY_0_21,
    version="0.26.0",
    rules_version="0.26.0",
    lean_logit_bytes=0.0,
    lean_sampler_bytes=42 * _MIB,
    keeps_counts=True,
    compiled_vectors=-1.0,
    copies_table=True,
    non_torch_mib=234,
)

MEMORY_RULES: Final = (MEMORY_0_9, MEMORY_0_17, MEMORY_0_21, MEMORY_0_26)


def memory_rules_for(version: str) -> MemoryRules:
    """The memory rules of an engine version on GPUs: those of the newest release here that is not newer.

    They are marked `assumed` where the version is newer than all. Raises `UnknownEngineVersionError` for an
    unreadable version and for one older than all.
    """
    wanted = release_of(version)
    if wanted is None:
        raise UnknownEngineVersionError(f"engine version {version[:60]!r} is not of the form 0.32.0")
    for rules in reversed(MEMORY_RULES):
        known = release_of(rules.rules_version)
        if known is not None and known <= wanted:
            newer = rules is MEMORY_RULES[-1] and known != wanted
            return replace(rules, version=version, assumed=newer)
    raise UnknownEngineVersionError(
        f"engine version {version} is older than {MEMORY_RULES[0].rules_version}, the oldest whose memory on "
        "GPUs is known"
    )
