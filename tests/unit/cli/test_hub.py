"""Reading a model from the hub: a local server stands for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from tonnage.cli.model import read_model
from tonnage.models import ConfigError
from unit.cli.samples import LLAMA, Run

TOKEN = "hf_secret"


class Hub(BaseHTTPRequestHandler):
    """Answers with `files`, moves to `elsewhere`, or `refuses`; notes the tokens it was shown."""

    files: ClassVar[dict[str, bytes]] = {}
    elsewhere: ClassVar[str] = ""
    refuses: ClassVar[int] = 0
    tokens: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.tokens.append(self.headers.get("Authorization"))
        data = self.files.get(self.path)
        if self.refuses:
            self._answer(self.refuses, {"X-Error-Code": "RepoNotFound"})
        elif self.elsewhere:
            self._answer(302, {"Location": self.elsewhere + self.path})
        elif data is None:
            self._answer(404, {"X-Error-Code": "EntryNotFound"})
        else:
            self._answer(200, {}, data)

    def _answer(self, code: int, headers: dict[str, str], data: bytes = b"") -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def _serve(handler: type[Hub]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub with one model."""

    class OneHub(Hub):
        files: ClassVar[dict[str, bytes]] = {
            "/org/model/resolve/main/config.json": json.dumps(LLAMA).encode()
        }
        tokens: ClassVar[list[str | None]] = []

    for url in _serve(OneHub):
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield OneHub


def test_config_alone_is_enough(hub: type[Hub]) -> None:
    files = read_model("org/model")
    assert (files.origin, files.config, files.hf_quant_config) == ("hub", LLAMA, None)
    assert files.checkpoint_bytes is None
    assert hub.tokens == [None] * 3


def test_revision_and_all_files(hub: type[Hub]) -> None:
    for name, content in (
        ("config.json", LLAMA),
        ("hf_quant_config.json", {"quantization": {}}),
        ("model.safetensors.index.json", {"metadata": {"total_size": 99}}),
    ):
        hub.files[f"/org/model/resolve/refs%2Fpr%2F1/{name}"] = json.dumps(content).encode()
    files = read_model("org/model", revision="refs/pr/1")
    assert (files.hf_quant_config, files.checkpoint_bytes) == ({"quantization": {}}, 99)
    assert "refs/pr/1" in files.source


def test_token_opens_the_hub_but_does_not_follow_redirects(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(Hub):
        files: ClassVar[dict[str, bytes]] = dict(hub.files)
        tokens: ClassVar[list[str | None]] = []

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for url in _serve(Other):
        hub.elsewhere = url
        read_model("org/model")
    assert hub.tokens == [f"Bearer {TOKEN}"] * 3
    assert Other.tokens == [None] * 3


@pytest.mark.parametrize(
    ("code", "reason"), [(401, "ModelNotAllowed"), (404, "ModelUnknown"), (503, "HubUnreachable")]
)
def test_refusals_say_what_to_do_and_keep_the_token(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.refuses = code
    with pytest.raises(ConfigError) as refused:
        read_model("org/qwen3-32")
    assert refused.value.reason == reason
    assert "Qwen/Qwen3-32B" in refused.value.message
    assert TOKEN not in refused.value.message


def test_without_network_the_catalogue_is_named(fit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, output, complaint = fit("Qwen/Qwen3-33B")
    assert (code, output) == (2, "")
    assert "cannot be reached" in complaint
    assert "Qwen/Qwen3-32B" in complaint


@pytest.mark.parametrize("name", ["a/b/c", "../etc/passwd", "a/..", "org/mo del", "org/" + "x" * 200])
def test_names_that_are_no_ids_are_not_asked_for(hub: type[Hub], name: str) -> None:
    with pytest.raises(ConfigError):
        read_model(name)
    assert hub.tokens == []


def test_plain_http_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example")
    with pytest.raises(ConfigError, match="https://"):
        read_model("org/model")


def test_garbage_is_refused(hub: type[Hub]) -> None:
    hub.files["/org/model/resolve/main/config.json"] = b"<html>"
    with pytest.raises(ConfigError, match="not valid JSON"):
        read_model("org/model")
