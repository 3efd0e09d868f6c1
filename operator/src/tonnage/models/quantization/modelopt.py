"""ModelOpt checkpoints: FP8, NVFP4, MXFP8, and layers of several of them.

vllm/model_executor/layers/quantization/modelopt.py (0.32.0). The declaration is either ModelOpt's own file
("quantization" inside) or what newer exports write into config.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from typing import Final

from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields
from tonnage.models.parameters import MODEL
from tonnage.models.quantization.formats import FLOAT32, Format
from tonnage.models.quantization.fp4 import NVFP4_GROUP, Mxfp8, Nvfp4
from tonnage.models.quantization.fp8 import BlockFp8, ChannelFp8, TensorFp8
from tonnage.models.quantization.names import MAX_NAMES, Match, Naming, listed_exactly, parts_of, texts
from tonnage.models.quantization.select import KV_SCALES, Declaration, Module, Selected, unsupported
from tonnage.models.schemes import Scheme, Unquantized

ALGORITHMS: Final = {
    "FP8": "modelopt",
    "FP8_PER_CHANNEL_PER_TOKEN": "modelopt",
    "FP8_PB_WO": "modelopt",
    "NVFP4": "modelopt_fp4",
    "W4A16_NVFP4": "modelopt_fp4",
    "MXFP8": "modelopt_mxfp8",
}
"""The algorithms of linear layers and the engine's method of each (`LINEAR_ALGOS`)."""

MIXED: Final = "MIXED_PRECISION"
_BLOCK_EXPERTS: Final = ("FP8_PB_WO", "FP8_BLOCK_SCALES")
_UNPLANNED: Final = ("IQ2_XS", "IQ2_XXS", "Q8_0")
_TOWERS: Final = ("vision_tower", "vision_model", "vit_large_projector")
_TILE: Final = 128
_PLAIN: Final = Unquantized()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """The fields that both spellings of a declaration have; `keys` are those of ModelOpt's own file."""

    algorithm: str
    kv_algorithm: str | None
    excluded: Match
    group: int | None
    inner: Fields
    keys: frozenset[str] | None


def algorithm_of(fields: Fields) -> str | None:
    """`quant_algo` in capitals, "" where there is none, None where the declaration is not ModelOpt's
    (`_extract_modelopt_quant_algo`). Raises `ConfigError`."""
    method = (fields.optional_text("quant_method") or "").lower()
    if not method.startswith("modelopt"):
        return None
    inner = fields.raw("quantization")
    where = Fields(inner, where="quantization") if isinstance(inner, dict) else fields
    return str(where.optional_text("quant_algo") or "").upper()


def read_modelopt(declaration: Declaration) -> Scheme | None:
    """The scheme of one algorithm for all layers. Raises `ConfigError`."""
    read = _read(_as_modelopt(declaration.fields), declaration.naming)
    algorithm = read.algorithm
    if ALGORITHMS.get(algorithm) != _owner(declaration.method):
        raise unsupported(f"quant_algo {algorithm[:40]} is not one of {declaration.method}")
    _check_required(read)
    if algorithm == "NVFP4" and _weights_only(declaration.fields):
        algorithm = "W4A16_NVFP4"
    if (read.group or NVFP4_GROUP) != NVFP4_GROUP and "NVFP4" in algorithm:
        return None
    linear, experts = LINEAR[algorithm], _experts(algorithm)

    def choose(name: str, module: Module) -> Format:
        if read.excluded(name) or any(tower in name for tower in _TOWERS):
            return _PLAIN
        return experts if module is Module.EXPERTS else linear

    return Selected(choose, attention=KV_SCALES)


def read_mixed(declaration: Declaration) -> Scheme | None:
    """The scheme of a checkpoint that names an algorithm for each layer. Raises `ConfigError`."""
    fields = _mixed_fields(declaration)
    read = _read(fields, declaration.naming)
    layers = _layers(read.inner, declaration.naming)
    if layers is None or (read.group or NVFP4_GROUP) != NVFP4_GROUP:
        return None
    block = _block(layers)
    find = _Layers({name: layer.algorithm for name, layer in layers.items()}).algorithm

    def choose(name: str, module: Module) -> Format:
        if read.excluded(name):
            return _PLAIN
        algorithm = find(name)
        if algorithm is None:
            return _PLAIN
        if module is not Module.EXPERTS:
            return LINEAR.get(algorithm, _PLAIN)
        return block if algorithm in _BLOCK_EXPERTS else EXPERTS.get(algorithm, _PLAIN)

    attention = KV_SCALES if read.kv_algorithm and not declaration.latent else ()
    return Selected(choose, attention=attention)


LINEAR: Final[Mapping[str, Format]] = {
    "FP8": TensorFp8(static=True),
    "FP8_PER_CHANNEL_PER_TOKEN": ChannelFp8(),
    "FP8_PB_WO": BlockFp8(rows=_TILE, columns=_TILE),
    "NVFP4": Nvfp4(input_scale=FLOAT32),
    "W4A16_NVFP4": Nvfp4(input_scale=MODEL),
    "MXFP8": Mxfp8(),
}
"""The format of a linear layer by algorithm (`resolve`). Layers of W4A16_NVFP4 have room for an input scale
that some exports store."""

EXPERTS: Final[Mapping[str, Format]] = {
    "FP8": TensorFp8(static=True),
    "NVFP4": Nvfp4(),
    "W4A16_NVFP4": Nvfp4(global_inputs=False),
    "MXFP8": Mxfp8(),
}


def _experts(algorithm: str) -> Format:
    """The experts of a declaration of one algorithm: every FP8 one has scales for whole matrices."""
    return EXPERTS.get(algorithm, EXPERTS["FP8"])


def _owner(method: str) -> str:
    return "modelopt_mxfp8" if method == "mxfp8" else method


def _as_modelopt(fields: Fields) -> Fields:
    """`mxfp8` declarations without ModelOpt's keys (`ModelOptMxFp8Config.from_config`)."""
    if fields.raw("quantization") is not None or fields.raw("quant_algo"):
        return fields
    if (fields.optional_text("quant_method") or "").lower() not in ("mxfp8", "modelopt_mxfp8"):
        return fields
    inner = {
        "quant_algo": "MXFP8",
        "kv_cache_quant_algo": fields.raw("kv_cache_quant_algo"),
        "exclude_modules": fields.raw("ignored_layers"),
    }
    return Fields({"quantization": inner}, where="config.json quantization_config")


def _read(fields: Fields, naming: Naming) -> _Read:
    own = fields.optional_object("quantization")
    inner = fields if own is None else Fields(own, where="quantization")
    algorithm = (inner.optional_text("quant_algo") or "").upper()
    if not algorithm:
        raise unsupported("the ModelOpt declaration has no quant_algo")
    if algorithm not in (*ALGORITHMS, MIXED):
        raise unsupported(f"quant_algo {algorithm[:40]}: the engine serves {', '.join(ALGORITHMS)}, {MIXED}")
    kv_algorithm = _kv_scheme(fields) if own is None else inner.optional_text("kv_cache_quant_algo")
    return _Read(
        algorithm=algorithm,
        kv_algorithm=kv_algorithm,
        excluded=_excluded(texts(inner, "ignore" if own is None else "exclude_modules"), naming),
        group=_group(inner),
        inner=inner,
        keys=None if own is None else frozenset(own),
    )


def _kv_scheme(fields: Fields) -> str | None:
    scheme = fields.raw("kv_cache_scheme")
    if isinstance(scheme, dict) and scheme.get("type") == "float" and scheme.get("num_bits") == 8:
        return "FP8"
    return None


def _group(fields: Fields) -> int | None:
    value = fields.raw("group_size")
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}", value):
        return int(value)
    return fields.optional_integer("group_size", low=1, high=2**16)


def _check_required(read: _Read) -> None:
    required = {
        "modelopt_fp4": ("group_size", "kv_cache_quant_algo", "exclude_modules"),
        "modelopt_mxfp8": ("kv_cache_quant_algo", "exclude_modules"),
    }.get(ALGORITHMS[read.algorithm], ())
    missing = [key for key in required if read.keys is not None and key not in read.keys]
    if missing:
        raise unsupported(f"the ModelOpt declaration lacks {', '.join(missing)}")


def _weights_only(fields: Fields) -> bool:
    """NVFP4 declared with no group that quantizes its inputs."""
    groups = fields.raw("config_groups")
    return (
        isinstance(groups, dict)
        and bool(groups)
        and all(
            isinstance(group, dict) and group.get("input_activations") is None for group in groups.values()
        )
    )


def _excluded(listed: tuple[str, ...], naming: Naming) -> Match:
    """`is_layer_excluded`: whole names, parts of names, and patterns with wildcards."""
    split: list[str] = []
    for name in listed:
        tree = len(name) >= 2 and name[-1] == "*" and name[-2] != "."
        split += [name[:-1], f"{name[:-1]}.*"] if tree else [name]
    names = naming.all(split)
    exact = frozenset(names)
    wild = [re.compile(translate(name)).match for name in exact if re.search(r"[*?\[]", name)]
    parts = [name for name in exact if "*" not in name]

    def excluded(name: str) -> bool:
        bare = name.removeprefix("language_model.")
        return (
            listed_exactly(name, exact)
            or any(part != name and (part in name or part in bare) for part in parts)
            or any(match(name) for match in wild)
        )

    return excluded


@dataclass(frozen=True, slots=True)
class _Layer:
    algorithm: str
    group: int | None


def _mixed_fields(declaration: Declaration) -> Fields:
    """Where the layers are listed: config.json, or ModelOpt's file (model_loader/weight_utils.py
    `get_quant_config`)."""
    if declaration.fields.raw("quantized_layers") is not None:
        return declaration.fields
    beside = declaration.hf_quant_config
    if beside is None:
        raise unsupported(
            "quantization_config lists no quantized_layers, and hf_quant_config.json is missing"
        )
    fields = Fields(beside, where="hf_quant_config.json")
    producer = Fields(fields.optional_object("producer") or {}, where="hf_quant_config.json producer")
    if producer.optional_text("name") != "modelopt":
        raise unsupported("hf_quant_config.json is not ModelOpt's")
    return fields


def _layers(fields: Fields, naming: Naming) -> dict[str, _Layer] | None:
    """The layers by the engine's names; None where an algorithm is not planned."""
    listed = fields.optional_object("quantized_layers")
    if not listed:
        raise unsupported("quantized_layers is empty")
    if len(listed) > 64 * MAX_NAMES:
        fields.fail("quantized_layers", f"lists more than {64 * MAX_NAMES} layers")
    found = {}
    for name, value in listed.items():
        recipe = Fields(value if isinstance(value, dict) else {}, where="quantized_layers")
        algorithm = (recipe.optional_text("quant_algo") or "").upper()
        if not algorithm:
            raise unsupported(f"quantized_layers: {name[:60]} has no quant_algo")
        if algorithm in _UNPLANNED or ("NVFP4" in algorithm and (_group(recipe) or 16) != NVFP4_GROUP):
            return None
        found[naming.of(name)] = _Layer(algorithm, _group(recipe))
    return found


def _block(layers: Mapping[str, _Layer]) -> BlockFp8:
    sizes = {layer.group or _TILE for layer in layers.values() if layer.algorithm in _BLOCK_EXPERTS}
    if len(sizes) > 1:
        raise unsupported(f"quantized_layers: tiles of several sizes: {sorted(sizes)[:4]}")
    size = next(iter(sizes), _TILE)
    return BlockFp8(rows=size, columns=size)


class _Layers:
    """`_resolve_quant_algo`: the algorithm of an engine's module among the listed layers."""

    def __init__(self, algorithms: Mapping[str, str]) -> None:
        self._exact = algorithms
        self._below: dict[str, str] = {}
        for name, algorithm in algorithms.items():
            for position in (index for index, letter in enumerate(name) if letter == "."):
                self._below.setdefault(name[:position], algorithm)

    def algorithm(self, name: str) -> str | None:
        """The algorithm, None for layers that are not listed. Raises `ConfigError`."""
        spellings = _spellings(name)
        steps: tuple[Callable[[str], str | None], ...] = (
            self._exact.get,
            self._of_parts,
            self._below.get,
            self._of_parent,
        )
        for step in steps:
            for spelling in spellings:
                found = step(spelling)
                if found is not None:
                    return found
        return None

    def _of_parts(self, name: str) -> str | None:
        for parts in parts_of(name):
            found = {self._exact[part] for part in parts if part in self._exact}
            if len(found) > 1:
                raise ConfigError(
                    "ConfigInvalid",
                    f"config.json: quantized_layers gives the parts of {name[:100]} several algorithms; the "
                    "engine refuses that",
                )
            if found:
                return found.pop()
        return None

    def _of_parent(self, name: str) -> str | None:
        """Experts are listed with the projections of their layer in some exports."""
        return self._below.get(name.removesuffix(".experts")) if name.endswith(".experts") else None


def _spellings(name: str) -> tuple[str, ...]:
    """`_quantized_layer_prefix_candidates`."""
    found = [name]
    if name.endswith(".lm_head"):
        found.append("lm_head")
    if name.startswith("language_model.model."):
        found.append("model.language_model." + name.removeprefix("language_model.model."))
    elif name.startswith("model.language_model."):
        found.append("language_model.model." + name.removeprefix("model.language_model."))
    return tuple(dict.fromkeys(found))
