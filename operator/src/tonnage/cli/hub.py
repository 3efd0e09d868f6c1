"""Small files of a model on the Hugging Face hub: config.json and its like, never weights."""

from __future__ import annotations

import os
import re
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from tonnage.models import parse_json
from tonnage.models.fields import MAX_JSON_BYTES

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}", re.ASCII)
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}", re.ASCII)
_SECONDS: Final = 20.0
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class HubError(Exception):
    """The hub did not give a file; `reason` is a word, the message says why and what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Hub:
    """One model at one revision. HF_ENDPOINT names a mirror, HF_TOKEN opens gated models; the token is sent
    to the endpoint alone, never to where it redirects, and never told."""

    def __init__(self, name: str, revision: str) -> None:
        if not _NAME.fullmatch(name) or not _REVISION.fullmatch(revision) or ".." in name + revision:
            raise HubError(
                "ModelUnknown", f"{name[:100]!r} at {revision[:100]!r} is not of the form OWNER/MODEL"
            )
        self._name: Final = name
        self._revision: Final = revision
        self.endpoint: Final = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        scheme, host = urlsplit(self.endpoint).scheme, urlsplit(self.endpoint).hostname
        if scheme != "https" and host not in _LOCAL:
            raise HubError("HubUnreachable", "HF_ENDPOINT must begin with https://")

    def json(self, file: str) -> dict[str, Any] | None:
        """The JSON object in a file, or None if the model has no such file. Raises `HubError`."""
        url = f"{self.endpoint}/{self._name}/resolve/{quote(self._revision, safe='')}/{file}"
        request = Request(url, headers={"User-Agent": "tonnage"})  # noqa: S310 - the scheme is checked above
        token = os.environ.get("HF_TOKEN", "").strip()
        if token:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        try:
            with urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                data = answer.read(MAX_JSON_BYTES + 1)
        except HTTPError as error:
            self._check_only_missing(error)
            return None
        except (URLError, HTTPException, OSError) as error:
            why = getattr(error, "reason", None) or type(error).__name__
            raise HubError(
                "HubUnreachable",
                f"{self.endpoint} cannot be reached ({str(why)[:120]}): without network name a directory, a "
                "config.json, or a model of the catalogue",
            ) from None
        return parse_json(data, what=file)

    def _check_only_missing(self, error: HTTPError) -> None:
        """Raise `HubError` unless it is only that the model has no such file."""
        missing = error.headers.get("X-Error-Code") in {"RepoNotFound", "RevisionNotFound"}
        if error.code == 404 and not missing:
            return
        if error.code in {401, 403}:
            raise HubError(
                "ModelNotAllowed",
                f"the hub does not show {self._name} (HTTP {error.code}): it does not exist, or it is gated: "
                "accept its licence there and set HF_TOKEN",
            )
        if error.code == 404:
            raise HubError("ModelUnknown", f"the hub has no {self._name} at revision {self._revision}")
        raise HubError("HubUnreachable", f"{self.endpoint} answered HTTP {error.code} for {self._name}")
