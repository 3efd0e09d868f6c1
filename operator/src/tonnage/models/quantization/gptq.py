"""GPTQ checkpoints (the engine's `auto_gptq`).

vllm/model_executor/layers/quantization/auto_gptq.py, utils/gptq_utils.py, moe_wna16.py (0.32.0).

Where config.json lists no modules, the engine looks into the checkpoint for those that are quantized: all but
what exports leave alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tonnage.models.fields import Fields
from tonnage.models.parameters import MODEL, Dimension, Parameter, Rounding, whole
from tonnage.models.quantization.formats import Format
from tonnage.models.quantization.integers import WORD, WORD_BITS
from tonnage.models.quantization.names import Match, left_alone, matches_parts, parts_of, pattern
from tonnage.models.quantization.packed import ExpertGroups, group_of
from tonnage.models.quantization.select import Declaration, Module, Selected, unsupported
from tonnage.models.schemes import Experts, Matrix, Scheme, Unquantized, bias_of

_MAX_LISTED: Final = 4096
_MAX_RULES: Final = 64
_PLAIN: Final = Unquantized()

_EXPERTS: Final = tuple(
    f"{prefix}model.layers.{layer}.{path}.experts"
    for prefix in ("", "language_model.")
    for layer in range(128)
    for path in ("mlp", "block_sparse_moe", "feed_forward")
)
"""Names of routed experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gptq:
    """Values packed along the inputs in 32-bit words; scales and zero points for `group` inputs (None: all
    of them)."""

    bits: int
    group: int | None

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """Weight, scales, zero points, bias."""
        per = WORD_BITS // self.bits
        rows = Dimension(matrix.rows)
        groups = Dimension((whole(1),))
        if self.group is not None:
            groups = Dimension((matrix.columns,), self.group, Rounding.DOWN)
        return (
            Parameter(WORD, (Dimension((matrix.columns,), per, Rounding.DOWN), rows)),
            Parameter(MODEL, (groups, rows)),
            Parameter(WORD, (groups, Dimension(matrix.rows, per, Rounding.DOWN))),
            *bias_of(matrix),
        )

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """Weights and scales; zero points and biases for Marlin, whose groups must fit a rank's share: other
        shares go to a kernel that cuts the groups (moe_wna16.py). Raises `ConfigError`."""
        groups = ExpertGroups(experts, group=self.group)
        per = WORD_BITS // self.bits
        hidden = Dimension((groups.hidden,), per, Rounding.DOWN)
        intermediate = Dimension((groups.intermediate,), per, Rounding.EXACT)
        return (
            Parameter(WORD, (hidden, groups.inward), experts.count),
            Parameter(WORD, (intermediate, groups.outward), experts.count),
            *groups.scales(),
            *groups.marlin_only(*groups.zeros(per), *groups.biases()),
        )


@dataclass(frozen=True, slots=True)
class _Rule:
    """One entry of `dynamic`: the format of the modules it matches, None for modules left as they are."""

    match: Match
    format: Format | None


def read_gptq(declaration: Declaration) -> Scheme | None:
    """The scheme of a GPTQ checkpoint. Raises `ConfigError`."""
    fields = declaration.fields
    base = _format(fields, Fields({}, where="config.json quantization_config dynamic"))
    rules = _rules(fields)
    if rules is None or (_has_experts(declaration.text) and _name_experts(rules)):
        return None
    quantized = declaration.naming.all(_listed(fields))
    head = fields.flag("lm_head")

    def choose(name: str, module: Module) -> Format:
        if module is Module.HEAD and not head:
            return _PLAIN
        if module is not Module.EXPERTS and not _is_quantized(name, quantized):
            return _PLAIN
        return next((rule.format or _PLAIN for rule in rules if rule.match(name)), base)

    return Selected(choose)


def _has_experts(text: Fields) -> bool:
    counts = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    return any(text.raw(name) for name in counts)


def _name_experts(rules: Sequence[_Rule]) -> bool:
    """Whether rules are for routed experts too, which is not planned: the engine forgets them where the
    groups of other layers do not fit a rank's share (`get_quant_method`)."""
    return any(rule.match(name) for rule in rules for name in _EXPERTS)


def _format(fields: Fields, overrides: Fields) -> Gptq:
    """The format of the declaration with the overrides of one rule. Raises `ConfigError`."""
    for key in ("bits", "group_size", "desc_act", "sym"):
        if fields.raw(key) is None:
            raise unsupported(f"quantization_config lacks {key}, which the engine needs for GPTQ")
    bits = overrides.optional_integer("bits", low=1, high=32) or fields.integer("bits", low=1, high=32)
    group = group_of(fields, "group_size")
    if overrides.raw("group_size") is not None:
        group = group_of(overrides, "group_size")
    ordered = (overrides if overrides.raw("desc_act") is not None else fields).flag("desc_act")
    symmetric = (overrides if overrides.raw("sym") is not None else fields).flag("sym")
    if bits not in (4, 8) or not symmetric:
        raise unsupported(
            f"GPTQ with {bits} bits and sym {symmetric}: the engine serves 4 or 8 bits, symmetric"
        )
    if ordered and group is not None:
        raise unsupported("GPTQ with desc_act and groups: the engine no longer serves it")
    return Gptq(bits=bits, group=group)


def _rules(fields: Fields) -> list[_Rule] | None:
    """`dynamic` in its order; None where a pattern is not read."""
    dynamic = fields.optional_object("dynamic") or {}
    if len(dynamic) > _MAX_RULES:
        return None
    where = "config.json quantization_config dynamic"
    rules = []
    for key, value in dynamic.items():
        if len(key) > 400:
            return None
        match = pattern(key.removeprefix("-:").removeprefix("+:"), where=where)
        if match is None or not isinstance(value, dict):
            return None
        skips = key.startswith("-:")
        rules.append(_Rule(match, None if skips else _format(fields, Fields(value, where=where))))
    return rules


def _listed(fields: Fields) -> list[str]:
    """`modules_in_block_to_quantize`: names, or lists of names."""
    value = fields.raw("modules_in_block_to_quantize")
    found: list[str] = []
    for item in value if isinstance(value, list) else ():
        found += _flat(item)
        if len(found) > _MAX_LISTED:
            fields.fail("modules_in_block_to_quantize", f"holds more than {_MAX_LISTED} names")
    return found


def _flat(item: object) -> list[str]:
    inner = item if isinstance(item, list) else [item]
    return [name for name in inner if isinstance(name, str) and name]


def _is_quantized(name: str, quantized: Sequence[str]) -> bool:
    """gptq_utils.py `is_layer_gptq_quantized`: a part of the name is enough."""

    def listed(module: str) -> bool:
        return any(part in module for part in quantized)

    if not quantized:
        return not left_alone(name)
    return matches_parts(name, listed) if parts_of(name) else listed(name)
