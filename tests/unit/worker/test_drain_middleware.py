"""The middleware in the engine's API server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tonnage_worker.drain_middleware import DRAIN_FILE_VARIABLE, CloseWhenDraining

JSON = (b"content-type", b"application/json")
CLOSE = (b"connection", b"close")


async def call(
    middleware_of: Any, *, kind: str = "http", headers: list[tuple[bytes, bytes]] | None = None
) -> Any:
    """Run one request through a middleware around an application that answers in two chunks."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": f"{kind}.response.start", "status": 200, "headers": headers or [JSON]})
        await send({"type": f"{kind}.response.body", "body": b"a", "more_body": True})
        await send({"type": f"{kind}.response.body", "body": b"b"})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await middleware_of(app)({"type": kind}, receive, send)
    return sent


@pytest.fixture
def flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "draining"
    monkeypatch.setenv(DRAIN_FILE_VARIABLE, str(path))
    return path


async def test_before_the_drain_nothing_is_touched(flag: Path) -> None:
    sent = await call(CloseWhenDraining)
    assert sent[0]["headers"] == [JSON]


async def test_once_draining_every_response_closes_its_connection(flag: Path) -> None:
    flag.touch()
    sent = await call(CloseWhenDraining, headers=[JSON, (b"Connection", b"keep-alive")])
    assert sent[0]["headers"] == [JSON, CLOSE]
    assert [message.get("body") for message in sent] == [None, b"a", b"b"]


async def test_the_flag_is_seen_by_a_running_server(flag: Path) -> None:
    built = []

    def once(app: Any) -> CloseWhenDraining:
        built.append(CloseWhenDraining(app))
        return built[0]

    assert (await call(once))[0]["headers"] == [JSON]
    flag.touch()
    assert (await call(lambda _: built[0]))[0]["headers"] == [JSON, CLOSE]


async def test_other_scopes_pass_untouched(flag: Path) -> None:
    flag.touch()
    assert (await call(CloseWhenDraining, kind="websocket"))[0]["headers"] == [JSON]


async def test_without_the_variable_it_never_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DRAIN_FILE_VARIABLE, raising=False)
    assert (await call(CloseWhenDraining))[0]["headers"] == [JSON]


def test_it_imports_nothing_heavy() -> None:
    """It is loaded into the engine's API server, which must not pay for the supervisor's libraries."""
    program = "import sys, tonnage_worker.drain_middleware; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in modules.stdout.split()}
    assert not loaded & {"aiohttp", "prometheus_client", "asyncio", "torch", "vllm"}
