"""All that an operator asks of the world outside: one object, so that a test can put its faults between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tonnage.cluster.engine import EngineScraper
from tonnage.cluster.kubernetes import KubernetesCluster, connect
from tonnage.cluster.port import Cluster
from tonnage.control.world import Scraper


@dataclass(frozen=True, slots=True)
class Ports:
    """The API server and the workers."""

    cluster: Cluster
    scraper: Scraper


@asynccontextmanager
async def open_ports(*, watches: int) -> AsyncIterator[Ports]:
    """Connections of a process that keeps so many watches, closed at the end."""
    client, scraper = await connect(watches=watches), EngineScraper()
    try:
        yield Ports(KubernetesCluster(client), scraper)
    finally:
        await scraper.close()
        await client.close()
