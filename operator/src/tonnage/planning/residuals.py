"""What starts have taught: by how much an engine holds more, or less, of a device than the laws say.

A residual is measured bytes less the law's estimate of the same bytes: of what an engine that measures counts
beside its KV cache, or of what the device holds beside it once the engine is ready. Residuals are kept for
each `Key`, since what the laws leave out is a matter of release, card, architecture, ranks and graphs, and
of the compile cache: a start that compiles has held 0.7 to 1.0 GiB more than one that loads what was
compiled (C152 to C163).

Two figures follow. The *estimate* moves towards the median of the last starts by a bounded step, so that no
single start moves it far. The *bound*, which plans use, believes the worst of one or two starts at once,
leaves out one outlier of three or more, and keeps a margin that shrinks once enough starts agree.

A start is known by the second in which its container started: it teaches once, whoever tells of it again,
and in whatever order starts are told of, the newest are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Final

from tonnage import __version__
from tonnage.planning.budget import Budget
from tonnage.planning.term import MIB, Term

FORMAT: Final = f"1 of {__version__}"
"""A residual is one to the laws of its release: another starts anew, and is taught by all that runs."""
KEPT: Final = 8
"""Starts of one key that are remembered."""
MAX_STEP_MIB: Final = 96
MAX_RESIDUAL_MIB: Final = 64 * 1024
MAX_KEYS: Final = 512
"""Some 40 KiB of a ConfigMap, which may have 1 MiB."""
_ENOUGH: Final = 5
_FEW_MARGIN_MIB: Final = 192
_LEAST_MARGIN_MIB: Final = 96
_LEAST_BOUND_MIB: Final = -512
_LONGEST_ENTRY: Final = 253
_FORMAT_ENTRY: Final = "format"
_PLAIN: Final = re.compile(r"[^A-Za-z0-9.-]+")
_START: Final = r"-?\d{1,6}@\d{1,11}"
_ENTRY: Final = re.compile(rf"(\d{{1,9}}) (-?\d{{1,6}}) ((?:{_START},){{0,{KEPT - 1}}}{_START})", re.ASCII)


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
    """What is known of one key, in MiB: the estimate, and the residuals of the newest starts, each with the
    second since the epoch in which its container started, the newest last. `turn` says when it was last added
    to, as a count of all that was ever added."""

    turn: int
    estimate_mib: int
    starts: tuple[tuple[int, int], ...]
    """(second, residual) each."""

    @property
    def residuals_mib(self) -> tuple[int, ...]:
        """The residuals, the newest start's last."""
        return tuple(residual for _, residual in self.starts)

    def may_teach(self, started_at: int) -> bool:
        """Whether a start is neither known nor older than all that are kept."""
        if any(started_at == known for known, _ in self.starts):
            return False
        return len(self.starts) < KEPT or started_at > self.starts[0][0]

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
        """More than this, over the law's estimate, is not reckoned with.

        A key holds models of all sizes, and what one start does not take another may: no plan gains more than
        half a GiB of the estimate (qwen3-8b-s1024-t2048 takes 1 GiB less, others of its key nearly all).
        """
        ordered = sorted(self.residuals_mib)
        worst = ordered[-1] if len(ordered) < 3 else ordered[-2]
        return max(_LEAST_BOUND_MIB, worst + self.margin_mib)


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """All that is known; equal content is equal whatever the order it was read in."""

    learned: Mapping[str, Learned] = field(default_factory=dict)

    def of(self, key: Key) -> Learned | None:
        """What is known of a key; of a cold start where a warm one was never seen: that is the safe side."""
        return self.learned.get(key.entry) or self.learned.get(replace(key, compiled=False).entry)

    def may_teach(self, key: Key, *, started_at: int) -> bool:
        """Whether a container that started in that second could teach something."""
        known = self.learned.get(key.entry)
        return known is None or known.may_teach(started_at)

    def with_start(
        self, key: Key, *, started_at: int, measured_bytes: int, law: Term, trusted: bool
    ) -> Residuals:
        """Another start, of a container that started in that second since the epoch. `measured_bytes` are
        those that `law` estimates.

        Starts of images that are not `trusted` teach nothing, nor do figures that no device can have: anybody
        may run a container that says something. Nor does a start that is known, or too old to be kept.
        """
        residual = round((measured_bytes - law.likely) / MIB)
        if not trusted or measured_bytes < 0 or abs(residual) > MAX_RESIDUAL_MIB:
            return self
        if started_at < 0 or not self.may_teach(key, started_at=started_at):
            return self
        turn = 1 + max((each.turn for each in self.learned.values()), default=0)
        found = _add(self.learned.get(key.entry), residual, started_at=started_at, turn=turn)
        return Residuals(learned=_newest({**self.learned, key.entry: found}))


NOTHING_LEARNED: Final = Residuals()


def is_trusted(image: str, trusted: Iterable[str]) -> bool:
    """Whether an image is one of those that the administrator trusts: the same repository, "/*" at the end of
    which stands for all below it, by whatever tag or digest."""
    found = repository_of(image)
    return bool(found) and any(_covers(repository_of(each), found) for each in trusted)


def repository_of(image: str) -> str:
    """An image without its tag and digest, and with the registry that a runtime adds where none is named
    (github.com/distribution/reference normalize.go `splitDockerDomain`); empty for a mere digest."""
    head, slash, last = image.partition("@")[0].rpartition("/")
    path = head + slash + last.partition(":")[0]
    if not path or image.startswith("sha256:"):
        return ""
    first = path.partition("/")[0]
    if not slash:
        return f"docker.io/library/{path}"
    return path if set(first) & set(".:") or first == "localhost" else f"docker.io/{path}"


def _covers(trusted: str, repository: str) -> bool:
    return repository.startswith(trusted[:-1]) if trusted.endswith("/*") else repository == trusted


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


def as_learned(budget: Budget, learned: Learned | None) -> Budget:
    """The budget with what was learned, so that its `kv_bytes` are those of `plan_bound`.

    Where starts have held more than the laws' upper figures, the difference is kept free with the margin for
    bursts. Where they have held less, upper figures shrink: weights and graphs to the least of their laws,
    then the margin for bursts and non-torch memory to what is likely; if `plan_bound` has more even then, it
    is left free. The context stays as it is, and what is outside PyTorch gives way last: a start is refused
    where less is free than all but these two.
    """
    if learned is None:
        return budget
    more = plan_bound(budget, learned) - budget.kv_bytes
    if more <= 0:
        margin = budget.burst_margin
        return replace(budget, burst_margin=replace(margin, upper=margin.upper - more))
    least = (
        (budget.weights, budget.weights.lower),
        (budget.graphs, budget.graphs.lower),
        (budget.burst_margin, budget.burst_margin.likely),
        (budget.non_torch, budget.non_torch.likely),
    )
    shrunk = []
    for law, most_taken_to in least:
        upper = max(most_taken_to, law.upper - more)
        more -= law.upper - upper
        shrunk.append(replace(law, likely=min(law.likely, upper), upper=upper))
    weights, graphs, burst_margin, non_torch = shrunk
    return replace(budget, non_torch=non_torch, weights=weights, graphs=graphs, burst_margin=burst_margin)


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
        return Residuals(), (f"format {data.get(_FORMAT_ENTRY, '')[:40]!r} is not {FORMAT!r}: starting anew",)
    found, problems = {}, []
    for name, text in sorted(data.items()):
        match = _ENTRY.fullmatch(text) if name != _FORMAT_ENTRY else None
        starts = _starts_in(match[3]) if match is not None else ()
        if match is not None and starts and abs(int(match[2])) <= MAX_RESIDUAL_MIB:
            found[name] = Learned(turn=int(match[1]), estimate_mib=int(match[2]), starts=starts)
        elif name != _FORMAT_ENTRY:
            problems.append(f"{name[:120]}: {text[:60]!r} is not a turn, an estimate and residuals in MiB")
    return Residuals(learned=_newest(found)), tuple(problems)


def _starts_in(text: str) -> tuple[tuple[int, int], ...]:
    """None at all where they are not in order, or say what no start can."""
    pairs = (each.partition("@") for each in text.split(","))
    starts = tuple((int(second), int(residual)) for residual, _, second in pairs)
    ascending = all(first[0] < second[0] for first, second in pairwise(starts))
    possible = all(abs(residual) <= MAX_RESIDUAL_MIB for _, residual in starts)
    return starts if ascending and possible else ()


def _add(known: Learned | None, residual: int, *, started_at: int, turn: int) -> Learned:
    starts = tuple(sorted((*(known.starts if known else ()), (started_at, residual))))[-KEPT:]
    before = known.estimate_mib if known else 0
    step = round(median(residual for _, residual in starts)) - before
    estimate = before + max(-MAX_STEP_MIB, min(MAX_STEP_MIB, step))
    return Learned(turn=turn, estimate_mib=estimate, starts=starts)


def _newest(learned: dict[str, Learned]) -> dict[str, Learned]:
    if len(learned) <= MAX_KEYS:
        return learned
    newest = sorted(learned, key=lambda name: (-learned[name].turn, name))[:MAX_KEYS]
    return {name: learned[name] for name in newest}


def _entry_of(learned: Learned) -> str:
    starts = ",".join(f"{residual}@{second}" for second, residual in learned.starts)
    return f"{learned.turn} {learned.estimate_mib} {starts}"
