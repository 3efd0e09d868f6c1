"""Keeps secrets out of what the worker writes: termination message, logs, capacity report. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

MASK = "[redacted]"
_SECRET_NAMES = frozenset(
    ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "KEY", "APIKEY", "CREDENTIAL", "CREDENTIALS")
)
_SHORTEST_SECRET = 6  # shorter values ("true", "0") are no secrets, and masking them would mangle the text
_SECRET_FORMS = re.compile(
    r"(?i)\bhf_[a-z0-9]{20,}|\bsk-[a-z0-9_-]{8,}|(?<=bearer )[^\s\"',]+|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"
)
_SECRET_FLAGS = ("--api-key", "--hf-token")


def secret_values(environment: Mapping[str, str], *, arguments: Sequence[str] = ()) -> frozenset[str]:
    """Values to mask: of variables with a word such as TOKEN in the name, and of secret arguments."""
    values = {value for name, value in environment.items() if _SECRET_NAMES & set(name.upper().split("_"))}
    values.update(_argument_values(arguments))
    return frozenset(value for value in values if len(value) >= _SHORTEST_SECRET)


def _argument_values(arguments: Sequence[str]) -> Iterable[str]:
    secret = False
    for argument in arguments:
        if argument.startswith("--"):
            name, _, value = argument.partition("=")
            secret = name in _SECRET_FLAGS
            if secret and value:
                yield value
        elif secret:
            yield argument


def redact(text: str, *, secrets: Iterable[str]) -> str:
    """The text without the given values and without anything that has the form of a token."""
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, MASK)
    return _SECRET_FORMS.sub(MASK, text)
