"""The inspection of a hub model, against a hub on this machine: what is read, refused, and said."""

from __future__ import annotations

import argparse
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness.hub_server import HubServer, hub_server
from tonnage.cluster.checkpoint import read_profile
from tonnage.cluster.directory import Directory
from tonnage.cluster.hub import ATTEMPTS, FIRST_RANGE_BYTES, Access, HubModel
from tonnage.cluster.hub_transport import MAX_REDIRECTS, SECONDS, bounded_client
from tonnage.cluster.inspected import Failure, decode, encode
from tonnage.cluster.inspection import inspect, inspect_hub
from tonnage.models import ConfigError, ResolvedModel
from tonnage.models.fields import MAX_JSON_BYTES
from unit.models.samples import smollm2_config

NAME = "acme/small"
TOKEN = "hf_thisIsASecretToken"
CONFIG = json.dumps(smollm2_config()).encode()
INDEX = "model.safetensors.index.json"


class Clock:
    """Time that passes only by sleeping, and by `per_look` at each look."""

    def __init__(self, per_look: float = 0.0) -> None:
        self.now, self.per_look, self.pauses = 1000.0, per_look, list[float]()

    def monotonic(self) -> float:
        self.now += self.per_look
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def safetensors(names: int = 1, *, stored_bytes: int = 4) -> bytes:
    """A file of so many BF16 tensors of equal size."""
    header = json.dumps(
        {
            f"model.layers.{number}.weight": {
                "dtype": "BF16",
                "shape": [stored_bytes // 2],
                "data_offsets": [number * stored_bytes, (number + 1) * stored_bytes],
            }
            for number in range(names)
        }
    ).encode()
    return len(header).to_bytes(8, "little") + header + bytes(names * stored_bytes)


def index(*files: str) -> bytes:
    return json.dumps({"weight_map": {f"t{n}": file for n, file in enumerate(files)}}).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    """One hub for all tests of this module."""
    with hub_server() as running:
        yield running


@pytest.fixture
def hub(server: HubServer) -> HubServer:
    """The hub with one small model of one file, without faults."""
    for known in (server.repositories, server.faults, server.seen, server.blobs):
        known.clear()
    server.add(NAME, {"config.json": CONFIG, "model.safetensors": safetensors()})
    return server


def read(
    hub: HubServer | str,
    *,
    name: str = NAME,
    revision: str = "main",
    token: str = "",
    clock: Clock | None = None,
) -> ResolvedModel:
    clock = clock or Clock()
    endpoint = hub if isinstance(hub, str) else hub.url
    access = Access(endpoint=endpoint, token=token, monotonic=clock.monotonic, sleep=clock.sleep)
    files = HubModel(name, revision=revision, access=access)
    profile = read_profile(files, assume_full_attention=False)
    return ResolvedModel(profile=profile, revision=files.revision, download_bytes=files.download_bytes)


def refused(hub: HubServer | str, **options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        read(hub, **options)
    return error.value


def test_one_file_is_read_by_its_header_and_the_commit_is_told(hub: HubServer) -> None:
    commit = hub.repositories[NAME].refs["main"]
    found = read(hub)
    assert found.revision == commit
    assert found.profile.shape.architecture == "LlamaForCausalLM"
    assert found.profile.weights.bytes_by_dtype == (("BF16", 4),)
    assert found.download_bytes == len(CONFIG) + len(safetensors())
    # after the first request everything is read of that commit, whatever the branch means meanwhile
    assert all(f"/resolve/{commit}/" in one.path for one in hub.seen[1:])


def test_all_parts_of_an_index_are_read_and_no_weight_is_fetched(hub: HubServer) -> None:
    parts = [f"model-{n:05d}-of-00009.safetensors" for n in range(1, 10)]
    big = safetensors(names=3, stored_bytes=2 * FIRST_RANGE_BYTES)
    files = {"config.json": CONFIG, INDEX: index(*parts), **dict.fromkeys(parts, big)}
    hub.add("acme/large", {**files, "consolidated.00.pth": b"x" * 99, "original/other.safetensors": big})
    found = read(hub, name="acme/large")
    assert found.profile.weights.bytes_by_dtype == (("BF16", 9 * 3 * 2 * FIRST_RANGE_BYTES),)
    assert found.download_bytes == 9 * len(big) + len(CONFIG) + len(files[INDEX])
    ranged = [one for one in hub.seen if "safetensors" in one.path and INDEX not in one.path]
    assert {one.range for one in ranged} == {f"bytes=0-{FIRST_RANGE_BYTES - 1}"}


def test_a_header_longer_than_the_first_range_is_fetched_whole(hub: HubServer) -> None:
    many = safetensors(names=3000)
    hub.add(NAME, {"config.json": CONFIG, "model.safetensors": many})
    assert read(hub).profile.weights.parameters == 3000 * 2
    assert len([one for one in hub.seen if one.server == "store" or "model.safetensors" in one.path]) in (
        2,
        4,
    )


def test_a_server_that_ignores_ranges_is_not_read_to_the_end(hub: HubServer) -> None:
    weights = safetensors(names=3000) + b""
    hub.add(NAME, {"config.json": CONFIG, "model.safetensors": weights})
    sent: list[int] = []

    def whole(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(weights) + 2**30))
        handler.end_headers()
        try:
            handler.wfile.write(weights)
            while True:
                handler.wfile.write(bytes(2**16))
                sent.append(2**16)
        except OSError:
            handler.close_connection = True

    hub.fail_by(r"resolve/.*\.safetensors", whole)
    error = refused(hub)
    assert error.reason == "WeightsInvalid"  # its size is not what the header describes
    time.sleep(0.2)
    assert sum(sent) < 2**27


def test_the_same_is_read_of_a_hub_and_of_a_directory(hub: HubServer, tmp_path: Any) -> None:
    quantization = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
    files = {
        "config.json": CONFIG,
        "hf_quant_config.json": json.dumps(quantization).encode(),
        "model.safetensors": safetensors(),
        "consolidated.safetensors": safetensors(names=2),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    hub.add(NAME, files)
    directory = Directory(tmp_path)
    profile = read_profile(directory, assume_full_attention=False)
    assert profile == read(hub).profile
    assert profile.shape.quantization
    assert profile.weights.bytes_by_dtype == (("BF16", 4),)


@pytest.mark.parametrize("changed", ["config.json", "model.safetensors", "touched"])
def test_a_replaced_file_of_a_directory_changes_its_revision(tmp_path: Any, changed: str) -> None:
    def seen() -> str:
        directory = Directory(tmp_path)
        read_profile(directory, assume_full_attention=False)
        return directory.revision

    (tmp_path / "config.json").write_bytes(CONFIG)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(safetensors())
    before = seen()
    assert seen() == before
    if changed == "touched":  # other weights of the same shapes
        stat = weights.stat()
        weights.write_bytes(safetensors()[:-1] + b"x")
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    else:
        (tmp_path / changed).write_bytes(CONFIG + b"\n" if changed == "config.json" else safetensors(2))
    assert seen() != before


# --- tokens and redirects


def test_the_token_opens_a_private_model_and_stays_with_the_hub(hub: HubServer) -> None:
    big = safetensors(names=2, stored_bytes=2**20)
    hub.add("acme/private", {"config.json": CONFIG, "model.safetensors": big}, token=TOKEN)
    assert read(hub, name="acme/private", token=TOKEN).revision
    assert hub.tokens("hub") == {TOKEN}
    assert [one for one in hub.seen if one.server == "store"]
    assert hub.tokens("store") == set()


def test_a_redirect_of_the_api_to_another_host_shows_no_token(hub: HubServer) -> None:
    hub.add(NAME, {"config.json": CONFIG}, token="")
    hub.repositories[NAME].token = TOKEN
    hub.fail("/api/models", 307, headers={"Location": f"{hub.store_url}/elsewhere"})
    assert refused(hub, token=TOKEN).reason == "ModelUnknown"
    assert hub.tokens("store") == set()


def test_redirects_in_a_circle_end(hub: HubServer) -> None:
    hub.fail("/api/models", 302, headers={"Location": f"{hub.url}/api/models/{NAME}"})
    error = refused(hub)
    assert error.reason == "HubRedirects"
    assert len(hub.seen) == MAX_REDIRECTS + 1


def test_from_an_encrypted_hub_nobody_is_sent_to_a_plain_one() -> None:
    client = bounded_client(https_only=True, monotonic=lambda: 0.0, deadline=1.0)
    with pytest.raises(ConfigError) as error:
        client.get("http://127.0.0.1:9/")
    assert error.value.reason == "HubRedirects"


# --- what goes wrong

SAID = [
    # (status, error code, with a token?) -> reason, what the remedy names
    (401, "", True, "TokenRejected", "model.tokenSecret"),
    (401, "RepoNotFound", False, "ModelNotAllowed", "model.tokenSecret"),
    (401, "GatedRepo", False, "ModelNotAllowed", "ask for access at"),
    (403, "GatedRepo", True, "ModelNotAllowed", "ask for access at"),
    (403, "", True, "ModelNotAllowed", "token's account"),
    (404, "RepoNotFound", True, "ModelUnknown", "model.uri"),
    (404, "RevisionNotFound", False, "RevisionUnknown", "model.revision"),
    (404, "", False, "ModelUnknown", "model.uri"),
    (429, "", False, "HubBusy", "tried again"),
    (500, "", False, "HubFailing", "tried again"),
    (503, "", False, "HubFailing", "tried again"),
    (418, "", False, "HubUnreadable", "418"),
]


@pytest.mark.parametrize(("status", "code", "with_token", "reason", "remedy"), SAID)
def test_an_answer_that_refuses_becomes_a_reason_with_a_remedy(
    hub: HubServer, status: int, code: str, with_token: bool, reason: str, remedy: str
) -> None:
    echo = {"X-Error-Message": f"not with {TOKEN}", **({"X-Error-Code": code} if code else {})}
    hub.fail("/api/models", status, headers=echo, body=json.dumps({"error": f"not with {TOKEN}"}).encode())
    error = refused(hub, token=TOKEN if with_token else "")
    assert error.reason == reason
    assert remedy in error.message
    assert TOKEN not in error.message


def test_a_hub_as_it_is_refuses_as_the_table_says(hub: HubServer) -> None:
    hub.add("acme/private", {"config.json": CONFIG}, token=TOKEN)
    hub.add("acme/gated", {"config.json": CONFIG}, gated=True)
    assert refused(hub, name="acme/private").reason == "ModelNotAllowed"
    assert refused(hub, name="acme/private", token="hf_wrong").reason == "TokenRejected"
    assert refused(hub, name="acme/gated", token=TOKEN).reason == "ModelNotAllowed"
    assert refused(hub, name="acme/nothing", token=TOKEN).reason == "ModelUnknown"
    assert refused(hub, revision="v9").reason == "RevisionUnknown"
    assert refused(hub, name="acme/a/b").reason == "ModelUnknown"


def test_what_passes_is_tried_again_with_growing_pauses(hub: HubServer) -> None:
    clock = Clock()
    hub.fail("/api/models", 503, times=1)
    hub.fail(r"config\.json", 429, times=1, headers={"Retry-After": "7"})
    hub.fail(r"model\.safetensors", 502, times=2)
    assert read(hub, clock=clock).revision
    assert clock.pauses == [1.0, 7.0, 1.0, 2.0]


@pytest.mark.parametrize(("after", "asked"), [("", ATTEMPTS), ("3600", 1)])
def test_trying_again_ends(hub: HubServer, after: str, asked: int) -> None:
    clock = Clock()
    hub.fail("/api/models", 429, headers={"Retry-After": after} if after else {})
    assert refused(hub, clock=clock).reason == "HubBusy"
    assert len(hub.seen) == asked
    assert len(clock.pauses) == asked - 1


def test_what_stays_is_not_tried_again(hub: HubServer) -> None:
    clock = Clock()
    hub.fail("/api/models", 404, headers={"X-Error-Code": "RepoNotFound"})
    refused(hub, clock=clock)
    assert (len(hub.seen), clock.pauses) == (1, [])


def test_no_way_to_the_hub_is_said_with_the_ways_there() -> None:
    for endpoint in ("http://127.0.0.1:9", "http://no-such-host.invalid"):
        clock = Clock()
        error = refused(endpoint, clock=clock)
        assert error.reason == "HubUnreachable"
        assert "hub.httpsProxy" in error.message
        assert "pvc://" in error.message
        assert len(clock.pauses) == ATTEMPTS - 1
    assert refused("ftp://hub.example").reason == "HubUnreachable"


def test_a_hub_that_does_not_answer_is_left(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("hub", "hub_transport"):
        monkeypatch.setattr(f"tonnage.cluster.{module}.REQUEST_SECONDS", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        error = refused(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert error.reason == "HubUnreachable"
    assert "in time" in error.message


def test_a_hub_that_is_slow_for_ever_is_left(hub: HubServer) -> None:
    clock = Clock(per_look=SECONDS / 2)
    assert refused(hub, clock=clock).reason == "HubTimeout"


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/api/models", b"<html>a login page</html>", "HubUnreadable"),
        ("/api/models", b"[]", "HubUnreadable"),
        ("/api/models", b"{}", "HubUnreadable"),
        ("/api/models", b'{"id": "a/b", "siblings": [{}]}', "HubUnreadable"),
        ("/api/models", b'{"id": "a/b", "sha": "../../x", "siblings": []}', "HubUnreadable"),
        (r"config\.json", b'{"architectures": ["Llama', "ConfigUnreadable"),
        (r"config\.json", b"[]", "ConfigUnreadable"),
        (r"config\.json", b" " * (MAX_JSON_BYTES + 2), "ConfigUnreadable"),
        (r"config\.json", b" " * (MAX_JSON_BYTES + 2**21), "HubUnreadable"),
        (r"model\.safetensors", b"", "WeightsInvalid"),
        (r"model\.safetensors", b"\x00\xff" * 50, "WeightsInvalid"),
    ],
)
def test_garbage_is_refused(hub: HubServer, path: str, body: bytes, reason: str) -> None:
    hub.fail(path, 200, body=body)
    assert refused(hub).reason == reason


def test_compressed_answers_are_refused_unread(hub: HubServer) -> None:
    hub.fail(r"config\.json", 200, headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b" + bytes(100))
    assert refused(hub).reason == "HubUnreadable"


PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.mark.parametrize(
    ("files", "reason", "named"),
    [
        ({}, "ConfigMissing", "config.json"),
        ({"config.json": b"{"}, "ConfigUnreadable", "config.json"),
        ({"config.json": CONFIG}, "WeightsMissing", "safetensors"),
        ({"config.json": CONFIG, "pytorch_model.bin": b"x"}, "WeightsMissing", "*.bin"),
        ({"config.json": CONFIG, "m.Q4_K.gguf": b"x"}, "WeightsMissing", "*.gguf"),
        ({"config.json": CONFIG, PARTS[0]: safetensors()}, "IndexMissing", INDEX),
        (
            {"config.json": CONFIG, INDEX: index(*PARTS), PARTS[0]: safetensors()},
            "WeightsMissing",
            PARTS[1],
        ),
        ({"config.json": CONFIG, INDEX: b"{}", PARTS[0]: safetensors()}, "WeightsInvalid", INDEX),
        ({"config.json": CONFIG, INDEX: index("../a.safetensors")}, "WeightsInvalid", INDEX),
        (
            {"config.json": CONFIG, "model.safetensors": (2**40).to_bytes(8, "little") + b"{}"},
            "WeightsInvalid",
            "declares a header",
        ),
        ({"config.json": CONFIG, "model.safetensors": safetensors()[:-1]}, "WeightsInvalid", "truncated"),
        ({"config.json": b'{"architectures": ["OracleForCausalLM"]}'}, "UnknownArchitecture", "Oracle"),
    ],
)
def test_what_is_wrong_with_the_files_is_said_of_a_hub_and_of_a_directory_alike(
    hub: HubServer, tmp_path: Any, files: dict[str, bytes], reason: str, named: str
) -> None:
    hub.add(NAME, files)
    error = refused(hub)
    assert (error.reason, named in error.message) == (reason, True), error.message
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as same:
        read_profile(Directory(tmp_path), assume_full_attention=False)
    assert (same.value.reason, named in same.value.message) == (reason, True), same.value.message


# --- the program


def options(**given: Any) -> Any:
    known = {"hub": NAME, "revision": "main", "path": None, "assume_full_attention": False}
    return argparse.Namespace(**{**known, **given})


def test_the_program_takes_endpoint_and_token_from_its_environment(hub: HubServer) -> None:
    hub.repositories[NAME].token = TOKEN
    environment = {"HF_ENDPOINT": f"{hub.url}/", "HF_TOKEN": f"{TOKEN}\n"}
    found = inspect_hub(NAME, revision="main", environment=environment)
    message = encode(found)
    assert len(message.encode()) < 4096
    assert decode(message) == found
    assert TOKEN not in message


def test_a_failure_is_a_value_that_fits_a_termination_message(hub: HubServer) -> None:
    failed = inspect(options(revision="é" * 128), environment={"HF_ENDPOINT": hub.url})
    assert isinstance(failed, Failure)
    assert failed.reason == "RevisionUnknown"
    message = encode(Failure(reason="X", message=failed.message * 20))
    assert len(message.encode()) < 4096
    assert isinstance(decode(message), Failure)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "no json",
        "[]",
        '{"model": "x"}',
        '{"model": "x", "revision": "0123456", "downloadBytes": 1}',
        '{"error": {}}',
    ],
)
def test_an_unreadable_result_is_a_failure(message: str) -> None:
    assert isinstance(decode(message), Failure)


def test_a_result_with_a_revision_that_is_none_is_a_failure(hub: HubServer) -> None:
    message = encode(read(hub)).replace(hub.repositories[NAME].refs["main"], "--trust-remote-code")
    failure = decode(message)
    assert isinstance(failure, Failure)
    assert failure.reason == "RevisionInvalid"
