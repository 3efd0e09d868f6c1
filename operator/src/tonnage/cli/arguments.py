"""Options of `tonnage fit`. Light: they are built at every start, what the command needs is not."""

from __future__ import annotations

import argparse
from typing import Final

ENGINE_VERSION: Final = "0.32.0"
UTILIZATION: Final = 0.92
_UNITS: Final = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_MOST_BYTES: Final = 2**50
_MOST_TOKENS: Final = 2**31 - 1

FIT_EPILOG: Final = """\
examples:
  %(prog)s Qwen/Qwen3-32B                          which cards hold it, offline, from the catalogue
  %(prog)s /models/my-model --tensor-parallel 2    a directory with config.json
  %(prog)s openai/gpt-oss-120b --gpu H100 --context 131072
  %(prog)s config.json --kv-bytes 40GiB -o json    the engine's own figures for so many bytes per rank
  %(prog)s Qwen/Qwen3-32B --what-if kv_heads=4 --what-if mla=512+64

exit codes: 0 it fits, 1 it does not, 2 wrong usage or unreadable model, 3 refused: by the engine, or
because this version does not plan the architecture
"""


def add_fit(parser: argparse.ArgumentParser) -> None:
    """The options of `tonnage fit`."""
    parser.description = "Tell what a model's weights and KV cache need, and what each card holds of it."
    parser.epilog = FIT_EPILOG
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a directory, a config.json, a name of the catalogue, or a Hugging Face id",
    )
    parser.add_argument("--list", action="store_true", help="list the catalogue")
    parser.add_argument("--revision", metavar="REV", help="read the model from the hub, at this revision")
    _add_memory(parser)
    _add_engine(parser)
    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", choices=("text", "json", "yaml"), default="text")
    output.add_argument("--svg", metavar="FILE", help="write the memory bars as a picture")
    output.add_argument(
        "--what-if",
        action="append",
        default=[],
        metavar="CHANGE",
        help="KV cache of a changed model: kv_heads=N, window=N or mla=LATENT+ROPE; may be repeated",
    )


def _add_memory(parser: argparse.ArgumentParser) -> None:
    memory = parser.add_argument_group("memory (without --kv-bytes and --gpu: a comparison of cards)")
    memory.add_argument("--kv-bytes", type=_bytes, metavar="N", help="KV cache bytes of each rank")
    memory.add_argument(
        "--gpu", action="append", default=[], metavar="NAME", help="a card; may be repeated to compare"
    )
    memory.add_argument(
        "--gpu-memory-utilization",
        type=_share,
        default=UTILIZATION,
        metavar="U",
        help=f"share of the card's memory that the engine takes (default {UTILIZATION}, as the engine)",
    )
    memory.add_argument("--device-memory", type=_bytes, metavar="N", help="total bytes of another card")
    memory.add_argument("--device-name", metavar="NAME", help="its name as the driver gives it")
    memory.add_argument(
        "--compute-capability", type=_capability, metavar="X.Y", help="of the card (default 9.0)"
    )
    memory.add_argument("--cpu", action="store_true", help="the engine runs on CPU nodes")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    engine = parser.add_argument_group("engine options (left out: the engine's defaults)")
    engine.add_argument("--engine-version", default=ENGINE_VERSION, metavar="V", help="of vLLM")
    for name, text in (
        ("--tensor-parallel", "ranks that share each layer"),
        ("--pipeline-parallel", "stages that share the layers"),
        ("--decode-context-parallel", "tensor ranks that share the KV cache by position"),
    ):
        engine.add_argument(name, type=_count, default=1, metavar="N", help=text)
    engine.add_argument("--expert-parallel", action="store_true", help="ranks share whole experts")
    engine.add_argument("--dtype", metavar="DTYPE", help="of the model: bfloat16, float16, float32")
    engine.add_argument("--kv-dtype", metavar="DTYPE", help="of the KV cache, such as fp8 (default auto)")
    engine.add_argument(
        "--kv-dtype-skip-layers", type=_names, default=(), metavar="A,B", help="layers that keep the dtype"
    )
    engine.add_argument("--block-size", type=_count, metavar="N", help="tokens of a KV block")
    engine.add_argument("--context", type=_context, metavar="N", help="longest request in tokens, or auto")
    engine.add_argument("--max-num-seqs", type=_count, metavar="N", help="requests at a time")
    engine.add_argument("--max-num-batched-tokens", type=_count, metavar="N", help="tokens of a step")
    engine.add_argument("--prefix-caching", action=argparse.BooleanOptionalAction, help="share prefixes")
    engine.add_argument(
        "--no-hybrid-kv-cache-manager",
        action="store_false",
        dest="hybrid_manager",
        help="give every layer's cache the same length",
    )
    engine.add_argument("--enforce-eager", action="store_true", help="no CUDA graphs")


def _count(text: str) -> int:
    return _whole(text, most=_MOST_TOKENS)


def _context(text: str) -> int:
    return -1 if text in {"auto", "-1"} else _count(text)


def _bytes(text: str) -> int:
    number, unit = text, 1
    for suffix, size in _UNITS.items():
        if text.endswith(suffix):
            number, unit = text.removesuffix(suffix).strip(), size
    if unit == 1:
        return _whole(number, most=_MOST_BYTES, least=0)
    try:
        amount = float(number) * unit
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 42949672960 or 40GiB") from None
    if not 0 <= amount <= _MOST_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is outside 0 to 1 PiB")
    return int(amount)


def _whole(text: str, *, most: int, least: int = 1) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 20 or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from {least} to {most}")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number above 0 and at most 1")
    return share


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return _whole(major, most=99), _whole(minor or "0", most=9, least=0)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)
