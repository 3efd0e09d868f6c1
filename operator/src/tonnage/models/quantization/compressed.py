"""compressed-tensors checkpoints: groups of modules, each with its own format.

vllm/model_executor/layers/quantization/compressed_tensors/compressed_tensors.py and utils.py (0.32.0),
compressed_tensors 0.17 quantization/quant_args.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tonnage.models.fields import Fields
from tonnage.models.parameters import MODEL, Parameter
from tonnage.models.quantization.formats import FLOAT32, Format, vector
from tonnage.models.quantization.fp4 import MX_GROUP, NVFP4_GROUP, Mxfp4, Mxfp8, Nvfp4
from tonnage.models.quantization.fp8 import BlockFp8, ChannelFp8, TensorFp8
from tonnage.models.quantization.integers import Int8, PackedInt
from tonnage.models.quantization.names import MAX_PATTERNS, Match, Naming, matches, parts_of, pattern, texts
from tonnage.models.quantization.select import Declaration, Module, Selected, unsupported
from tonnage.models.schemes import Scheme, Unquantized

_WHERE: Final = "config.json quantization_config"
_PACKED_FORMAT: Final = "pack-quantized"
_ACTIVATION_FORMATS: Final = ("naive-quantized", "int-quantized", "float-quantized", "nvfp4-pack-quantized")
_LINEAR: Final = "linear"
_EXPERTS: Final = "RoutedExperts"
_HEAD: Final = "parallellmhead"
_EMBEDDING: Final = "vocabparallelembedding"
_TABLES: Final = ("model.embed_tokens", "language_model.model.embed_tokens")
_EXPERT_PARTS: Final = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"))
_MAX_GROUPS: Final = 64
_PLAIN: Final = Unquantized()

KV_SCALES: Final[tuple[Parameter, ...]] = (vector(FLOAT32, 1),) * 3 + (vector(MODEL, 1),) * 3
"""Scales and zero points of queries, keys and values (`CompressedTensorsKVCacheMethod`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """`QuantizationArgs`: how weights or inputs are quantized."""

    bits: int
    floating: bool
    symmetric: bool
    strategy: str
    group: int | None
    block: tuple[int, int] | None
    dynamic: bool
    byte_scale: bool


@dataclass(frozen=True, slots=True)
class _Target:
    """One entry of a group's `targets`: a module, a pattern for modules, or a class."""

    name: str
    match: Match
    kind: str
    format: Format


def read_compressed(declaration: Declaration) -> Scheme | None:
    """The scheme of a compressed-tensors checkpoint. Raises `ConfigError`."""
    fields = declaration.fields
    ignored = _matches(_named(texts(fields, "ignore"), declaration.naming))
    targets = _targets(fields, declaration.naming)
    if ignored is None or targets is None or fields.raw("transform_config"):
        return None
    _check_sparsity(fields)
    attention = _attention(fields, declaration)
    if attention is None:
        return None

    def choose(name: str, module: Module) -> Format:
        if module is Module.EXPERTS:
            return _experts(name, targets, ignored)
        return _PLAIN if matches(name, ignored) else _of_target(name, module, targets)

    return Selected(choose, attention=attention)


def kv_dtype_of(fields: Fields) -> str | None:
    """The KV dtype of plain attention layers (attention/attention.py `Attention.__init__`)."""
    return "fp8" if fields.optional_object("kv_cache_scheme") else None


def _attention(fields: Fields, declaration: Declaration) -> tuple[Parameter, ...] | None:
    """Scales of attention layers; None for a scale per head, which is not planned."""
    stated = fields.optional_object("kv_cache_scheme")
    if declaration.latent:
        return ()
    if stated is None:
        return KV_SCALES
    scheme = Fields(stated, where=f"{_WHERE} kv_cache_scheme")
    strategy = scheme.optional_text("strategy")
    kind = (scheme.optional_text("type"), scheme.optional_integer("num_bits", low=1, high=64))
    if kind != ("float", 8) or strategy not in ("tensor", "attn_head") or not scheme.flag("symmetric"):
        raise unsupported(
            "kv_cache_scheme: the engine serves 8-bit floats, symmetric, with a scale per tensor or head"
        )
    return KV_SCALES if strategy == "tensor" else None


def _check_sparsity(fields: Fields) -> None:
    sparsity = fields.optional_object("sparsity_config")
    if sparsity and sparsity.get("targets"):
        raise unsupported("sparsity_config: the engine no longer serves sparse checkpoints")


def _named(names: Sequence[str], naming: Naming) -> list[str]:
    """Module paths as the engine calls them; classes and patterns stay (`apply_vllm_mapper`)."""
    return [naming.of(name) if "." in name and not name.startswith("re:") else name for name in names]


def _matches(names: Sequence[str]) -> Match | None:
    """Whether any of the names or patterns is a module's; None where a pattern is not read."""
    exact = frozenset(name for name in names if not name.startswith("re:"))
    patterns = [pattern(name[3:], where=_WHERE) for name in names if name.startswith("re:")]
    read = [each for each in patterns if each is not None]
    if len(read) < len(patterns) or len(patterns) > MAX_PATTERNS:
        return None
    return lambda name: name in exact or any(match(name) for match in read)


def _targets(fields: Fields, naming: Naming) -> list[_Target] | None:
    """The targets of all groups in their order; None where one is not planned. Raises `ConfigError`."""
    groups = fields.optional_object("config_groups") or {}
    overall = fields.optional_text("format")
    found: dict[str, _Target] = {}
    if len(groups) > _MAX_GROUPS:
        fields.fail("config_groups", f"holds more than {_MAX_GROUPS} groups")
    for value in groups.values():
        group = Fields(value if isinstance(value, dict) else {}, where=f"{_WHERE} config_groups")
        names = texts(group, "targets")
        if len(names) == 1 and names[0].endswith("Attention"):
            continue
        made = _format_of(group, overall) if names else None
        for name in _named(names, naming):
            target = _target(name, made)
            if target is None:
                return None
            found[name] = target
    return list(found.values())


def _target(name: str, made: Format | None) -> _Target | None:
    """A target, None where what it means or its format is not planned."""
    match = _matches([name])
    kind = name.lower()
    ambiguous = not name.startswith("re:") and "." not in name and _LINEAR in kind and kind != _LINEAR
    if made is None or match is None or ambiguous:
        return None
    if kind in _EMBEDDING or any(match(path) for path in _TABLES):
        return None
    return _Target(name, match, kind, made)


def _of_target(name: str, module: Module, targets: Sequence[_Target]) -> Format:
    """`find_matched_target`: by name, by the names of all parts, by class."""
    named = next((target.format for target in targets if target.match(name)), None)
    if named is not None:
        return named
    for parts in parts_of(name):
        found = [next((target for target in targets if target.match(part)), None) for part in parts]
        if found[0] is not None and all(target is not None for target in found):
            return found[0].format
    of_class = _HEAD if module is Module.HEAD else _LINEAR
    return next((target.format for target in targets if target.kind in of_class), _PLAIN)


def _experts(name: str, targets: Sequence[_Target], ignored: Match) -> Format:
    """`get_moe_method`: the format of the first expert's projections; "Linear" means experts too."""
    for parts in _EXPERT_PARTS:
        members = [f"{name}.0.{part}" for part in parts]
        if all(ignored(member) for member in members):
            return _PLAIN
        found = [next((target for target in targets if target.match(member)), None) for member in members]
        if found[0] is not None and all(target is not None for target in found):
            return found[0].format
    classes = (_EXPERTS.lower(), _LINEAR)
    return next((target.format for target in targets if target.kind in classes), _PLAIN)


def _format_of(group: Fields, overall: str | None) -> Format | None:
    """The format of one group (`_get_scheme_from_parts`); None where it is not planned."""
    weights = _arguments(group, "weights")
    if weights is None:
        raise unsupported("config_groups: a group without weights")
    inputs = _arguments(group, "input_activations")
    style = group.optional_text("format") or overall
    if group.optional_object("output_activations"):
        return None
    if weights.floating:
        return _floating(weights, inputs, style)
    if weights.strategy in ("channel", "group") and inputs is None and style == _PACKED_FORMAT:
        return _packed(weights)
    if weights.bits == 8 and inputs is not None and style in _ACTIVATION_FORMATS:
        return _int8(weights, inputs)
    return None


def _floating(weights: Arguments, inputs: Arguments | None, style: str | None) -> Format | None:
    if not weights.symmetric or weights.dynamic:
        return None
    grouped = (weights.bits, weights.strategy, weights.group)
    if grouped == (4, "tensor_group", NVFP4_GROUP):
        return Nvfp4(input_scale=None if inputs is None else FLOAT32, global_inputs=False)
    if grouped == (4, "group", MX_GROUP):
        return Mxfp4() if inputs is None or inputs.bits == 4 else None
    if grouped == (8, "group", MX_GROUP) and weights.byte_scale:
        return Mxfp8()
    if weights.bits != 8 or style not in _ACTIVATION_FORMATS:
        return None
    static = inputs is not None and not inputs.dynamic
    if weights.strategy == "tensor":
        return TensorFp8(static=static)
    if weights.strategy == "channel":
        return ChannelFp8(static=static)
    if weights.strategy == "block" and weights.block is not None and not static:
        return BlockFp8(rows=weights.block[0], columns=weights.block[1], strict=True)
    return None


def _packed(weights: Arguments) -> Format | None:
    if weights.dynamic or weights.bits not in (2, 4, 8):
        return None
    return PackedInt(
        bits=weights.bits,
        group=weights.group if weights.strategy == "group" else None,
        symmetric=weights.symmetric,
    )


def _int8(weights: Arguments, inputs: Arguments) -> Format | None:
    if inputs.bits != 8 or inputs.floating or not weights.symmetric or weights.dynamic:
        return None
    if weights.strategy not in ("tensor", "channel"):
        return None
    if (inputs.strategy, inputs.dynamic) not in (("tensor", False), ("token", True)):
        return None
    return Int8(
        per_output=weights.strategy == "channel", static=not inputs.dynamic, symmetric=inputs.symmetric
    )


def _arguments(group: Fields, key: str) -> Arguments | None:
    """`QuantizationArgs` with its defaults. Raises `ConfigError`."""
    stated = group.optional_object(key)
    if stated is None:
        return None
    fields = Fields(stated, where=f"{_WHERE} config_groups {key}")
    if _ordered(fields):
        raise unsupported("config_groups: actorder group or dynamic, which the engine no longer serves")
    size = fields.optional_integer("group_size", low=-1, high=2**20)
    bits = fields.optional_integer("num_bits", low=1, high=32)
    kind = (fields.optional_text("type") or "int").lower()
    return Arguments(
        bits=8 if bits is None else bits,
        floating=kind == "float",
        symmetric=fields.raw("symmetric") is None or fields.flag("symmetric"),
        strategy=_strategy(fields, size),
        group=size if size is not None and size > 0 else None,
        block=_block(fields),
        dynamic=_dynamic(fields),
        byte_scale=(fields.optional_text("scale_dtype") or "").endswith("uint8"),
    )


def _strategy(fields: Fields, size: int | None) -> str:
    stated = fields.optional_text("strategy")
    grouped = size is not None and size > 0
    strategy = stated.lower() if stated else "group" if grouped else "tensor" if size is None else "channel"
    if (strategy in ("group", "tensor_group")) is not grouped:
        raise unsupported(f"config_groups: strategy {strategy[:40]} with group_size {size}")
    return strategy


def _block(fields: Fields) -> tuple[int, int] | None:
    value = fields.raw("block_structure")
    if isinstance(value, str):
        value = [int(side) if side.isascii() and side.isdigit() else 0 for side in value[:20].split("x")]
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        fields.fail("block_structure", "is not two sizes")
    sides = [side for side in value if isinstance(side, int) and not isinstance(side, bool)]
    if len(sides) != 2 or not all(1 <= side <= 2**16 for side in sides):
        fields.fail("block_structure", "is not two sizes")
    return sides[0], sides[1]


def _dynamic(fields: Fields) -> bool:
    value = fields.raw("dynamic")
    if isinstance(value, str):
        return True
    return fields.flag("dynamic")


def _ordered(fields: Fields) -> bool:
    value = fields.raw("actorder")
    return value is True or (isinstance(value, str) and value.lower() in ("group", "dynamic"))
