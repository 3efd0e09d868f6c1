"""A model on the Hugging Face hub: which commit, and what its small files and safetensors headers say.

Only the inspection Job imports this. Nothing is downloaded to disk, no weight is read, no code of the model
is run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, TypeVar
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi, get_session, hf_hub_url, set_client_factory
from huggingface_hub.errors import HFValidationError
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from tonnage import __version__
from tonnage.cluster.checkpoint import INDEX, SUFFIX, Header
from tonnage.cluster.hub_errors import Asked, explained, is_passing, retry_after
from tonnage.cluster.hub_transport import REQUEST_SECONDS, SECONDS, bounded_client
from tonnage.models import ConfigError, is_revision
from tonnage.models.safetensors import LENGTH_BYTES, header_length

DEFAULT_ENDPOINT: Final = "https://huggingface.co"
LIBRARY: Final = "tonnage"
ATTEMPTS: Final = 3
FIRST_PAUSE_SECONDS: Final = 1.0
MAX_PAUSE_SECONDS: Final = 30.0
PARALLEL: Final = 4
FIRST_RANGE_BYTES: Final = 64 * 2**10
_CONSOLIDATED: Final = "consolidated*.safetensors"
_SIDE_FILES: Final = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".py")

# what a server can provoke: HTTP errors, and answers that huggingface_hub does not understand
_FOREIGN: Final = (
    httpx2.HTTPError,
    httpx2.InvalidURL,
    OSError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where the hub is, by which token it is asked, and the clock that counts and waits."""

    endpoint: str = DEFAULT_ENDPOINT
    token: str = ""
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class HubModel:
    """One model at the commit that a revision means now (see `checkpoint.Files`). Raises `ConfigError`."""

    def __init__(self, name: str, *, revision: str, access: Access) -> None:
        endpoint = access.endpoint.rstrip("/")
        if urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).hostname:
            raise ConfigError(
                "HubUnreachable", "hub.endpoint of the chart is no URL that begins with https:// or http://"
            )
        self._access = access
        self._asked = Asked(name=name, revision=revision, endpoint=endpoint, with_token=bool(access.token))
        deadline = access.monotonic() + SECONDS
        https_only = endpoint.startswith("https://")
        set_client_factory(
            lambda: bounded_client(https_only=https_only, monotonic=access.monotonic, deadline=deadline)
        )
        self._sizes: dict[str, int] = {}
        self._weights: tuple[str, ...] = ()
        self.revision = self._resolve()

    @property
    def where(self) -> str:
        """The model and its commit."""
        return f"{self._asked.name} at {self.revision[:12]}"

    @property
    def download_bytes(self) -> int:
        """What an engine downloads: weights as vLLM 0.32 picks them (model_executor/model_loader/
        default_loader.py, weight_utils.py), and all small files."""
        weights = [name for name in self._sizes if fnmatchcase(name, _CONSOLIDATED)]
        if not weights and INDEX in self._sizes:
            weights = list(self._weights)
        if not weights:
            weights = [name for name in self._sizes if name.endswith(SUFFIX)]
        side_files = [name for name in self._sizes if name.endswith(_SIDE_FILES)]
        return sum(self._sizes[name] for name in (*weights, *side_files))

    def names(self) -> frozenset[str]:
        """Names of the files at the top of the repository."""
        return frozenset(name for name in self._sizes if "/" not in name)

    def read(self, name: str) -> bytes:
        """A small file, whole."""
        return self._tried(lambda: self._whole(name), file=name)

    def headers(self, names: Sequence[str]) -> Iterable[Header]:
        """The headers of safetensors files, by HTTP ranges."""
        self._weights = tuple(names)
        with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
            for begin in range(0, len(names), PARALLEL):  # not all at once: headers wait in memory
                yield from pool.map(self._header, names[begin : begin + PARALLEL])

    def _resolve(self) -> str:
        info = self._tried(self._info)
        for sibling in info.siblings or ():
            self._sizes[sibling.rfilename] = sibling.size or 0
        if not is_revision(info.sha or ""):
            raise ConfigError(
                "HubUnreadable",
                f"{self._asked.host} does not tell the commit of {self._asked.name}: set hub.endpoint of the "
                "chart to a hub that does",
            )
        return str(info.sha)

    def _info(self) -> ModelInfo:
        api = HfApi(
            endpoint=self._asked.endpoint,
            token=self._access.token or False,
            library_name=LIBRARY,
            library_version=__version__,
        )
        return api.model_info(
            self._asked.name, revision=self._asked.revision, files_metadata=True, timeout=REQUEST_SECONDS
        )

    def _whole(self, name: str) -> bytes:
        with self._answer(name) as response:
            hf_raise_for_status(response)
            return response.read()

    def _header(self, name: str) -> Header:
        data, file_bytes = self._tried(lambda: self._range(name, 0, FIRST_RANGE_BYTES), file=name)
        end = LENGTH_BYTES + header_length(data[:LENGTH_BYTES], what=name)
        if end > len(data):
            begin = len(data)
            data += self._tried(lambda: self._range(name, begin, end), file=name)[0]
        self._sizes[name] = file_bytes or self._sizes.get(name, 0)
        return Header(name=name, json=data[LENGTH_BYTES:end], file_bytes=self._sizes[name])

    def _range(self, name: str, begin: int, end: int) -> tuple[bytes, int]:
        """Bytes `begin` to `end` of a file, fewer where it ends before, and its size (0: not told).

        A server that ignores the range is not read past `end`.
        """
        with self._answer(name, headers={"Range": f"bytes={begin}-{end - 1}"}) as response:
            if response.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE:
                return b"", 0
            hf_raise_for_status(response)
            ranged = response.status_code == httpx2.codes.PARTIAL_CONTENT
            skip = 0 if ranged else begin
            data = _first(response.iter_bytes(), size=skip + end - begin)
            stated = response.headers.get("Content-Range" if ranged else "Content-Length", "")
        size = stated.rpartition("/")[2]
        return data[skip:], int(size) if size.isdecimal() and len(size) < 19 else 0

    @contextmanager
    def _answer(self, name: str, *, headers: dict[str, str] | None = None) -> Iterator[httpx2.Response]:
        url = hf_hub_url(self._asked.name, name, revision=self.revision, endpoint=self._asked.endpoint)
        sent = build_hf_headers(
            token=self._access.token or False,
            library_name=LIBRARY,
            library_version=__version__,
            headers={"Accept-Encoding": "identity", **(headers or {})},
        )
        with get_session().stream("GET", url, headers=sent, timeout=REQUEST_SECONDS) as response:
            yield response

    def _tried(self, request: Callable[[], Answer], *, file: str = "") -> Answer:
        """The answer; what may pass is tried again, what stays becomes a `ConfigError`."""
        for attempt in range(ATTEMPTS):
            try:
                return request()
            except HFValidationError:
                raise ConfigError(
                    "ModelUnknown", f"hf://{self._asked.name} is not of the form hf://ORG/NAME"
                ) from None
            except _FOREIGN as error:
                pause = max(FIRST_PAUSE_SECONDS * 2**attempt, retry_after(error))
                if not is_passing(error) or attempt == ATTEMPTS - 1 or pause > MAX_PAUSE_SECONDS:
                    raise explained(error, asked=self._asked, file=file) from None
            self._access.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


def _first(chunks: Iterable[bytes], *, size: int) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) >= size:
            break
    return bytes(data[:size])
