"""GPTQ checkpoints (the engine's `auto_gptq`).

vllm/model_executor/layers/quantization/auto_gptq.py, utils/gptq_utils.py, moe_wna16.py (0.32.0).

The engine also looks into the checkpoint for layers that it left as they were; config.json does not tell
them, and what it does not list counts as quantized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tonnage.models.fields import Fields
from tonnage.models.parameters import MODEL, Dimension, Parameter, Rounding, whole
from tonnage.models.quantization.formats import Format, inputs
from tonnage.models.quantization.integers import WORD, WORD_BITS
from tonnage.models.quantization.names import Match, matches_parts, parts_of, pattern
from tonnage.models.quantization.packed import ExpertGroups, group_of
from tonnage.models.quantization.select import Declaration, Module, Selected, unsupported
from tonnage.models.schemes import Experts, Matrix, Scheme, Unquantized, bias_of

_MAX_LISTED: Final = 4096
_MAX_RULES: Final = 64
_PLAIN: Final = Unquantized()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gptq:
    """Values packed along the inputs in 32-bit words; scales and zero points for `group` inputs (None: all
    of them)."""

    bits: int
    group: int | None

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """Weight, scales, zero points, bias. Raises `ConfigError`."""
        per = WORD_BITS // self.bits
        groups = Dimension((whole(1),)) if self.group is None else inputs(matrix, self.group)
        return (
            Parameter(WORD, (inputs(matrix, per), Dimension(matrix.rows))),
            Parameter(MODEL, (groups, Dimension(matrix.rows))),
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
    if rules is None:
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
    """gptq_utils.py `is_layer_gptq_quantized`: a part of the name is enough; no list means all."""

    def listed(module: str) -> bool:
        return any(part in module for part in quantized)

    if not quantized:
        return True
    return matches_parts(name, listed) if parts_of(name) else listed(name)
