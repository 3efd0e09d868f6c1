"""The port's adapter: the official client's async dynamic client, with static paths (no discovery)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError
from kubernetes.aio.dynamic.resource import Resource
from pydantic_core import from_json

from tonnage.cluster.port import POD, ApiError, Event, Kind, Listing, Object

FIELD_MANAGER = "tonnage"
STATUS_MANAGER = "tonnage-status"
PAGE = 100
REQUEST_SECONDS = 30.0
CONNECT_SECONDS = 10.0
_OF_PODS = ("nodeName", "containers", "initContainers", "overhead", "priority", "resources", "resourceClaims")
_OF_CONTAINERS = ("name", "resources", "restartPolicy")
# A server with nothing to say may send no bookmark for minutes, and a dead connection says nothing either:
# after this long the watch is opened again, which tells the two apart.
SILENCE_SECONDS = 60.0


async def connect(*, watches: int = 0) -> ApiClient:
    """A client for the cluster that this process runs in, else the current kubeconfig context.

    `watches` is how many connections stay open for good, beside those of requests.
    """
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)
    configuration.connection_pool_maxsize = 64 + watches
    # left to aiohttp, the environment's proxies and ~/.netrc are looked up for every request, in a thread
    configuration.proxy = configuration.proxy or _environment_proxy(configuration.host)
    configuration.client_session_kwargs = {"trust_env": False}
    return ApiClient(configuration)


def _environment_proxy(host: str) -> str | None:
    """The proxy that the environment names for the API server, if it does not exempt it."""
    url = urlsplit(host)
    return None if proxy_bypass(url.hostname or "") else getproxies().get(url.scheme)


class KubernetesCluster:
    """`Cluster` on a real API server."""

    def __init__(
        self,
        client: ApiClient,
        *,
        request_seconds: float = REQUEST_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self._dynamic = DynamicClient(client)
        self._options: dict[str, Any] = {"serialize": False, "_request_timeout": request_seconds}
        self._silence_seconds = silence_seconds
        # one list at a time: what a list takes while it is read is most of a start's memory
        self._listing = asyncio.Lock()

    async def get(self, kind: Kind, *, namespace: str, name: str) -> Object | None:
        """One object; None if it does not exist."""
        try:
            return await self._json(self._dynamic.get(_resource(kind), name, namespace, **self._options))
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def list(self, kind: Kind, *, namespace: str = "", selector: str = "") -> Listing:
        """All objects of a kind that carry the labels, in pages; in every namespace unless one is named."""
        async with self._listing:
            return await self._list(kind, namespace=namespace, selector=selector)

    async def _list(self, kind: Kind, *, namespace: str, selector: str) -> Listing:
        items: list[Object] = []
        token: str | None = None
        while True:
            page = await self._json(
                self._dynamic.request(
                    "get",
                    _path(kind, namespace),
                    label_selector=selector or None,
                    limit=PAGE,
                    _continue=token,
                    **self._options,
                )
            )
            # items of a list do not carry their kind; the same object in a watch does
            items.extend(
                {"apiVersion": kind.api_version, "kind": kind.kind, **_slim(kind, item)}
                for item in page.get("items") or []
            )
            token = page["metadata"].get("continue")
            if not token:
                return Listing(items, page["metadata"]["resourceVersion"])

    async def watch(
        self,
        kind: Kind,
        *,
        resource_version: str,
        namespace: str = "",
        selector: str = "",
        seconds: float = 300.0,
    ) -> AsyncGenerator[Event]:
        """Events after `resource_version`; ends after `seconds` or when the server ends it, or raises."""
        response = await self._raw(
            self._dynamic.request(
                "get",
                _path(kind, namespace),
                watch="true",
                resource_version=resource_version,
                label_selector=selector or None,
                timeout_seconds=max(1, round(seconds)),
                query_params=[("allowWatchBookmarks", "true")],
                serialize=False,
                _request_timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_SECONDS, sock_read=self._silence_seconds
                ),
            )
        )
        try:
            yield Event("BOOKMARK", {"metadata": {"resourceVersion": resource_version}})
            async for line in _lines(response.content):
                yield _event(line)
        except aiohttp.SocketTimeoutError:
            return
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(0, f"watch of {kind.plural}: {type(error).__name__}: {error}") from error
        finally:
            response.close()

    async def apply(self, kind: Kind, body: Object, *, force: bool = True) -> Object:
        """Server-side apply under the operator's field manager; the object as stored.

        Without `force` a field that somebody else has set to another value is a 409.
        """
        meta = body["metadata"]
        path = f"{_path(kind, meta.get('namespace', ''))}/{meta['name']}"
        return await self._apply(path, body, manager=FIELD_MANAGER, force=force)

    async def overwrite(self, kind: Kind, body: Object) -> Object:
        """Merge patch: our lists replace what is there, whoever added to it; the object as stored."""
        meta = body["metadata"]
        return await self._json(
            self._dynamic.patch(
                _resource(kind),
                body,
                meta["name"],
                meta["namespace"],
                content_type="application/merge-patch+json",
                field_manager=FIELD_MANAGER,
                **self._options,
            )
        )

    async def apply_status(self, kind: Kind, body: Object) -> Object:
        """Server-side apply of the status subresource under its own field manager."""
        meta = body["metadata"]
        path = f"{_path(kind, meta['namespace'])}/{meta['name']}/status"
        return await self._apply(path, body, manager=STATUS_MANAGER, force=True)

    async def _apply(self, path: str, body: Object, *, manager: str, force: bool) -> Object:
        """Server-side apply as UTF-8: the client's own JSON escapes 🚀 as surrogates, which YAML refuses."""
        return await self._json(
            self._dynamic.request(
                "patch",
                path,
                body=json.dumps(body, ensure_ascii=False).encode(),
                content_type="application/apply-patch+yaml; charset=utf-8",
                field_manager=manager,
                force_conflicts=force,
                **self._options,
            )
        )

    async def delete(self, kind: Kind, *, namespace: str, name: str, uid: str) -> None:
        """Delete exactly this object (background propagation); quiet if it is gone already."""
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._json(
                self._dynamic.delete(_resource(kind), name, namespace, body=options, **self._options)
            )
        except ApiError as error:
            # 409: the name belongs to a younger object now
            if error.status not in (404, 409):
                raise

    async def create(self, kind: Kind, body: Object) -> Object:
        """Make an object that must not exist yet (409 if it does); the object as stored."""
        path = _path(kind, body["metadata"]["namespace"])
        return await self._json(
            self._dynamic.request("post", path, body=body, field_manager=FIELD_MANAGER, **self._options)
        )

    async def replace(self, kind: Kind, body: Object) -> Object:
        """Put a whole object; 409 unless its resourceVersion is the current one. The object as stored."""
        meta = body["metadata"]
        path = f"{_path(kind, meta['namespace'])}/{meta['name']}"
        return await self._json(self._dynamic.request("put", path, body=body, **self._options))

    async def _json(self, call: Awaitable[Any]) -> Object:
        try:
            response = await self._raw(call)
            result: Object = from_json(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ApiError(0, f"{type(error).__name__}: {error}") from error
        return result

    @staticmethod
    async def _raw(call: Awaitable[Any]) -> Any:
        try:
            return await call
        except (DynamicApiError, ApiException) as error:
            raise _api_error(error) from error
        except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise ApiError(0, f"{type(error).__name__}: {error}") from error


def _resource(kind: Kind) -> Resource:
    return Resource(
        prefix="apis" if kind.group else "api",
        group=kind.group,
        api_version=kind.version,
        kind=kind.kind,
        name=kind.plural,
        namespaced=kind.namespaced,
        verbs=[],
    )


def _path(kind: Kind, namespace: str = "") -> str:
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    return f"{root}/namespaces/{namespace}/{kind.plural}" if namespace else f"{root}/{kind.plural}"


def _slim(kind: Kind, item: Object) -> Object:
    """An object of a list without what nobody here reads: who owns which field, half of an object; and of
    pods, of which there are most, what only the kubelet needs."""
    item["metadata"].pop("managedFields", None)
    if kind == POD:
        spec = item.get("spec", {})
        for name in ("containers", "initContainers"):
            containers = spec.get(name) or ()
            spec[name] = [{part: one[part] for part in _OF_CONTAINERS if part in one} for one in containers]
        item["spec"] = {part: spec[part] for part in _OF_PODS if part in spec}
        item["metadata"].pop("annotations", None)
    return item


def _api_error(error: Any) -> ApiError:
    retry_after = (getattr(error, "headers", None) or {}).get("Retry-After")
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = str(error.body or error.reason)[:500]
    wait = float(retry_after) if retry_after and str(retry_after).isdigit() else None
    return ApiError(int(error.status or 0), message, retry_after=wait)


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length (aiohttp's own line reader refuses long ones)."""
    rest = b""
    async for chunk in stream.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line


def _event(line: bytes) -> Event:
    data = from_json(line)
    if data["type"] == "ERROR":
        status = data["object"]
        raise ApiError(int(status.get("code", 0)), status.get("message", "watch failed"))
    return Event(data["type"], data["object"])
