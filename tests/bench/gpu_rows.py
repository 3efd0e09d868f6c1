"""The rows that `make bench-gpu` runs on one H200, or two H100, in the order of what they are worth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

Kind = Literal["plan", "pinned", "control", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Requests that are sent at once. `prompt_tokens` None: the longest prompt, so that the output just fits
    into the context; `requests` None: as many as the engine runs at once."""

    name: str
    requests: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int = 32
    limit_s: int = 60


WIDE: Final = Burst(name="wide", prompt_tokens=512, limit_s=40)
LONG: Final = Burst(name="long", limit_s=240)
SMALL: Final = Burst(name="burst", requests=64, prompt_tokens=512, output_tokens=64)
"""The load of the rows that are there already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One start. `kind`:

    - plan: as the operator plans it for `sequences` requests of `context` tokens;
    - pinned: the same with `sequences` and `tokens` (of a step) as stated, and the bytes that the law then
      leaves, or `kv_bytes`;
    - control: without bytes, by `share` of the device;
    - refused: as pinned, and expected to fail.

    `devices` is how many one engine takes, of the `card` on which the recorded row was made.
    `preflight` False: the worker is not told the bytes by purpose, so that it lets the engine try.
    `needs_s` is what it is thought to take once its imports are done.
    """

    id: str
    config: str
    kind: Kind
    patch: dict[str, Any] | None = None
    context: int = 32768
    sequences: int = 256
    tokens: int = 8192
    kv_dtype: str = "auto"
    eager: bool = True
    share: str = "0.9"
    kv_bytes: int | None = None
    prefix_caching: bool | None = None
    extra: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    bursts: tuple[Burst, ...] = (SMALL,)
    preflight: bool = True
    devices: int = 1
    card: str = "H200"
    needs_s: int = 20
    note: str = ""


_QWEN_8B: Final = "Qwen--Qwen3-8B"
_LLAMA_8B: Final = "meta-llama--Meta-Llama-3.1-8B"
_LLAMA_70B: Final = "nvidia--Llama-3.1-70B-Instruct-FP8"
_QWEN_32B: Final = "Qwen--Qwen3-32B"
_QWEN_30B: Final = "Qwen--Qwen3-30B-A3B"
_MIXTRAL: Final = "mistralai--Mixtral-8x7B-v0.1"
_GPT_OSS: Final = "openai--gpt-oss-20b"
_LATENT: Final = "made--deepseek-v2-lite"
_FILLED_CONTEXT: Final = 4096
_TEXT_ONLY: Final = ("--language-model-only", "--gdn-prefill-backend", "triton")
_SCOUT: Final = "meta-llama--Llama-4-Scout-17B-16E-Instruct--textonly"
_MIXTRAL_22B: Final = "mistralai--Mixtral-8x22B-v0.1"


def _fill(name: str, config: str, kind: Kind, **fields: Any) -> Row:
    """A start of the comparison: by share, and by bytes with the same limits or with those of a plan."""
    found: dict[str, Any] = {
        "id": f"fill-{name}-{kind}",
        "config": config,
        "kind": kind,
        "context": 4096,
        "eager": False,
        "share": "0.92",
        "bursts": (WIDE,) if kind == "control" else (WIDE, LONG),
        **fields,
    }
    return Row(**found)


_FILL: Final = (
    _fill("8b", _QWEN_8B, "control", needs_s=65),
    _fill("8b", _QWEN_8B, "pinned", needs_s=75),
    _fill("8b", _QWEN_8B, "plan", sequences=512, needs_s=110),
    _fill("30b-a3b", _QWEN_30B, "control", needs_s=85),
    _fill("30b-a3b", _QWEN_30B, "pinned", needs_s=120),
    _fill("70b-fp8", _LLAMA_70B, "control", needs_s=85),
    _fill("70b-fp8", _LLAMA_70B, "pinned", needs_s=220),
    _fill("32b", _QWEN_32B, "control", needs_s=75),
    _fill("32b", _QWEN_32B, "pinned", needs_s=165),
    _fill("30b-a3b", _QWEN_30B, "plan", sequences=512, needs_s=150),
)

_WARM: Final = (
    _fill("8b", _QWEN_8B, "control", id="fill-8b-control-warm", needs_s=45),
    _fill("32b", _QWEN_32B, "control", id="fill-32b-control-warm", needs_s=55),
    _fill("70b-fp8", _LLAMA_70B, "control", id="fill-70b-fp8-control-warm", needs_s=60),
    _fill("30b-a3b", _QWEN_30B, "control", id="fill-30b-a3b-control-warm", needs_s=65),
)
"""The same again: with compiled code in its cache an engine takes less while it measures itself."""

_LACKING: Final = (
    Row(id="mixtral-8x7b-kvfp8", config=_MIXTRAL, kind="control", kv_dtype="fp8", needs_s=45),
    Row(id="deepseek-v2-lite-kvfp8", config=_LATENT, kind="control", kv_dtype="fp8", needs_s=60),
    Row(id="qwen3-8b-oom-at-start", config=_QWEN_8B, kind="refused", kv_bytes=133 * 10**9, preflight=False),
    Row(id="qwen3-8b-preflight", config=_QWEN_8B, kind="refused", kv_bytes=133 * 10**9, needs_s=15),
    Row(
        id="qwen3-8b-oom-in-burst", config=_QWEN_8B, kind="refused", kv_bytes=131_700_000_000, preflight=False
    ),
    Row(
        id="qwen3.5-35b-a3b-triton",
        config="Qwen--Qwen3.5-35B-A3B",
        kind="control",
        extra=("--language-model-only", "--gdn-prefill-backend", "triton"),
        needs_s=70,
    ),
    Row(
        id="gemma4-26b-text",
        config="google--gemma-4-26B-A4B--textonly",
        kind="control",
        patch={"allow_global_per_layer_attribute_access": True},
        needs_s=80,
    ),
    Row(
        id="qwen3-8b-lora-1",
        config=_QWEN_8B,
        kind="control",
        extra=("--enable-lora", "--max-loras", "1", "--max-lora-rank", "16"),
    ),
    Row(
        id="qwen3-8b-lora-8",
        config=_QWEN_8B,
        kind="control",
        extra=("--enable-lora", "--max-loras", "8", "--max-lora-rank", "16"),
    ),
    Row(id="qwen3-8b-again-1", config=_QWEN_8B, kind="control"),
    Row(id="qwen3-8b-again-2", config=_QWEN_8B, kind="control"),
)

_ACTIVATION: Final = (
    Row(id="qwen3-30b-a3b-s64-t2048", config=_QWEN_30B, kind="control", sequences=64, tokens=2048),
    Row(id="qwen3-30b-a3b-s256-t16384", config=_QWEN_30B, kind="control", tokens=16384),
    Row(id="mixtral-8x7b-s64-t2048", config=_MIXTRAL, kind="control", sequences=64, tokens=2048),
    Row(id="mixtral-8x7b-s256-t16384", config=_MIXTRAL, kind="control", tokens=16384),
    Row(id="gpt-oss-20b-s64-t2048", config=_GPT_OSS, kind="control", sequences=64, tokens=2048, needs_s=50),
    Row(id="gpt-oss-20b-s64-t16384", config=_GPT_OSS, kind="control", sequences=64, tokens=16384),
    Row(id="deepseek-v2-lite-s64-t2048", config=_LATENT, kind="control", sequences=64, tokens=2048),
    Row(
        id="deepseek-v3-6l-fp8-t2048",
        config="deepseek-ai--DeepSeek-V3",
        kind="control",
        patch={"num_hidden_layers": 6, "num_nextn_predict_layers": 0},
        tokens=2048,
        needs_s=45,
    ),
    Row(id="qwen3-8b-graph-t2048", config=_QWEN_8B, kind="control", tokens=2048, eager=False, needs_s=60),
    Row(id="llama31-8b-graph-t8192", config=_LLAMA_8B, kind="control", eager=False, needs_s=65),
    Row(
        id="qwen3-8b-graph-s1024-t16384",
        config=_QWEN_8B,
        kind="control",
        sequences=1024,
        tokens=16384,
        eager=False,
        needs_s=70,
    ),
)


def _ranks(name: str, config: str, kind: Kind, **fields: Any) -> Row:
    return _fill(name, config, kind, id=f"tp2-{name}-{kind}", devices=2, card="H100-80GB", **fields)


_RANKS: Final = (
    _ranks("70b-fp8", _LLAMA_70B, "pinned", needs_s=190),
    _ranks("70b-fp8", _LLAMA_70B, "control", needs_s=60),
    _ranks("32b", _QWEN_32B, "control", eager=True, needs_s=40),
    _ranks("30b-a3b", _QWEN_30B, "control", eager=True, needs_s=40),
    _ranks("30b-a3b", _QWEN_30B, "pinned", needs_s=120),
)

_OTHERS: Final = tuple(
    Row(id=f"h100-{name}", config=config, kind="control", card="H100-80GB", **fields)
    for name, config, fields in (
        ("qwen3-8b", _QWEN_8B, {}),
        ("phi3", "tfdefault--phi3", {"context": 4096}),
        ("mistral", "tfdefault--mistral", {}),
        ("gemma3", "tfdefault--gemma3_text", {}),
        ("qwen2", "tfdefault--qwen2", {}),
        ("mimo-7b", "XiaomiMiMo--MiMo-7B-Base", {}),
        ("scout-8l", _SCOUT, {"patch": {"num_hidden_layers": 8}, "needs_s": 40}),
        ("qwen3-32b-fp8", "Qwen--Qwen3-32B-FP8", {"needs_s": 30}),
        ("mixtral-22b-12l", _MIXTRAL_22B, {"patch": {"num_hidden_layers": 12}, "needs_s": 40}),
        ("qwen3.5-27b-triton", "Qwen--Qwen3.5-27B", {"extra": _TEXT_ONLY, "sequences": 64, "needs_s": 50}),
        ("minimax-10l", "MiniMaxAI--MiniMax-M2.5", {"patch": {"num_hidden_layers": 10}, "needs_s": 40}),
        ("phi", "tfdefault--phi", {"context": 2048}),
        ("falcon", "tfdefault--falcon", {"context": 2048}),
        ("qwen3-8b-graph", _QWEN_8B, {"eager": False, "needs_s": 60}),
        ("mistral-graph-t4096", "tfdefault--mistral", {"eager": False, "tokens": 4096, "needs_s": 60}),
    )
)
"""Models that no law was fitted to, on a card that no row was made on."""

ROWS: Final = (*_FILL, *_WARM, *_LACKING, *_ACTIVATION, *_OTHERS, *_RANKS)
