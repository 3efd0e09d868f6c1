"""`make bench-memory`, second part: how near ours and the public estimators come to the bytes that a
measuring engine leaves for its KV cache, and which starts would have failed by our laws.

Errors are of the estimate (more than 0: too much), promises of the lower bound. "Left out": our laws
without the model that is judged (tests/unit/planning/left_out.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from bench.peers.available import ESTIMATORS, card_of
from tonnage.gpus.cards import card_named
from unit.planning.failures import PREDICTED, STARTS, UNDECIDABLE, Judged, judge
from unit.planning.left_out import without_each_model
from unit.planning.starts import GIB, SWEEP, Start, log_rows, logged, on_cards

_NAME: Final = 32
Estimate = Callable[[Start], float]


def print_left() -> None:
    """Print every table."""
    measured = [start for start in on_cards() if start.kv_bytes is not None]
    swept = [start for start in logged() if start.id in SWEEP]
    others = [start for start in logged() if start.id not in SWEEP]
    without_logged = _by_id(without_each_model(logged()))
    without_measured = _by_id(without_each_model(measured))
    print("\nBytes left for the KV cache, GiB of one device; weights as the engine logged or the config says")
    _print_table("one benchmark on H100, vLLM 0.19", swept, without_logged)
    _print_table("other logged starts that state everything, V1", others, without_logged)
    for card in ("H200", "H100-80GB"):
        for kind, name in (("dense", "dense models"), ("other", "experts, latent attention, hybrids")):
            chosen = [start for start in measured if (start.product, start.kind) == (card, kind)]
            _print_table(f"one {card}, vLLM 0.26, {name}", chosen, without_measured)
    _print_starts(measured)
    _print_promises([*swept, *others], on_cards())
    _print_failures([judge(row) for row in log_rows()])


def _print_table(title: str, starts: Sequence[Start], left_out: dict[str, Start]) -> None:
    print(f"\n{title}: {len(starts)} starts of {len({start.model for start in starts})} models")
    print(f"  {'':{_NAME}}{'mean |e|':>10}{'mean e':>9}{'worst':>8}{'over 0.5 too much':>20}")
    arms: dict[str, Estimate] = {
        "ours": lambda start: start.estimated_bytes / GIB,
        "ours, left out": lambda start: left_out[start.id].estimated_bytes / GIB,
    }
    arms |= {name: _peer(name) for name in ESTIMATORS}
    for name, estimate in arms.items():
        errors = [estimate(start) - (start.kv_bytes or 0) / GIB for start in starts]
        mean, bias = sum(map(abs, errors)) / len(errors), sum(errors) / len(errors)
        over = sum(error > 0.5 for error in errors)
        worst = max(errors, key=abs)
        print(f"  {name:{_NAME}}{mean:>10.3f}{bias:>+9.3f}{worst:>+8.2f}{f'{over} of {len(errors)}':>20}")


def _peer(name: str) -> Estimate:
    def estimate(start: Start) -> float:
        card = card_named(start.product)
        stated = card.stated_gb if card else round(start.total_bytes / GIB)
        return ESTIMATORS[name](card_of(start=start, stated_gib=stated))

    return estimate


def _print_starts(starts: Sequence[Start]) -> None:
    print("\n  H200 and H100           had  estimate    error  promised")
    for start in starts:
        had = (start.kv_bytes or 0) / GIB
        print(
            f"  {start.id:24}{had:>8.2f}{start.estimated_bytes / GIB:>10.2f}{start.error_gib:>+9.3f}"
            f"{start.promised_bytes / GIB:>10.2f}"
        )


def _print_promises(with_share: Sequence[Start], bursts: Sequence[Start]) -> None:
    every = [start for start in (*with_share, *bursts) if start.kv_bytes is not None]
    over = [start.id for start in every if start.promised_bytes > (start.kv_bytes or 0)]
    print(f"\nPromised more at the same share than there was: {', '.join(over) or 'none'} of {len(every)}")
    unused = sorted(start.unused_bytes / GIB for start in bursts)
    middle, count = unused[len(unused) // 2], len(unused)
    print(
        "What plans leave beside the cache on an H200 or H100, less what was held after a burst: "
        f"least {unused[0]:.2f}, median {middle:.2f}, most {unused[-1]:.2f} GiB of {count} starts"
    )


def _print_failures(judged: Sequence[Judged]) -> None:
    failed = [each for each in judged if each.failed]
    counts = Counter(each.verdict for each in failed)
    print(f"\nFailed starts: {', '.join(f'{count} {word}' for word, count in sorted(counts.items()))}")
    for word in sorted(counts, key=(PREDICTED, "missed", UNDECIDABLE).index):
        for each in failed:
            if each.verdict == word:
                print(f"  {each.id}  {word:12}{each.why}")
    decided = [each for each in judged if not each.failed and each.verdict != UNDECIDABLE]
    alarms = [each.id for each in decided if each.verdict != STARTS]
    print(f"False alarms: {len(alarms)} of {len(decided)} successful starts that are decided {alarms or ''}")


def _by_id(starts: Sequence[Start]) -> dict[str, Start]:
    return {start.id: start for start in starts}
