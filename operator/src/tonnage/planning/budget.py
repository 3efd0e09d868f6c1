"""Bytes that are left for the KV cache on one GPU: the device's total, less everything else by purpose.

The laws were found in start-up logs of vLLM on many cards and checked on an H200
(`tests/data/vllm_startup_logs.jsonl`, ids such as C141; `tests/data/gpu_rows.jsonl`, ids such as qwen3-8b).
Plans pin the bytes of the KV cache, so the engine neither measures nor subtracts anything: what must hold is
that all purposes together stay within the device, and only upper figures are subtracted. An engine that
measures leaves what `measured_kv` says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tonnage.models import Trait
from tonnage.planning.activation import Activation, activation
from tonnage.planning.graphs import estimated_graphs, graphs
from tonnage.planning.load import Load
from tonnage.planning.plan import MemoryBytes
from tonnage.planning.term import GIB, MIB, Term, term


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """All bytes of one device by purpose; `total_bytes` is what may be used of it.

    `activation` is the largest peak of steps that the engine's profile sees, and `burst_margin` what
    requests take beyond it, with what the profile leaves out. The engine counts non-torch memory, weights
    and activations within its share (`--gpu-memory-utilization`), and `graphs_within`, its own estimate,
    from 0.21 on; context, bursts and what graphs really take are outside it. `warm_up` is the part of
    `burst_margin` that a start takes already, and `profile` what the engine's profile finds: more than steps
    take at a start that compiles, which is over before there is a KV cache. `at_ready` is all that the device
    holds beside the cache once the engine is warm, before any request.
    """

    total_bytes: int
    context: Term
    non_torch: Term
    weights: Term
    activation: Term
    graphs: Term
    burst_margin: Term
    graphs_within: Term
    warm_up: Term
    profile: Term
    at_ready: Term

    @property
    def other_bytes(self) -> int:
        """Upper bytes of everything but the KV cache."""
        return sum(each.upper for each in self._terms)

    @property
    def likely_bytes(self) -> int:
        """Likely bytes of everything but the KV cache."""
        return sum(each.likely for each in self._terms)

    @property
    def kv_bytes(self) -> int:
        """What is left for the KV cache, negative where the rest does not fit."""
        return self.total_bytes - self.other_bytes

    @property
    def _terms(self) -> tuple[Term, ...]:
        return (
            self.context,
            self.non_torch,
            self.weights,
            self.activation,
            self.graphs,
            self.burst_margin,
        )

    def measured_kv(self, *, utilization: float) -> Term:
        """What an engine that measures leaves for its KV cache, negative where it refuses to start: its share
        of the device, less what counts within it (vllm/v1/worker/gpu_worker.py `determine_available_memory`).
        """
        share = int(utilization * self.total_bytes)
        within = (self.non_torch, self.weights, self.profile, self.graphs_within)
        return Term(
            share - sum(each.upper for each in within),
            share - sum(each.likely for each in within),
            share - sum(each.lower for each in within),
            "share of the device, less what the engine counts within it",
        )

    def outside(self, *, utilization: float, bursts: bool = False) -> Term:
        """What stays free beyond that share once everything that is not counted within it is there: at the
        start, or in `bursts` too. Negative where the engine dies after its KV check: in graph capture, in the
        sampler's warm-up or in a burst."""
        beyond = self.total_bytes - int(utilization * self.total_bytes)
        counted = self.graphs_within
        parts = (self.context, self.graphs, self.burst_margin if bursts else self.warm_up)
        return Term(
            beyond + counted.lower - sum(each.upper for each in parts),
            beyond + counted.likely - sum(each.likely for each in parts),
            beyond + counted.upper - sum(each.lower for each in parts),
            "the rest of the device, less what comes on top",
        )

    def memory(self, *, kv_bytes: int) -> MemoryBytes:
        """The upper bytes, as a plan states them, with a KV cache of `kv_bytes`."""
        return MemoryBytes(
            context=self.context.upper,
            non_torch=self.non_torch.upper,
            weights=self.weights.upper,
            activation=self.activation.upper,
            graphs=self.graphs.upper,
            burst_margin=self.burst_margin.upper,
            kv=kv_bytes,
        )


def budget(load: Load, *, total_bytes: int, withheld_bytes: int = 0) -> Budget:
    """The bytes of one device. Raises `IndivisibleError` where ranks cannot share the model.

    `withheld_bytes` are kept free for bursts beyond what the laws ask for: what a start has shown to lack.
    """
    step = activation(load)
    warm_up = _warm_up(step)
    standing = (_context(load), _non_torch(load), _weights(load), graphs(load))
    return Budget(
        total_bytes=total_bytes,
        context=standing[0],
        non_torch=standing[1],
        weights=standing[2],
        graphs=standing[3],
        activation=step.steady,
        burst_margin=_more(_burst_margin(step), withheld_bytes),
        graphs_within=estimated_graphs(load),
        warm_up=warm_up,
        profile=step.profiled,
        at_ready=_at_ready((*standing, warm_up), step.steady, second_runner=load.second_runner),
    )


def share_of(total_bytes: int, *, clients: int) -> int:
    """What one of `clients` of a time-sliced device may use: nothing but the others' plans keeps it free."""
    return total_bytes // clients


def _context(load: Load) -> Term:
    """What the CUDA context, and NCCL where there are several ranks, took before the engine's first look.

    Total less free at the start: 0.51 GiB on H200 (all rows) and H100 (C001 to C062 with one rank), 0.25 on
    L4 (C081), 0.38 on a 24 GB card (C162), 0.49 on four L40S (C198). Over NVLink 1.53 to 2.07 with 2 or 4
    ranks (C028, C032), 2.16 with 8 (C148), 2.47 on Blackwell (C142). The upper figure of several ranks on
    PCIe is one start's 1.4 (C169).
    """
    if load.ranks == 1:
        likely = 0.51 if load.linked else 0.38
        return _gib(0.24, likely, 0.6, "total less free at the start: H200, H100, L4, a 24 GB card")
    if load.linked:
        return _gib(1.4, 1.54, 2.6, "the same over NVLink: C028 to C148")
    return _gib(0.4, 0.5, 1.5, "the same on PCIe: C198, C169")


def _non_torch(load: Load) -> Term:
    """Device memory outside PyTorch's allocator: NCCL, workspaces, kernels.

    With one rank 0.22 to 0.24 GiB on an H200, 0.24 to 0.27 on H100 with 0.18 and 0.19 (once 0.46, C013), 0.13
    before (C063 to C065); 0.02 and 0.06 on cards without NVLink (C081, C197). Over NVLink 2.06 to 2.09 with 2
    ranks (C028, C037), 2.13 to 2.21 with 4 (C029, C038), 2.43 the most that a vLLM of today logged (C146),
    1.38 before 0.17 (C141). On PCIe 0.21 with 4 (C198); its upper figure is a guess. Stages alone took 0.07
    (C026, C027), and are given as much room as other ranks.
    """
    two, four, more = (mib / 1024 for mib in load.rules.linked_mib)
    if load.ranks == 1:
        likely = load.rules.non_torch_mib / 1024 if load.linked else 0.05
        return _gib(0.0, likely, 0.5, "H200 rows; C001 to C066; C081, C197")
    if load.tensor == 1:
        return _gib(0.0, 0.07, 2.6 if load.linked else 1.0, "stages alone: C026, C027")
    if not load.linked:
        return _gib(0.0, 0.21, 1.0, "four L40S: C198")
    if load.ranks <= 4:
        return _gib(0.9 * two, two if load.ranks == 2 else four, 2.6, "C028 to C054 over NVLink; C141")
    return _gib(0.9 * two, more, 3.0, "C146, C148")


def _weights(load: Load) -> Term:
    """The parameters, and what the allocator rounds up, tables of positions or kernels' copies take.

    On an H200 0.01 to 0.13 GiB more than the parameters, 0.44 for gemma4-26b-text with its two tables of
    262,144 positions. Latent attention keeps its up-projections once more, in the model's dtype
    (mla_attention.py 0.32 `process_weights_after_loading`: W_UK_T and W_UV).
    """
    adapters, tables = load.adapter_bytes, load.position_tables
    likely = load.weights + max(32 * MIB, tables + 16 * MIB) + adapters
    # Positions of images and videos: tables of four times the length (mrope.py), 256 MiB for the longest.
    longer = min(3 * tables, 192 * MIB) if Trait.MULTIMODAL in load.shape.traits else 0
    beside = max(load.weights // 500 + 128 * MIB, tables + longer + 96 * MIB) + _latent_copies(load)
    upper = load.weights + beside + 1.25 * adapters
    return term(likely, lower=load.weights, upper=upper, source="tensors of the checkpoint; H200 rows")


def _latent_copies(load: Load) -> int:
    shape = load.shape
    if not shape.latent:
        return 0
    # The latent vector holds rotary elements too, and `head_elements` counts them: both a little too large.
    per_head = shape.head_size * shape.head_elements * load.element_bytes
    layers = -(-shape.num_layers // load.stages)
    return layers * -(-shape.num_attention_heads // load.tensor) * per_head


def _burst_margin(step: Activation) -> Term:
    """What real requests take beyond what was profiled: the allocator holds what a forward pass and what the
    sampler took at once, and pieces of other sizes; kernels that are first met then are measured in 256 MiB
    and more (H200 rows, device memory after a burst: up to 1.9 GiB for dense models, 4.0 for
    deepseek-v3-6l-fp8)."""
    steady, kept = step.steady, step.kept
    likely = max(0, step.forward.likely + step.sampler.likely - steady.likely) + kept.likely
    both = max(0, step.forward.upper + step.sampler.upper - steady.upper) + kept.upper
    return term(
        likely,
        lower=kept.lower,
        upper=max(both + steady.upper // 2 + 256 * MIB, likely),
        source="device memory after bursts: H200 rows",
    )


def _more(margin: Term, withheld_bytes: int) -> Term:
    return replace(margin, upper=margin.upper + withheld_bytes)


def _warm_up(step: Activation) -> Term:
    """What warming up takes beyond what was profiled: the whole sampler, where the profile left most of it
    out (C162 died 2 MiB short of it), and what is kept."""
    likely = max(0, step.sampler.likely - step.steady.likely) + step.kept.likely
    upper = max(0, step.sampler.upper - step.steady.likely) + step.kept.upper
    return term(likely, lower=step.kept.lower, upper=max(likely, upper), source="the sampler, once whole")


def _at_ready(standing: tuple[Term, ...], steady: Term, *, second_runner: bool) -> Term:
    """What stands, and what the allocator kept of warming up: the whole peak of a step, of which the second
    runner's leaves half (device memory at ready in 67 starts on an H200: within 0.65 GiB, but for steps of
    more than 512 sequences or 8192 tokens, hybrids, latent attention and deepseek-v3-6l-fp8)."""
    left = steady.likely // 2 if second_runner else steady.likely
    return term(
        sum(each.likely for each in standing) + left,
        lower=sum(each.lower for each in standing),
        upper=sum(each.upper for each in standing) + steady.upper,
        source="device memory at ready: H200 rows",
    )


def _gib(lower: float, likely: float, upper: float, source: str) -> Term:
    return term(likely * GIB, lower=lower * GIB, upper=upper * GIB, source=source)
