"""The one error of this room."""

from __future__ import annotations


class ConfigError(Exception):
    """A model's files cannot be used: `reason` for programs (CamelCase), `message` for people.

    Reasons: ConfigUnreadable (not JSON, or past a limit), ConfigInvalid (a field is missing, of the wrong
    type or absurd), UnknownArchitecture, UnsupportedAttention (known, but its cache is not planned yet),
    WeightsInvalid, ProfileInvalid (the wire form).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
