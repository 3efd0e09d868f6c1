"""What went wrong between the inspection and the hub, in words that say what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx2
from huggingface_hub.errors import HfHubHTTPError

from tonnage.models import ConfigError

_ANOTHER_WAY: Final = (
    "let pods of this namespace reach it, set hub.endpoint or hub.httpsProxy of the chart, or copy the model "
    "to a claim and write pvc://CLAIM/PATH"
)
_TRIED_AGAIN: Final = "it is tried again by itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for: a model at a revision, at an endpoint, with a token or without."""

    name: str
    revision: str
    endpoint: str
    with_token: bool

    @property
    def host(self) -> str:
        """The endpoint without credentials that may stand in it."""
        parts = urlsplit(self.endpoint)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}"


def is_passing(error: Exception) -> bool:
    """May the same request succeed a moment later?"""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, httpx2.TransportError) and not isinstance(
        error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError
    )


def retry_after(error: Exception) -> float:
    """Seconds that the server asks to wait; 0 if it does not say."""
    if not isinstance(error, HfHubHTTPError):
        return 0.0
    text = error.response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() and len(text) < 9 else 0.0


def explained(error: Exception, *, asked: Asked, file: str = "") -> ConfigError:
    """The error as the inspection reports it; of the server's own words none are repeated."""
    if isinstance(error, HfHubHTTPError):
        return _answered(error, asked=asked, file=file)
    if isinstance(error, httpx2.TooManyRedirects):
        return ConfigError(
            "HubRedirects", f"{asked.host} redirects in a circle: set hub.endpoint of the chart"
        )
    if isinstance(error, httpx2.TimeoutException):
        return ConfigError("HubUnreachable", f"{asked.host} does not answer in time: {_ANOTHER_WAY}")
    if isinstance(error, httpx2.TransportError | httpx2.InvalidURL):
        why = str(error)[:120] or type(error).__name__
        return ConfigError("HubUnreachable", f"{asked.host} cannot be reached ({why}): {_ANOTHER_WAY}")
    return ConfigError(
        "HubUnreadable",
        f"{asked.host} does not answer as a Hugging Face hub does ({type(error).__name__}): "
        "set hub.endpoint of the chart to one that does",
    )


def _answered(error: HfHubHTTPError, *, asked: Asked, file: str) -> ConfigError:
    status, code = error.response.status_code, error.response.headers.get("X-Error-Code", "")
    if code == "GatedRepo" or (status == 403 and code != "RepoNotFound"):
        return _not_allowed(asked)
    if status == 401:
        return _unauthorized(asked)
    if status == 404 and code == "RevisionNotFound":
        return ConfigError(
            "RevisionUnknown",
            f"{asked.name} has no revision {asked.revision!r}: set model.revision to a branch, tag or commit",
        )
    if status == 404 and file:
        return ConfigError(
            "ConfigMissing" if file == "config.json" else "WeightsMissing",
            f"{asked.name} at {asked.revision} has no {file}: is it a model that vLLM can load?",
        )
    if status == 404:
        return ConfigError("ModelUnknown", f"{asked.host} has no model {asked.name}: check model.uri")
    if status == 429:
        return ConfigError(
            "HubBusy",
            f"{asked.host} answers 429, too many requests: {_TRIED_AGAIN}; a token raises the limit",
        )
    if status >= 500:
        return ConfigError("HubFailing", f"{asked.host} answers HTTP {status}: {_TRIED_AGAIN}")
    return ConfigError("HubUnreadable", f"{asked.host} answers HTTP {status} for {asked.name}")


def _unauthorized(asked: Asked) -> ConfigError:
    if asked.with_token:
        return ConfigError(
            "TokenRejected",
            f"{asked.host} refuses the token for {asked.name} (401): put a valid token with read access into "
            "the Secret that model.tokenSecret names",
        )
    return ConfigError(
        "ModelNotAllowed",
        f"{asked.host} does not show {asked.name} (401): it does not exist, or is private; check model.uri, "
        "and set model.tokenSecret for a private model",
    )


def _not_allowed(asked: Asked) -> ConfigError:
    accept = f"ask for access at {asked.host}/{asked.name}"
    if asked.with_token:
        return ConfigError(
            "ModelNotAllowed",
            f"the token may not read {asked.name} (403), it is gated or private: {accept} with the token's "
            "account",
        )
    return ConfigError(
        "ModelNotAllowed",
        f"{asked.name} is gated (403): {accept}, and set model.tokenSecret",
    )
