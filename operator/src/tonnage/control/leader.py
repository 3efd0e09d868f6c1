"""Leader election: the official client's Lease lock, with a monotonic deadline that every write checks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, CoordinationV1Api, V1Lease, V1ObjectMeta
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

logger = logging.getLogger(__name__)

LEASE_SECONDS = 15
DEADLINE_SECONDS = 10
RENEW_SECONDS = 4
CALL_SECONDS = 4.0


class _Lock(LeaseLock):  # type: ignore[misc]
    """The official lock, able to create its Lease: client 37.0.2 passes a bool where its API wants text."""

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        body = V1Lease(metadata=V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        try:
            await self.api_instance.create_namespaced_lease(namespace, body)
        except ApiException as error:
            logger.warning("lease not created: %s", error.reason)
            return False
        return True


class Leader:
    """One candidate. `holds` is the fence: False as soon as another may have taken over."""

    def __init__(
        self,
        client: ApiClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float],
    ) -> None:
        self.identity = identity
        self._clock = clock
        self._until = float("-inf")
        self._lock = _Lock(name, namespace, identity, client)
        self._leases = CoordinationV1Api(client)
        self._election = LeaderElection(
            Config(self._lock, LEASE_SECONDS, DEADLINE_SECONDS, RENEW_SECONDS, _nothing, _nothing)
        )

    def holds(self) -> bool:
        """May this process write now?"""
        return self._clock() < self._until

    async def acquire(self) -> None:
        """Wait until this process holds the lease."""
        while not await self._renew():
            await asyncio.sleep(RENEW_SECONDS / 2)
        logger.info("holds the leader lease", extra={"identity": self.identity})

    async def keep(self) -> None:
        """Renew the lease; returns when it is lost."""
        while self.holds():
            await asyncio.sleep(RENEW_SECONDS if await self._renew() else RENEW_SECONDS / 4)
        logger.error("lost the leader lease", extra={"identity": self.identity})

    async def release(self) -> None:
        """Give the lease up, so that another process need not wait for its end."""
        if not self.holds():
            return
        self._until = float("-inf")
        body: dict[str, Any] = {"spec": {"holderIdentity": None, "renewTime": None, "acquireTime": None}}
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await self._leases.patch_namespaced_lease(self._lock.name, self._lock.namespace, body)
        except (ApiException, aiohttp.ClientError, OSError, TimeoutError) as error:
            logger.warning("lease not released, it ends by itself: %s", error)

    async def _renew(self) -> bool:
        started = self._clock()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                held = await self._election.try_acquire_or_renew()
        except (ApiException, aiohttp.ClientError, OSError, TimeoutError) as error:
            logger.warning("lease not renewed: %s: %s", type(error).__name__, error)
            return False
        if held:
            # counted from before the call: the server's clock started no earlier
            self._until = started + DEADLINE_SECONDS
        return bool(held)


async def _nothing() -> None:
    """The election's callbacks are not used: `acquire` and `keep` are awaited instead."""
