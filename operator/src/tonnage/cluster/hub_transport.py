"""How the inspection speaks HTTP: every answer is bounded in bytes, all of them together in time.

huggingface_hub reads answers whole and waits for ever by itself; what it is given here cannot be made to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final
from urllib.request import getproxies, proxy_bypass

import httpx2

from tonnage.models import ConfigError
from tonnage.models.fields import MAX_JSON_BYTES

SECONDS: Final = 240.0
"""For all requests of one inspection together."""

REQUEST_SECONDS: Final = 20.0
MAX_REDIRECTS: Final = 5
_MAX_ANSWER_BYTES: Final = MAX_JSON_BYTES + 2**20
_PLAIN: Final = ("", "identity")


def bounded_client(*, https_only: bool, monotonic: Callable[[], float], deadline: float) -> httpx2.Client:
    """A client whose every request passes `_BoundedTransport`; redirects to another host lose the token
    (httpx2 `Client._redirect_headers`)."""
    return httpx2.Client(
        transport=_BoundedTransport(https_only=https_only, monotonic=monotonic, deadline=deadline),
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        timeout=REQUEST_SECONDS,
        headers={"Accept-Encoding": "identity"},
    )


class _BoundedTransport(httpx2.BaseTransport):
    """Direct or through the proxies of the environment; raises `ConfigError` where a bound is passed."""

    def __init__(self, *, https_only: bool, monotonic: Callable[[], float], deadline: float) -> None:
        self._https_only = https_only
        self._monotonic = monotonic
        self._deadline = deadline
        ssl_context = httpx2.create_ssl_context()
        self._direct = httpx2.HTTPTransport(verify=ssl_context)
        self._proxied = {
            scheme: httpx2.HTTPTransport(verify=ssl_context, proxy=url)
            for scheme, url in getproxies().items()
            if scheme in ("http", "https")
        }

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; redirects come here one by one."""
        self._check_time()
        scheme, host = request.url.scheme, request.url.host
        if self._https_only and scheme != "https":
            raise ConfigError(
                "HubRedirects", f"the hub sends us on to {scheme}://{host}, which is not encrypted: refused"
            )
        through = None if proxy_bypass(host) else self._proxied.get(scheme)
        response = (through or self._direct).handle_request(request)
        if response.headers.get("Content-Encoding", "").lower() not in _PLAIN:
            response.close()
            raise ConfigError("HubUnreadable", f"{host} compresses its answers although told not to")
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Bounded(response, host=host, check_time=self._check_time),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close all connections."""
        for transport in (self._direct, *self._proxied.values()):
            transport.close()

    def _check_time(self) -> None:
        if self._monotonic() > self._deadline:
            raise ConfigError(
                "HubTimeout",
                f"reading the model took longer than {SECONDS:.0f} s: the way to the hub is too slow; it is "
                "tried again",
            )


class _Bounded(httpx2.SyncByteStream):
    """The body of an answer, up to the limit."""

    def __init__(self, response: httpx2.Response, *, host: str, check_time: Callable[[], None]) -> None:
        self._response, self._host, self._check_time = response, host, check_time

    def __iter__(self) -> Iterator[bytes]:
        count = 0
        for chunk in self._response.iter_raw():
            self._check_time()
            count += len(chunk)
            if count > _MAX_ANSWER_BYTES:
                raise ConfigError(
                    "HubUnreadable",
                    f"an answer of {self._host} is larger than {_MAX_ANSWER_BYTES} bytes: no config, index "
                    "or header is",
                )
            yield chunk

    def close(self) -> None:
        """Close the connection."""
        self._response.close()
