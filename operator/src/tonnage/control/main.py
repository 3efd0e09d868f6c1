"""kopf's part: start-up, signals, and the watch of LLMDeployments. Its one handler only feeds the store."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import kopf

from tonnage.api.base import GROUP, PLURAL, VERSION
from tonnage.control.config import ConfigError, read_config
from tonnage.control.process import Process

logger = logging.getLogger(__name__)


class Backoffs:
    """Seconds between attempts of a request, without an end: kopf gives up where they end.

    It would then end the process, also where a right is missing in one of several namespaces.
    """

    def __iter__(self) -> Iterator[float]:
        yield from (1, 1, 2, 3, 5, 8, 13, 21)
        while True:
            yield 30


def build_registry(process: Process, *, stop_flag: threading.Event) -> kopf.OperatorRegistry:
    """kopf's handlers of one process: no module-level state, so tests can run several."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)
        try:
            await process.start()
        except asyncio.CancelledError:
            # kopf takes no clean-up after a start that was cut short
            await process.stop()
            stop_flag.set()
            raise

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        await process.stop()
        # kopf waits for the flag in a thread, and Python waits for the thread before it exits
        stop_flag.set()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        process.take(event["type"], dict(event["object"]))

    return registry


def configure(settings: kopf.OperatorSettings) -> None:
    """kopf writes nothing to objects, watches only what it is told to, and notices a silent connection."""
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.networking.request_timeout = 30
    settings.networking.enforce_retry_after = True
    settings.networking.error_backoffs = Backoffs()
    settings.watching.chunk_size = 500
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
    stop_flag = threading.Event()
    process = Process(config, failed=stop_flag.set)
    kopf.run(
        registry=build_registry(process, stop_flag=stop_flag),
        clusterwide=not config.watched,
        namespaces=config.watched,
        standalone=True,
        stop_flag=stop_flag,
    )
    if process.failure:
        sys.exit(1)
