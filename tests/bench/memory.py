"""`make bench-memory`: how exactly ours and the public estimators know an engine's KV tokens and weights, and
how fast ours is.

Every arm is asked the same rows of tests/data/kv_oracle.jsonl: a model's config, what the user asked of the
engine, and the bytes that are available to the KV cache on each rank. What an engine needs beside weights and
KV cache is no part of the question, so the estimators' overheads do not enter. The engine's own answer is
vLLM 0.32's "KV cache size: N tokens", int(concurrency * max_model_len).

`--offline` leaves out the peers' own packages. A second part asks how many bytes there are in the first place
(`bench.memory_left`; `--left` prints it alone).
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.memory_left import print_left
from bench.memory_rows import ENGINE_VERSION, KINDS, PLAIN, Row, read_rows
from bench.memory_speed import print_speed
from bench.memory_tables import OWN, Answer, Arm, print_agreement, print_table, print_unanswered
from bench.peers import aiconfigurator, gpustack, hf_mem, kaito, llm_d_planner, packages
from bench.peers.question import Peer, Question, UnansweredError
from bench.processor import heading
from tonnage.planning.fit import Fit, fit
from tonnage.planning.weights import IndivisibleError, weight_bytes
from unit.planning.oracle_rows import device_of, options_of

PEERS: Final = (
    kaito.PEER,
    gpustack.PEER,
    hf_mem.PEER,
    llm_d_planner.PEER,
    llm_d_planner.PEER_BY_BLOCKS,
    aiconfigurator.PEER,
    aiconfigurator.PEER_IN_REQUESTS,
)
PACKAGES: Final = (
    (packages.HF_MEM, {"tokens": hf_mem.PEER.name}),
    (
        packages.LLM_D_PLANNER,
        {"tokens": llm_d_planner.PEER.name, "blocks": llm_d_planner.PEER_BY_BLOCKS.name},
    ),
    (
        packages.AICONFIGURATOR,
        {
            "tokens": aiconfigurator.PEER.name,
            "requests": aiconfigurator.PEER_IN_REQUESTS.name,
            "weights": "aiconfigurator",
        },
    ),
)
"""The peers' own packages, and the arm that each of their figures belongs to."""


def main() -> None:
    """Print every table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--offline", action="store_true", help="without the peers' own packages")
    arguments.add_argument("--left", action="store_true", help="only the bytes that engines leave")
    parsed = arguments.parse_args()
    if parsed.left:
        print(heading("python -m bench.memory --left"))
    else:
        _print_given(offline=parsed.offline)
    print_left()


def _print_given(*, offline: bool) -> None:
    """What is made of bytes that are given."""
    rows = read_rows()
    _print_header(rows)
    own = {} if offline else _packages([row.question for row in rows])
    arms = [Arm(name="ours", answers=[_our_tokens(row) for row in rows]), *_peers(rows, own)]
    _print_tokens(rows, arms)
    _print_blocks(rows, arms)
    print_unanswered(arms)
    print_agreement(arms)
    _print_weights(rows, own)
    print_speed(rows)


def _print_header(rows: Sequence[Row]) -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    print(f"make bench-memory, {written}, Python {platform.python_version()}, {os.cpu_count()} x {processor}")
    print(
        f"{len(rows)} rows of tests/data/kv_oracle.jsonl: what vLLM {ENGINE_VERSION} makes of the same bytes"
    )
    print("* is a peer's own package; the others are formulas re-expressed from the sources below")
    for peer in PEERS:
        print(f"  {peer.name:32}{peer.source}")


# Answers


def _our_answer(row: Row) -> Fit | str:
    if row.shape is None:
        return row.refusal
    answer = fit(
        row.shape,
        device=device_of(row.engine),
        options=options_of(row.engine),
        kv_bytes=row.question.kv_bytes,
        engine_version=ENGINE_VERSION,
    )
    return answer if answer.fits else answer.reason or "does not fit"


def _our_tokens(row: Row) -> Answer:
    answer = _our_answer(row)
    return answer if isinstance(answer, str) else answer.kv_tokens or "no figure"


def _our_blocks(row: Row) -> Answer:
    answer = _our_answer(row)
    return answer if isinstance(answer, str) else (answer.num_blocks or 0) * (answer.block_tokens or 0)


def _our_weights(row: Row, *, tensor_parallel: int, pipeline_parallel: int) -> Answer:
    if row.shape is None:
        return row.refusal
    if not row.shape.weights_known:
        return "the checkpoint's format is not known"
    try:
        return weight_bytes(
            row.shape,
            dtype=row.engine["dtype"],
            tensor_parallel=tensor_parallel,
            pipeline_parallel=pipeline_parallel,
            expert_parallel=options_of(row.engine).expert_parallel,
            capability=device_of(row.engine).compute_capability,
        )[0]
    except IndivisibleError:
        return "ranks do not divide"


def _peers(rows: Sequence[Row], own: dict[str, list[Answer]]) -> list[Arm]:
    arms = []
    for peer in PEERS:
        arms.append(Arm(name=peer.name, answers=[_asked(peer, row.question) for row in rows]))
        if peer.name in own:
            arms.append(Arm(name=peer.name + OWN, answers=own[peer.name]))
    return arms


def _asked(peer: Peer, question: Question) -> Answer:
    try:
        return peer.tokens(question)
    except UnansweredError as error:
        return str(error)


def _packages(questions: Sequence[Question]) -> dict[str, list[Answer]]:
    """What the packages themselves answer, by the name of the arm."""
    found: dict[str, list[Answer]] = {}
    for package, figures in PACKAGES:
        try:
            answers = packages.ask(package, questions)
        except packages.UnavailableError as error:
            print(f"{package.name}: its own package is left out: {error}")
            continue
        for figure, name in figures.items():
            found[name] = [answer.get(figure) or answer.get("reason", "no figure") for answer in answers]
    return found


# Tables


def _print_tokens(rows: Sequence[Row], arms: Sequence[Arm]) -> None:
    print_table("KV tokens", arms, [row.engine["tokens"] for row in rows])
    for kind in KINDS:
        chosen = [number for number, row in enumerate(rows) if row.kind == kind]
        if chosen:
            figures = [rows[number].engine["tokens"] for number in chosen]
            print_table(f"KV tokens, {kind}", [arm.only(chosen) for arm in arms], figures)


def _print_blocks(rows: Sequence[Row], arms: Sequence[Arm]) -> None:
    """A second figure, fair to who counts tokens otherwise: blocks times block size, where one block table
    serves all layers. Peers' answers are rounded down to whole blocks."""
    chosen = [number for number, row in enumerate(rows) if row.kind == PLAIN]
    sizes = [rows[number].engine["block_size"] for number in chosen]
    blocks = [rows[number].engine["num_blocks"] for number in chosen]
    whole = [
        Arm(
            name=arm.name,
            answers=[
                answer if isinstance(answer, str) else answer // size * size
                for answer, size in zip(arm.only(chosen).answers, sizes, strict=True)
            ],
        )
        for arm in arms[1:]
    ]
    ours = Arm(name=arms[0].name, answers=[_our_blocks(rows[number]) for number in chosen])
    figures = [count * size for count, size in zip(blocks, sizes, strict=True)]
    print_table(f"Blocks times block size, {PLAIN}", [ours, *whole], figures)


def _print_weights(rows: Sequence[Row], own: dict[str, list[Answer]]) -> None:
    """Bytes of the first rank. Peers that share out a checkpoint are told its bytes: ours of one rank."""
    places = [number for number, row in enumerate(rows) if row.engine.get("weight_bytes_per_rank")]
    known = [rows[number] for number in places]
    arms = [Arm(name="ours", answers=[_rank(row) for row in known])]
    if "aiconfigurator" in own:
        arms.append(Arm(name="aiconfigurator" + OWN, answers=own["aiconfigurator"]).only(places))
    figures = [row.engine["weight_bytes_per_rank"] for row in known]
    print_table("Weight bytes per rank", arms, figures)
    several = [number for number, row in enumerate(known) if row.question.ranks > 1]
    shares = [
        Arm(name=name, answers=[_share(known[number], factor) for number in several])
        for name, factor in (("KAITO", kaito.WEIGHT_EXPANSION), ("llm-d-planner", 1.0))
    ]
    print_table(
        "Weight bytes per rank, several ranks",
        [*(arm.only(several) for arm in arms), *shares],
        [figures[number] for number in several],
    )
    print_unanswered(arms[:1])


def _rank(row: Row) -> Answer:
    ranks = row.question
    return _our_weights(row, tensor_parallel=ranks.tensor_parallel, pipeline_parallel=ranks.pipeline_parallel)


def _share(row: Row, factor: float) -> Answer:
    checkpoint = _our_weights(row, tensor_parallel=1, pipeline_parallel=1)
    return checkpoint if isinstance(checkpoint, str) else checkpoint * factor / row.question.ranks


if __name__ == "__main__":
    main()
