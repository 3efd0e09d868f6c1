"""How quantized checkpoints name modules, and which of the engine's modules they mean.

vllm/model_executor/layers/quantization/utils/quant_utils.py `is_layer_skipped`, models/utils.py
`WeightsMapper` and the models' own maps (0.32.0).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields

MAX_NAMES: Final = 4096
MAX_PATTERNS: Final = 64
_MAX_NAME: Final = 400
_MAX_LOOSE: Final = 2

FUSED: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "qkv_proj": (("q_proj", "k_proj", "v_proj"),),
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "w13": (("w1", "w3"),),
    "kv_proj": (("k_proj", "v_proj"),),
    "in_proj_qkvz": (("in_proj_qkv", "in_proj_z"),),
    "in_proj_ba": (("in_proj_b", "in_proj_a"),),
    "in_proj_qkvg": (("q_proj", "k_proj", "v_proj", "g_proj"),),
    "fused_qkv_a_proj": (("q_a_proj", "kv_a_proj_with_mqa"),),
    "fused_wqa_wkv": (("wq_a", "wkv"),),
    "fused_wkv_wgate": (("wkv", "wgate"),),
    "wk_weights_proj": (("wk", "weights_proj"),),
}
"""The engine's fused layers and the names their parts have in checkpoints (`packed_modules_mapping`)."""

_GATES: Final = ("gate", "router", "shared_expert_gate")
_TOWERS: Final = ("visual.", "vision_", "multi_modal_projector.")

Match = Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What becomes of a checkpoint's names in the engine: every text replaced once, then every prefix."""

    texts: tuple[tuple[str, str], ...] = ()
    prefixes: tuple[tuple[str, str], ...] = ()

    def of(self, name: str) -> str:
        """The engine's name."""
        for old, new in self.texts:
            name = name.replace(old, new, 1)
        for old, new in self.prefixes:
            if name.startswith(old):
                name = new + name[len(old) :]
        return name

    def all(self, names: Iterable[str]) -> tuple[str, ...]:
        """The engine's names."""
        return tuple(self.of(name) for name in names)


def texts(fields: Fields, key: str) -> tuple[str, ...]:
    """A list of names or patterns; absent and null are empty. Raises `ConfigError`."""
    value = fields.raw(key)
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_NAMES:
        fields.fail(key, f"is not a list of at most {MAX_NAMES} names")
    for item in value:
        if not isinstance(item, str) or len(item) > _MAX_NAME:
            fields.fail(key, f"holds something else than names of at most {_MAX_NAME} characters")
    return tuple(value)


def parts_of(name: str) -> list[list[str]]:
    """The names of the parts of a fused layer: one list for each way checkpoints call them."""
    path, _, last = name.rpartition(".")
    stem = f"{path}." if path else ""
    return [[stem + part for part in parts] for parts in FUSED.get(last, ())]


def matches(name: str, match: Match) -> bool:
    """Whether `match` holds for a module or for all parts of a fused one. Raises `ConfigError` where it does
    for some parts only: the engine cannot store them differently."""
    return match(name) or matches_parts(name, match)


def matches_parts(name: str, match: Match) -> bool:
    """As `matches`, of the parts alone; layers that are not fused have none."""
    for parts in parts_of(name):
        found = [part for part in parts if match(part)]
        if len(found) == len(parts):
            return True
        if found:
            raise ConfigError(
                "ConfigInvalid",
                f"config.json: {found[0][:100]} is quantized differently from the layers it is fused with in "
                f"{name[:100]}; the engine refuses that",
            )
    return False


def left_alone(name: str) -> bool:
    """Whether GPTQ and AWQ exports leave a module as it is without saying so in config.json: gates and what
    reads images. The engine sees it in the checkpoint's tensors (`maybe_update_config`)."""
    return name.rpartition(".")[2] in _GATES or any(path in name for path in _TOWERS)


def listed_exactly(name: str, names: frozenset[str]) -> bool:
    """`is_layer_skipped` in its exact mode: experts are skipped with any longer name that holds theirs."""
    if name.rpartition(".")[2] in FUSED:
        return matches(name, names.__contains__)
    if "experts" in name:
        return any(name in listed for listed in names if "experts" in listed)
    return name in names


def pattern(text: str, *, where: str) -> Match | None:
    """A regular expression that matches at the start of a name; None where matching could take long.

    Patterns come from anyone: no repeated groups, no back references, no more than two loose repeats apart
    from ".*" at either end. Raises `ConfigError` for what is no regular expression.
    """
    body, anchored = _core(text)
    if re.search(r"\)[*+{]|\\[1-9]|\(\?P", body) or len(re.findall(r"[*+}]", body)) > _MAX_LOOSE:
        return None
    try:
        compiled = re.compile(body)
    except (re.error, OverflowError, RecursionError):
        raise ConfigError("ConfigInvalid", f"{where}: {text[:60]!r} is not a regular expression") from None
    found = compiled.match if anchored else compiled.search
    return lambda name: found(name) is not None


def _core(text: str) -> tuple[str, bool]:
    """The pattern without ".*" at its ends, and whether it must match at the start of a name."""
    if _chooses(text):
        return text, True
    trimmed = text.removesuffix("$")
    body = text if trimmed.endswith("\\.*") else trimmed.removesuffix(".*")
    body = text if body == trimmed else body
    return body.removeprefix(".*"), not body.startswith(".*")


def _chooses(text: str) -> bool:
    """Whether "|" stands outside all groups."""
    depth = 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "|" and depth == 0:
            return True
    return False


_WRAPPED: Final = (
    ("model.language_model.", "language_model.model."),
    ("model.vision_tower.", "vision_tower."),
    ("model.visual.", "visual."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("lm_head.", "language_model.lm_head."),
)
_WRAPPED_OLD: Final = (*_WRAPPED, ("model.", "language_model.model."))
_GEMMA4: Final = (
    ("model.vision_tower", "vision_tower"),
    ("model.embed_vision", "embed_vision"),
    ("model.audio_tower.", "audio_tower."),
    ("model.embed_audio.", "embed_audio."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model", "language_model.model"),
)

NAMINGS: Final[Mapping[str, Naming]] = {
    "Cohere2VisionForConditionalGeneration": Naming(prefixes=_WRAPPED[:-1]),
    "DeepseekV4ForCausalLM": Naming(
        texts=((".shared_experts.w2", ".shared_experts.down_proj"),),
        prefixes=(
            ("layers.", "model.layers."),
            ("embed.", "model.embed."),
            ("norm.", "model.norm."),
            ("hc_head", "model.hc_head"),
            ("mtp.", "model.mtp."),
        ),
    ),
    "FalconH1ForCausalLM": Naming(texts=(("mamba", "mamba.mamba"),)),
    "Gemma3ForConditionalGeneration": Naming(prefixes=_WRAPPED),
    "Gemma4ForConditionalGeneration": Naming(prefixes=_GEMMA4),
    "Glm4vForConditionalGeneration": Naming(prefixes=_WRAPPED),
    "Glm4vMoeForConditionalGeneration": Naming(prefixes=_WRAPPED),
    "GptOssForCausalLM": Naming(texts=((".self_attn.", ".attn."),)),
    "JambaForCausalLM": Naming(texts=((".self_attn.", "."),)),
    "KimiK25ForConditionalGeneration": Naming(
        prefixes=(
            ("language_model.layers.", "language_model.model.layers."),
            ("mm_projector.proj.0", "mm_projector.linear_1"),
            ("mm_projector.proj.2", "mm_projector.linear_2"),
        )
    ),
    "Lfm2ForCausalLM": Naming(texts=((".conv.", ".short_conv."),)),
    "Lfm2MoeForCausalLM": Naming(texts=((".conv.", ".short_conv."),)),
    "Lfm2VlForConditionalGeneration": Naming(prefixes=_WRAPPED),
    "LlavaForConditionalGeneration": Naming(prefixes=_WRAPPED),
    "LlavaNextForConditionalGeneration": Naming(prefixes=_WRAPPED),
    "LlavaOnevisionForConditionalGeneration": Naming(prefixes=_WRAPPED),
    "Mistral3ForConditionalGeneration": Naming(prefixes=_WRAPPED_OLD),
    "NemotronHForCausalLM": Naming(
        texts=(("embeddings", "embed_tokens"),), prefixes=(("backbone", "model"),)
    ),
    "PaliGemmaForConditionalGeneration": Naming(prefixes=_WRAPPED),
    "Qwen2VLForConditionalGeneration": Naming(prefixes=_WRAPPED_OLD),
    "Qwen2_5_VLForConditionalGeneration": Naming(prefixes=_WRAPPED_OLD),
    "Qwen3VLForConditionalGeneration": Naming(prefixes=_WRAPPED),
    "Qwen3VLMoeForConditionalGeneration": Naming(prefixes=_WRAPPED),
    "Qwen3_5ForCausalLM": Naming(prefixes=(("model.language_model.", "model."),)),
    "Qwen3_5ForConditionalGeneration": Naming(prefixes=_WRAPPED),
    "Qwen3_5MoeForCausalLM": Naming(prefixes=(("model.language_model.", "model."),)),
    "Qwen3_5MoeForConditionalGeneration": Naming(prefixes=_WRAPPED),
    "Step3p5ForCausalLM": Naming(texts=((".share_expert.", ".moe.share_expert."),)),
}
"""By architecture; the others call their modules as the engine does."""
