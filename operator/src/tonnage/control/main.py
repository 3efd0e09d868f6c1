"""The operator's command: settings, log, signals."""

from __future__ import annotations

import asyncio
import signal
import sys

from tonnage.control.config import Config, ConfigError, read_config
from tonnage.control.logs import log_as_json
from tonnage.control.ports import open_ports
from tonnage.control.process import Process, watched


async def run(config: Config) -> str:
    """Run until SIGTERM, or until a part of the operator failed; returns what failed, or an empty string."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with open_ports(watches=len(watched(config))) as ports:
        process = Process(config, ports=ports, failed=stopping.set)
        try:
            await process.start()
            await stopping.wait()
        finally:
            await process.stop()
    return process.failure


def main() -> None:
    """Run until SIGTERM; exit code 1 if a part of the operator failed, 2 if a setting is wrong."""
    try:
        config = read_config()
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    log_as_json(config.log_level)
    if asyncio.run(run(config)):
        sys.exit(1)
