"""What an engine version does: defaults, KV dtypes it computes rightly, block sizes, overheads; data with
sources."""

from tonnage.engines.rules import KV_ELEMENT_BYTES, EngineRules
from tonnage.engines.versions import UnknownEngineVersionError, rules_for

__all__ = ["KV_ELEMENT_BYTES", "EngineRules", "UnknownEngineVersionError", "rules_for"]
