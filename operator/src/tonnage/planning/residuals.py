"""What starts have taught: by how much an engine holds more, or less, of a device than the laws say.

A residual is measured bytes less the law's estimate of the same bytes: of what an engine that measures counts
beside its KV cache, or of what the device holds beside it once the engine is ready. Residuals are kept for
each `Key`, since what the laws leave out is a matter of release, card, architecture, ranks and graphs, and
of the compile cache: a start that compiles has held 0.7 to 1.0 GiB more than one that loads what was
compiled (C152 to C163).

Two figures follow. The *estimate* moves towards the median of the last starts by a bounded step, so that no
single start moves it far. The *bound*, which plans use, believes the worst of one or two starts at once,
leaves out one outlier of three or more, and keeps a margin that shrinks once enough starts agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Final

from tonnage.planning.budget import Budget
from tonnage.planning.term import MIB, Term

FORMAT: Final = "1"
KEPT: Final = 8
"""Starts of one key that are remembered."""
MAX_STEP_MIB: Final = 96
MAX_RESIDUAL_MIB: Final = 64 * 1024
MAX_KEYS: Final = 512
"""Some 40 KiB of a ConfigMap, which may have 1 MiB."""
_ENOUGH: Final = 5
_FEW_MARGIN_MIB: Final = 192
_LEAST_MARGIN_MIB: Final = 96
_LONGEST_ENTRY: Final = 253
_FORMAT_ENTRY: Final = "format"
_PLAIN: Final = re.compile(r"[^A-Za-z0-9.-]+")
_ENTRY: Final = re.compile(r"(\d{1,9}) (-?\d{1,6}) ((?:-?\d{1,6},){0,7}-?\d{1,6})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Key:
    """What starts must have in common to teach each other. `graphs` is the graph mode, such as
    "FULL_AND_PIECEWISE" or "NONE"; `compiled` says that a start found its compiled code in a cache."""

    engine_version: str
    product: str
    architecture: str
    tensor_parallel: int
    graphs: str
    compiled: bool

    @property
    def entry(self) -> str:
        """Its name in a ConfigMap: letters, digits, "-", "_" and "." only."""
        cache = "warm" if self.compiled else "cold"
        ranks = f"tp{self.tensor_parallel}"
        parts = (self.engine_version, self.product, self.architecture, ranks, self.graphs, cache)
        return "_".join(_PLAIN.sub("-", part) for part in parts)[:_LONGEST_ENTRY]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What is known of one key, in MiB: the estimate, and the last residuals, the newest last. `turn` says
    when it was last added to, as a count of all that was ever added."""

    turn: int
    estimate_mib: int
    residuals_mib: tuple[int, ...]

    @property
    def margin_mib(self) -> int:
        """What the bound keeps beyond the worst that it believes: as far as starts were apart, once there are
        enough of them."""
        if len(self.residuals_mib) < _ENOUGH:
            return _FEW_MARGIN_MIB
        middle = median(self.residuals_mib)
        ordered = sorted(abs(each - middle) for each in self.residuals_mib)
        return min(_FEW_MARGIN_MIB, max(_LEAST_MARGIN_MIB, round(ordered[-2])))

    @property
    def bound_mib(self) -> int:
        """More than this, over the law's estimate, is not reckoned with."""
        ordered = sorted(self.residuals_mib)
        worst = ordered[-1] if len(ordered) < 3 else ordered[-2]
        return worst + self.margin_mib


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """All that is known; equal content is equal whatever the order it was read in."""

    learned: Mapping[str, Learned] = field(default_factory=dict)

    def of(self, key: Key) -> Learned | None:
        """What is known of a key; of a cold start where a warm one was never seen: that is the safe side."""
        return self.learned.get(key.entry) or self.learned.get(replace(key, compiled=False).entry)

    def with_start(self, key: Key, *, measured_bytes: int, law: Term, trusted: bool) -> Residuals:
        """Another start. `measured_bytes` are those that `law` estimates.

        Starts of images that are not `trusted` teach nothing, nor do figures that no device can have: anybody
        may run a container that says something.
        """
        residual = round((measured_bytes - law.likely) / MIB)
        if not trusted or measured_bytes < 0 or abs(residual) > MAX_RESIDUAL_MIB:
            return self
        turn = 1 + max((each.turn for each in self.learned.values()), default=0)
        found = _add(self.learned.get(key.entry), residual, turn=turn)
        return Residuals(learned=_newest({**self.learned, key.entry: found}))


def is_trusted(image: str, trusted: Iterable[str]) -> bool:
    """Whether an image is one of those that the administrator trusts: the same repository, "/*" at the end of
    which stands for all below it, by whatever tag or digest."""
    repository = image.partition("@")[0]
    head, slash, last = repository.rpartition("/")
    repository = head + slash + last.partition(":")[0]
    return any(
        repository.startswith(each[:-1]) if each.endswith("/*") else repository == each for each in trusted
    )


def calibrated(law: Term, learned: Learned | None) -> Term:
    """The law's term with what was learned: the estimate moved, the upper bound as far above the law's
    estimate as starts have shown, instead of as far as any start of any model was. Nothing is learned of
    less than the law's least."""
    if learned is None:
        return law
    likely = max(law.lower, law.likely + learned.estimate_mib * MIB)
    upper = max(likely, law.likely + learned.bound_mib * MIB)
    source = f"{law.source}; {len(learned.residuals_mib)} starts"
    return Term(min(law.lower, likely), likely, upper, source)


def kv_bound(budget: Budget, learned: Learned | None, *, utilization: float) -> Term:
    """`Budget.measured_kv` with what was learned of it."""
    share = int(utilization * budget.total_bytes)
    left = budget.measured_kv(utilization=utilization)
    beside = calibrated(beside_kv(left, share=share), learned)
    return Term(share - beside.upper, share - beside.likely, share - beside.lower, beside.source)


def beside_kv(left: Term, *, share: int) -> Term:
    """What is counted beside a KV cache of `left` bytes within a share."""
    return Term(share - left.upper, share - left.likely, share - left.lower, left.source)


def plan_bound(budget: Budget, learned: Learned | None) -> int:
    """`Budget.kv_bytes` with what was learned of `Budget.at_ready` by starts with pinned bytes: what stood
    there is taken as it was seen, what bursts may add to it stays the law's upper figure. Never below
    nothing."""
    if learned is None:
        return budget.kv_bytes
    ready = budget.at_ready
    standing = budget.context, budget.non_torch, budget.weights, budget.graphs
    kept = ready.likely - sum(each.likely for each in standing)
    later = max(0, budget.activation.upper + budget.burst_margin.upper - kept)
    return budget.total_bytes - calibrated(ready, learned).upper - later


def dump(residuals: Residuals) -> dict[str, str]:
    """The data of a ConfigMap: one entry for each key, the same bytes for the same content."""
    entries = {name: _entry_of(each) for name, each in sorted(residuals.learned.items())}
    return {_FORMAT_ENTRY: FORMAT, **entries}


def read(data: Mapping[str, str]) -> tuple[Residuals, tuple[str, ...]]:
    """What a ConfigMap says, and what of it could not be read.

    Of another format nothing is read; entries that are damaged are left out, so that the next start writes
    them anew.
    """
    if not data:
        return Residuals(), ()
    if data.get(_FORMAT_ENTRY) != FORMAT:
        return Residuals(), (f"format {data.get(_FORMAT_ENTRY, '')[:20]!r} is not {FORMAT}: starting anew",)
    found, problems = {}, []
    for name, text in sorted(data.items()):
        match = _ENTRY.fullmatch(text) if name != _FORMAT_ENTRY else None
        if match is not None:
            residuals = tuple(int(each) for each in match[3].split(","))
            found[name] = Learned(turn=int(match[1]), estimate_mib=int(match[2]), residuals_mib=residuals)
        elif name != _FORMAT_ENTRY:
            problems.append(f"{name[:120]}: {text[:60]!r} is not a turn, an estimate and residuals in MiB")
    return Residuals(learned=_newest(found)), tuple(problems)


def _add(known: Learned | None, residual: int, *, turn: int) -> Learned:
    residuals = (*(known.residuals_mib if known else ()), residual)[-KEPT:]
    before = known.estimate_mib if known else 0
    step = round(median(residuals)) - before
    estimate = before + max(-MAX_STEP_MIB, min(MAX_STEP_MIB, step))
    return Learned(turn=turn, estimate_mib=estimate, residuals_mib=residuals)


def _newest(learned: dict[str, Learned]) -> dict[str, Learned]:
    if len(learned) <= MAX_KEYS:
        return learned
    newest = sorted(learned, key=lambda name: (-learned[name].turn, name))[:MAX_KEYS]
    return {name: learned[name] for name in newest}


def _entry_of(learned: Learned) -> str:
    residuals = ",".join(map(str, learned.residuals_mib))
    return f"{learned.turn} {learned.estimate_mib} {residuals}"
