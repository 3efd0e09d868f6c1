"""Runs inside the engine's API server (vLLM's `--middleware`): tells clients to leave once the pod drains.

Clients keep connections open, and a Service does not move open connections: without this they would send
requests to an engine that is about to stop. After the flag file appears, every response carries
`Connection: close`, on which uvicorn closes the connection once the response is written.

Imports nothing beyond `os`; the cost per response is one `stat` of a file that does not exist (~1 µs).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

DRAIN_FILE_VARIABLE = "TONNAGE_DRAIN_FILE"

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class CloseWhenDraining:
    """ASGI middleware; the flag file's path comes from `TONNAGE_DRAIN_FILE`, unset means never draining."""

    def __init__(self, app: _App) -> None:
        self._app = app
        self._flag = os.environ.get(DRAIN_FILE_VARIABLE, "")

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Pass the request on, with a `send` that adds the header."""
        if scope["type"] != "http" or not self._flag:
            await self._app(scope, receive, send)
            return

        async def send_with_close(message: _Message) -> None:
            # Looked up when the response starts, not when the request came: so more connections close.
            if message["type"] == "http.response.start" and os.path.exists(self._flag):
                message = {**message, "headers": _with_close(message.get("headers", ()))}
            await send(message)

        await self._app(scope, receive, send_with_close)


def _with_close(headers: Any) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in headers if name.lower() != b"connection"]
    return [*kept, (b"connection", b"close")]
