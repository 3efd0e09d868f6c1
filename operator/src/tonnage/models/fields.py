"""Reading values out of JSON that anyone may have written: types, ranges and sizes are checked, nothing is
coerced."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Final, NoReturn

from tonnage.models.errors import ConfigError

MAX_JSON_BYTES: Final = 32 * 2**20
"""The largest file read as JSON; published configs reach 3 MB, headers of one-file checkpoints 10 MB."""

_SHOWN: Final = 60


def parse_json(data: bytes, *, what: str, max_bytes: int = MAX_JSON_BYTES) -> dict[str, object]:
    """The JSON object in `data`; `what` names the file in errors. Raises `ConfigError` (ConfigUnreadable).

    NaN and Infinity, which JSON does not have but published configs do, are read; where a number is asked
    for, they are refused.
    """
    if len(data) > max_bytes:
        raise ConfigError(
            "ConfigUnreadable", f"{what} has {len(data)} bytes, more than the {max_bytes} allowed"
        )
    try:
        value = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ConfigError("ConfigUnreadable", f"{what} is nested too deeply") from None
    except ValueError as error:
        raise ConfigError("ConfigUnreadable", f"{what} is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise ConfigError("ConfigUnreadable", f"{what} holds {_type_name(value)}, not a JSON object")
    return value


class Fields:
    """A JSON object with defaults beneath it; each reader returns a checked value or raises `ConfigError`."""

    def __init__(
        self,
        values: Mapping[str, object],
        *,
        where: str,
        defaults: Mapping[str, object] | None = None,
        reason: str = "ConfigInvalid",
    ) -> None:
        self._values = values
        self._defaults = defaults or {}
        self._where = where
        self._reason = reason

    def replaced(
        self,
        values: Mapping[str, object] | None = None,
        *,
        defaults: Mapping[str, object] | None = None,
    ) -> Fields:
        """The same object with `values` in place of its own, and with other `defaults` if they are given."""
        return Fields(
            {**self._values, **(values or {})},
            where=self._where,
            defaults=self._defaults if defaults is None else defaults,
            reason=self._reason,
        )

    def raw(self, name: str) -> object:
        """The value as it stands, the default where the key is absent, else None."""
        return self._values.get(name, self._defaults.get(name))

    def states(self, name: str) -> bool:
        """Whether the key is there or has a default, be it null."""
        return name in self._values or name in self._defaults

    def written(self, name: str) -> bool:
        """Whether the key itself is there and not null, be there a default or not."""
        return self._values.get(name) is not None

    def integer(self, name: str, *, low: int, high: int) -> int:
        """A required integer within [low, high]; true and 8.0 are not integers."""
        value = self.optional_integer(name, low=low, high=high)
        if value is None:
            self.fail(name, "is missing; it is needed to size the model")
        return value

    def optional_integer(self, name: str, *, low: int, high: int) -> int | None:
        """As `integer`, or None where it is absent or null."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(name, f"is {_show(value)}, not an integer")
        if not low <= value <= high:
            self.fail(name, f"is {_show(value)}, outside {low} to {high}")
        return value

    def optional_number(self, name: str, *, low: float, high: float) -> float | None:
        """A finite number within [low, high], or None where it is absent or null."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(name, f"is {_show(value)}, not a number")
        if not low <= value <= high or not math.isfinite(value):
            self.fail(name, f"is {_show(value)}, outside {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        """A boolean; absent or null is false."""
        value = self.raw(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            self.fail(name, f"is {_show(value)}, not true or false")
        return value

    def optional_text(self, name: str, *, max_length: int = 100) -> str | None:
        """A short string, or None where it is absent or null."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, str) or len(value) > max_length:
            self.fail(name, f"is {_show(value)}, not a string of at most {max_length} characters")
        return value

    def optional_texts(self, name: str, *, max_items: int) -> tuple[str, ...] | None:
        """A list of short strings, or None where it is absent or null."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) > max_items:
            self.fail(name, f"is {_show(value)}, not a list of at most {max_items} strings")
        if not all(isinstance(item, str) and len(item) <= 100 for item in value):
            self.fail(name, "holds something else than short strings")
        return tuple(value)

    def optional_object(self, name: str) -> dict[str, object] | None:
        """A JSON object, or None where it is absent or null."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.fail(name, f"is {_show(value)}, not an object")
        return value

    def fail(self, name: str, problem: str) -> NoReturn:
        """Raise the error about one field."""
        raise ConfigError(self._reason, f"{self._where}: {name} {problem}")


def _type_name(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _show(value: object) -> str:
    if isinstance(value, dict | list):
        return _type_name(value) if isinstance(value, list) else "an object"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**_SHOWN:
        return "an integer of more than 60 digits"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
