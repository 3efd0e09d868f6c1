"""A user's HTTP client, and a mirror of the cluster fed by watches: nothing is polled."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from harness.cluster import Cluster
from sequences.ground import inspection_answer
from tonnage.cluster.port import CHILDREN, GROUP_SET, LLM_DEPLOYMENT, POD, Kind, Object
from tonnage.rendering.names import COMPONENT, INSPECT, MANAGED_BY, MANAGER
from tonnage.rendering.names import DEPLOYMENT as OWNER_LABEL

USER, OTHER = "sequences-user", "somebody-else"
_ANSWERED = "test.tonnage.dev/termination-message"
# no plan of a sequence spans nodes
_OWN = (*(kind for kind in CHILDREN if kind != GROUP_SET), POD)
_WATCHED = ((LLM_DEPLOYMENT, ""), *((kind, f"{MANAGED_BY}={MANAGER}") for kind in _OWN))
_TOO_EARLY, _RETRY_SECONDS = 429, 1.0
_EXIT_CODE = "test.tonnage.dev/exit-code"
Key = tuple[str, str]


@dataclass
class Family:
    """One LLMDeployment and what carries its label, as last seen."""

    object: Object | None = None
    children: dict[tuple[str, str], Object] = field(default_factory=dict)

    def child(self, kind: str, name: str) -> Object | None:
        """A child by kind and name."""
        return self.children.get((kind, name))

    def all(self, kind: str) -> list[Object]:
        """Children of a kind, by name."""
        return [body for (of, _), body in sorted(self.children.items()) if of == kind]

    @property
    def empty(self) -> bool:
        """Nothing is left of it."""
        return self.object is None and not self.children


class Client:
    """Writes as users do. Every call returns (HTTP status, answer)."""

    def __init__(self, session: aiohttp.ClientSession, *, server: str) -> None:
        self._session, self._server = session, server

    async def apply(self, kind: Kind, body: Object) -> tuple[int, Object]:
        """Server-side apply as the user, strict, as kubectl does it."""
        query = f"fieldManager={USER}&force=true&fieldValidation=Strict"
        return await self._patch(kind, body["metadata"], query, body, "application/apply-patch+yaml")

    async def note(self, kind: Kind, body: Object, patch: Mapping[str, Any]) -> tuple[int, Object]:
        """Merge patch as somebody else."""
        query = f"fieldManager={OTHER}"
        return await self._patch(kind, body["metadata"], query, patch, "application/merge-patch+json")

    async def delete(self, kind: Kind, *, namespace: str, name: str) -> tuple[int, Object]:
        """Delete in the background."""
        async with self._session.delete(f"{self._server}{_path(kind, namespace, name)}") as answer:
            return answer.status, await answer.json()

    async def list(self, kind: Kind, selector: str) -> tuple[list[Object], str]:
        """All objects of a kind that carry the labels, and the version at which."""
        while (found := await self._listed(kind, selector)) is None:
            await asyncio.sleep(_RETRY_SECONDS)
        items = [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in found["items"]]
        return items, found["metadata"]["resourceVersion"]

    async def _listed(self, kind: Kind, selector: str) -> Object | None:
        """None where the server asks to come again: it prepares the storage of a new definition."""
        query = {"labelSelector": selector}
        async with self._session.get(self._all(kind), params=query) as answer:
            if answer.status == _TOO_EARLY:
                return None
            answer.raise_for_status()
            found: Object = await answer.json()
            return found

    async def watch(self, kind: Kind, selector: str, version: str) -> AsyncIterator[tuple[str, Object]]:
        """Events after a version until the server ends the watch: ADDED, MODIFIED, DELETED or ERROR."""
        query = {"labelSelector": selector, "watch": "true", "resourceVersion": version}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=None)
        async with self._session.get(self._all(kind), params=query, timeout=timeout) as answer:
            answer.raise_for_status()
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    yield event["type"], event["object"]

    def _all(self, kind: Kind) -> str:
        root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
        return f"{self._server}{root}/{kind.plural}"

    async def _patch(
        self, kind: Kind, meta: Mapping[str, Any], query: str, body: Mapping[str, Any], content: str
    ) -> tuple[int, Object]:
        url = f"{self._server}{_path(kind, meta['namespace'], meta['name'])}?{query}"
        data = json.dumps(body)
        async with self._session.patch(url, data=data, headers={"Content-Type": content}) as answer:
            return answer.status, await answer.json()


def _path(kind: Kind, namespace: str, name: str) -> str:
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    return f"{root}/namespaces/{namespace}/{kind.plural}/{name}"


class Mirror:
    """Families by namespace and name, by own watches. It also ends the inspections, at once."""

    def __init__(self, client: Client) -> None:
        self.families: dict[Key, Family] = {}
        self.broken: BaseException | None = None
        self._client = client
        self._waiting: dict[Key, set[asyncio.Event]] = {}
        self._answered: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """List everything, then watch it for ever."""
        for kind, selector in _WATCHED:
            version = await self._list(kind, selector)
            self._spawn(self._watch(kind, selector, version))

    async def stop(self) -> None:
        """End the watches."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.broken = task.exception()

    async def _list(self, kind: Kind, selector: str) -> str:
        objects, version = await self._client.list(kind, selector)
        self._replace(kind, objects)
        return version

    async def _watch(self, kind: Kind, selector: str, version: str) -> None:
        while True:
            async for event, body in self._client.watch(kind, selector, version):
                if event == "ERROR":
                    break
                if event == "DELETED":
                    self._drop(_key(body), kind.kind, body["metadata"]["name"])
                else:
                    self._put(kind, body)
            version = await self._list(kind, selector)

    def family(self, key: Key) -> Family:
        """What is known of a name; empty if nothing is."""
        return self.families.get(key) or Family()

    async def until(self, key: Key, wrong: Callable[[Family], str], *, seconds: float) -> str:
        """Wait until nothing is `wrong` with a family; returns what still is after `seconds`, or ""."""
        changed = asyncio.Event()
        self._waiting.setdefault(key, set()).add(changed)
        deadline = time.monotonic() + seconds
        try:
            while text := wrong(self.family(key)):
                if self.broken is not None:
                    raise AssertionError("a watch of the mirror broke") from self.broken
                changed.clear()
                try:
                    await asyncio.wait_for(changed.wait(), max(deadline - time.monotonic(), 0.0))
                except TimeoutError:
                    return text
            return ""
        finally:
            self._waiting[key].discard(changed)

    def _replace(self, kind: Kind, objects: list[Object]) -> None:
        listed = {(_key(body), body["metadata"]["name"]) for body in objects}
        for key, family in list(self.families.items()):
            for of, name in list(family.children):
                if of == kind.kind and (key, name) not in listed:
                    self._drop(key, of, name)
            if kind == LLM_DEPLOYMENT and family.object is not None and (key, key[1]) not in listed:
                self._drop(key, LLM_DEPLOYMENT.kind, key[1])
        for body in objects:
            self._put(kind, body)

    def _put(self, kind: Kind, body: Object) -> None:
        key = _key(body)
        family = self.families.setdefault(key, Family())
        if kind == LLM_DEPLOYMENT:
            family.object = body
        else:
            family.children[kind.kind, body["metadata"]["name"]] = body
        if kind == POD and body["metadata"]["labels"].get(COMPONENT) == INSPECT:
            self._end_inspection(body)
        self._tell(key)

    def _drop(self, key: Key, kind: str, name: str) -> None:
        family = self.families.get(key)
        if family is None:
            return
        if kind == LLM_DEPLOYMENT.kind:
            family.object = None
        else:
            family.children.pop((kind, name), None)
        if family.empty:
            del self.families[key]
        self._tell(key)

    def _tell(self, key: Key) -> None:
        for changed in self._waiting.get(key, ()):
            changed.set()

    def _end_inspection(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if uid not in self._answered and _ANSWERED not in pod["metadata"].get("annotations", {}):
            self._answered.add(uid)
            text, code = inspection_answer(pod)
            notes = {"metadata": {"annotations": {_ANSWERED: text, _EXIT_CODE: str(code)}}}
            self._spawn(self._note(pod, notes))

    async def _note(self, pod: Object, notes: Mapping[str, Any]) -> None:
        await self._client.note(POD, pod, notes)


def _key(body: Object) -> Key:
    meta = body["metadata"]
    name = meta["name"] if body["kind"] == LLM_DEPLOYMENT.kind else meta["labels"].get(OWNER_LABEL, "")
    return meta["namespace"], name


@asynccontextmanager
async def connected(cluster: Cluster) -> AsyncIterator[tuple[Client, Mirror]]:
    """A client and a mirror of the cluster, in step with it when this is entered."""
    configuration = Configuration()
    await config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    trust = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    trust.load_cert_chain(configuration.cert_file, configuration.key_file)
    connector = aiohttp.TCPConnector(ssl=trust, limit=128)
    async with aiohttp.ClientSession(connector=connector) as session:
        client = Client(session, server=configuration.host)
        mirror = Mirror(client)
        try:
            await mirror.start()
            yield client, mirror
        finally:
            await mirror.stop()
