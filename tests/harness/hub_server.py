"""A Hugging Face hub on this machine: the part of its HTTP API that huggingface_hub and vLLM use.

Models are directories or dictionaries of files. Large files are not sent by the hub itself: as on the public
one, it redirects to another origin, the `store`, which must never see a token. Faults are injected per path.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

LARGE_BYTES = 100_000
"""Files from this size on are redirected to the store."""

_CHUNK_BYTES = 2**20
Files = Mapping[str, bytes | Path]


@dataclass
class Repository:
    """A model with its commits; `refs` says which commit a branch or tag means."""

    commits: dict[str, Files]
    refs: dict[str, str]
    token: str = ""
    """Whoever wants to read it must show this token; anybody may if empty."""
    gated: bool = False
    """Its token opens it only for accounts that were let in: nobody is."""

    def commit_of(self, revision: str) -> str:
        """The commit that a revision means; empty if there is none."""
        return self.refs.get(revision, revision if revision in self.commits else "")


@dataclass(frozen=True)
class Seen:
    """A request as it came: which of the two servers, method, path and the token shown."""

    server: str
    method: str
    path: str
    token: str
    range: str


@dataclass
class Fault:
    """What is answered instead where `pattern` is found in the path, `times` often."""

    pattern: str
    answer: Callable[["_Handler"], None]
    times: int = 1_000_000


@dataclass
class HubServer:
    """A running hub. `add` makes models known, `fail` injects faults, `seen` holds all requests."""

    url: str
    store_url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    blobs: dict[str, bytes | Path] = field(default_factory=dict)

    def add(self, name: str, files: Files | Path, *, revision: str = "main", **access: Any) -> str:
        """Commit files to a branch of a model; returns the commit. `access`: see Repository."""
        content = _files_of(files) if isinstance(files, Path) else files
        commit = hashlib.sha1(repr(sorted(_oids(content).items())).encode()).hexdigest()
        known = self.repositories.setdefault(name, Repository(commits={}, refs={}, **access))
        known.commits[commit] = content
        known.refs[revision] = commit
        return commit

    def fail(
        self,
        pattern: str,
        status: int = 500,
        *,
        times: int = 1_000_000,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        """Answer requests whose path matches with this instead."""
        self.fail_by(pattern, lambda handler: handler.answer(status, headers or {}, body), times=times)

    def fail_by(self, pattern: str, answer: Callable[["_Handler"], None], *, times: int = 1_000_000) -> None:
        """The same with a function that answers, or does not."""
        self.faults.append(Fault(pattern=pattern, answer=answer, times=times))

    def tokens(self, server: str) -> set[str]:
        """Tokens that were shown to `hub` or `store`."""
        return {one.token for one in self.seen if one.server == server and one.token}


@contextmanager
def hub_server(address: str = "127.0.0.1", *, seen_as: str = "") -> Iterator[HubServer]:
    """Run a hub until the block ends. It is reached as `seen_as` (default: the address it listens on)."""
    hub = HubServer(url="", store_url="")
    hub_handler = type("HubHandler", (_HubHandler,), {"hub": hub})
    store_handler = type("StoreHandler", (_StoreHandler,), {"hub": hub})
    servers = [_QuietServer((address, 0), handler) for handler in (hub_handler, store_handler)]
    hub.url, hub.store_url = (f"http://{seen_as or address}:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ClassVar[HubServer]
    server_name: ClassVar[str]

    def do_GET(self) -> None:
        self._note()
        self._take()

    def do_HEAD(self) -> None:
        self._note()
        self._take()

    def do_POST(self) -> None:
        self._note()
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._take()

    def _note(self) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        wanted = self.headers.get("Range", "")
        self.hub.seen.append(Seen(self.server_name, self.command, self.path, token, wanted))

    def _take(self) -> None:
        for fault in self.hub.faults:
            if fault.times and re.search(fault.pattern, self.path):
                fault.times -= 1
                fault.answer(self)
                return
        try:
            self.respond()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def respond(self) -> None:
        """Answer a request that no fault took."""
        raise NotImplementedError

    def answer(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, content: bytes | Path, headers: Mapping[str, str]) -> None:
        """Send a file, or the range of it that was asked for."""
        size = _size(content)
        begin, end, status = 0, size, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            begin, end = int(asked[1]), min(int(asked[2]) + 1, size) if asked[2] else size
            status = 206
            if begin >= size:
                self.answer(416, {"Content-Range": f"bytes */{size}"})
                return
        self.send_response(status)
        self.send_header("Content-Length", str(end - begin))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            for chunk in _chunks(content, begin, end):
                self.wfile.write(chunk)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


class _StoreHandler(_Handler):
    """Large files by their hash."""

    server_name = "store"

    def respond(self) -> None:
        content = self.hub.blobs.get(self.path.strip("/"))
        if content is None:
            self.answer(404, {})
        else:
            self.send_file(content, {})


class _HubHandler(_Handler):
    """The hub's API and its `resolve` addresses."""

    server_name = "hub"

    def respond(self) -> None:
        path = unquote(urlsplit(self.path).path)
        api = re.fullmatch(
            r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+(?:/pr/\d+)?))?/?", path
        )
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/((?:refs/pr/)?[^/]+)/(.+)", path)
        found = api or file
        if found is None:
            self.answer(404, {}, b'{"error": "no such page"}')
            return
        repository = self._opened(found[1])
        if repository is None:
            return
        commit = repository.commit_of((api[3] if api else file[2] if file else "") or "main")
        if not commit:
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
        elif api:
            self._api(found[1], api[2] or "revision", commit, repository.commits[commit])
        elif file:
            self._file(file[3], commit, repository.commits[commit])

    def _opened(self, name: str) -> Repository | None:
        """The repository, if it exists and the token may read it; else it was refused as the hub does."""
        repository = self.hub.repositories.get(name)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and not any(token == one.token for one in self.hub.repositories.values()):
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif repository is None:
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif repository.gated:
            self._refuse(403 if token else 401, "GatedRepo", "Access to this model is restricted")
        elif repository.token not in ("", token):
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        else:
            return repository
        return None

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.answer(status, headers, json.dumps({"error": message}).encode())

    def _api(self, name: str, what: str, commit: str, files: Files) -> None:
        oids = _oids(files)
        entries = [_entry(file, content, oids[file]) for file, content in sorted(files.items())]
        if what == "revision":
            siblings = [
                {"rfilename": one["path"], "size": one["size"], "blobId": one["oid"]} for one in entries
            ]
            body: Any = {"id": name, "sha": commit, "private": False, "siblings": siblings}
        elif what == "paths-info":
            wanted = json.loads(self.body).get("paths", [])
            body = [one for one in entries if one["path"] in wanted]
        else:
            body = entries
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(body).encode())

    def _file(self, name: str, commit: str, files: Files) -> None:
        content = files.get(name)
        if content is None:
            self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        oid = _oids({name: content})[name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{oid}"'}
        if _size(content) < LARGE_BYTES:
            self.send_file(content, headers)
            return
        self.hub.blobs[oid] = content
        linked = {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(_size(content))}
        self.answer(302, {**headers, **linked, "Location": f"{self.hub.store_url}/{oid}"})


def _files_of(directory: Path) -> Files:
    return {str(path.relative_to(directory)): path for path in sorted(directory.rglob("*")) if path.is_file()}


def _size(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _oids(files: Files) -> dict[str, str]:
    """Identity of each file: by content, of a file on disk by its path, size and time of change."""
    return {
        name: hashlib.sha256(
            f"{content}{content.stat().st_size}{content.stat().st_mtime_ns}".encode()
            if isinstance(content, Path)
            else content
        ).hexdigest()
        for name, content in files.items()
    }


def _entry(name: str, content: bytes | Path, oid: str) -> dict[str, Any]:
    size = _size(content)
    entry = {"type": "file", "path": name, "size": size, "oid": oid}
    return entry if size < LARGE_BYTES else {**entry, "lfs": {"oid": oid, "size": size, "pointerSize": 134}}


def _chunks(content: bytes | Path, begin: int, end: int) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content[begin:end]
        return
    with content.open("rb") as file:
        file.seek(begin)
        while begin < end:
            chunk = file.read(min(_CHUNK_BYTES, end - begin))
            begin += len(chunk)
            yield chunk
