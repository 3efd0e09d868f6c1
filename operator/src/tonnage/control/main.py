"""kopf's part: start-up, signals, and the watch of LLMDeployments. Its one handler only feeds the store."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import kopf

from tonnage.api.base import GROUP, PLURAL, VERSION
from tonnage.control.config import Config, ConfigError, read_config
from tonnage.control.ports import open_ports
from tonnage.control.process import Process, watched


class Backoffs:
    """Seconds between attempts of a request, without an end: kopf gives up where they end.

    It would then end the process, also where a right is missing in one of several namespaces.
    """

    def __iter__(self) -> Iterator[float]:
        yield from (1, 1, 2, 3, 5, 8, 13, 21)
        while True:
            yield 30


class NoEssence(kopf.DiffBaseStorage):
    """kopf would copy each object, to tell handlers what changed in it; there are none that ask."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        """Nothing of an object is of interest."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing was kept."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is kept: the operator writes its status and nothing else to an object."""


class Operator:
    """The process that kopf runs: made when its event loop is there, ended with it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.stop_flag = threading.Event()
        self._opened = AsyncExitStack()
        self._process: Process | None = None

    async def start(self) -> None:
        """Returns when all was listed: kopf looks once which resources there are, and lists at its start too.

        Two lists of everything at a time would be most of the process's memory.
        """
        ports = await self._opened.enter_async_context(open_ports(watches=len(watched(self.config))))
        self._process = Process(self.config, ports=ports, failed=self.stop_flag.set, watches_objects=False)
        self._opened.push_async_callback(self._process.stop)
        await self._process.start()
        await self._process.listed()

    def take(self, event_type: str | None, body: dict[str, Any]) -> None:
        """An event of an LLMDeployment."""
        if self._process is not None:
            self._process.take(event_type, body)

    async def stop(self) -> None:
        """Stop, release the lease, close the connections."""
        await self._opened.aclose()
        # kopf waits for the flag in a thread, and Python waits for the thread before it exits
        self.stop_flag.set()

    @property
    def failure(self) -> str:
        """What ended by itself; empty if nothing."""
        return self._process.failure if self._process is not None else ""


def build_registry(operator: Operator) -> kopf.OperatorRegistry:
    """kopf's handlers of one operator: no module-level state, so tests can run several."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)
        try:
            await operator.start()
        except asyncio.CancelledError:
            # kopf takes no clean-up after a start that was cut short
            await operator.stop()
            raise

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        await operator.stop()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        operator.take(event["type"], dict(event["object"]))

    return registry


def configure(settings: kopf.OperatorSettings) -> None:
    """kopf writes nothing to objects, watches only what it is told to, and notices a silent connection."""
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = NoEssence()
    # a task of each object holds its last event until it ends
    settings.queueing.idle_timeout = 0.1
    settings.networking.request_timeout = 30
    settings.networking.enforce_retry_after = True
    settings.networking.error_backoffs = Backoffs()
    settings.watching.chunk_size = 100
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = 300


def main() -> None:
    """Run until SIGTERM; exit code 1 if a part of the operator failed, 2 if a setting is wrong."""
    try:
        config = read_config()
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    kopf.configure(log_format=kopf.LogFormat.JSON, log_refkey="kopf")
    logging.getLogger().setLevel(config.log_level)
    # kopf tells each event that its handler took; the store's passes say what came of it
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    operator = Operator(config)
    kopf.run(
        registry=build_registry(operator),
        clusterwide=not config.watched,
        namespaces=config.watched,
        standalone=True,
        stop_flag=operator.stop_flag,
    )
    if operator.failure:
        sys.exit(1)
