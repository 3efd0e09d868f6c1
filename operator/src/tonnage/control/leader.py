"""Leader election by a Lease, with a monotonic deadline that every write checks.

The rules are those of client-go: a Lease that somebody else holds is taken over when it was not renewed for
its whole duration, counted from when this process saw it last change; so clocks need not agree.
"""

from __future__ import annotations

import asyncio
import logging

from tonnage.cluster.port import LEASE, ApiError, Cluster, Object
from tonnage.control.world import Clock

logger = logging.getLogger(__name__)

LEASE_SECONDS = 15
DEADLINE_SECONDS = 10
RENEW_SECONDS = 4.0
CALL_SECONDS = 4.0
CONFLICT = 409


class Leader:
    """One candidate. `holds` is the fence: False as soon as another may have taken over.

    `clock.now` must give microseconds, as a Lease's times do.
    """

    def __init__(self, cluster: Cluster, *, namespace: str, name: str, identity: str, clock: Clock) -> None:
        self.identity = identity
        self._cluster, self._namespace, self._name, self._clock = cluster, namespace, name, clock
        self._until = float("-inf")
        self._seen = ""
        self._seen_at = float("-inf")
        self._wish_seconds = 0.0

    def holds(self) -> bool:
        """May this process write now?"""
        return self._clock.monotonic() < self._until

    async def acquire(self) -> None:
        """Wait until this process holds the lease."""
        while not await self._renew():
            await asyncio.sleep(max(RENEW_SECONDS / 2, self._wish_seconds))
        logger.info("holds the leader lease", extra={"identity": self.identity})

    async def keep(self) -> None:
        """Renew the lease; returns when it is lost."""
        while self.holds():
            pause = RENEW_SECONDS if await self._renew() else RENEW_SECONDS / 4
            await asyncio.sleep(max(pause, self._wish_seconds))
        logger.error("lost the leader lease", extra={"identity": self.identity})

    async def release(self) -> None:
        """Give the lease up, so that another process need not wait for its end."""
        if not self.holds():
            return
        self._until = float("-inf")
        try:
            async with asyncio.timeout(CALL_SECONDS):
                lease = await self._read()
                if lease is not None and _holder(lease) == self.identity:
                    await self._cluster.replace(LEASE, {**lease, "spec": {"leaseDurationSeconds": 1}})
        except (ApiError, TimeoutError) as error:
            logger.warning("lease not released, it ends by itself: %s", error)

    async def _renew(self) -> bool:
        started = self._clock.monotonic()
        self._wish_seconds = 0.0
        try:
            async with asyncio.timeout(CALL_SECONDS):
                held = await self._claim()
        except TimeoutError:
            logger.warning("lease not renewed: no answer within %g s", CALL_SECONDS)
            return False
        except ApiError as error:
            if error.status != CONFLICT:  # another candidate was faster
                logger.warning("lease not renewed: %s", error)
            self._wish_seconds = error.retry_after or 0.0
            return False
        if held:
            # counted from before the call: the server's clock started no earlier
            self._until = started + DEADLINE_SECONDS
        return held

    async def _claim(self) -> bool:
        lease = await self._read()
        if lease is None:
            meta = {"namespace": self._namespace, "name": self._name}
            await self._cluster.create(LEASE, {**_TYPE, "metadata": meta, "spec": self._spec({})})
            return True
        if self._is_held_by_another(lease):
            return False
        # replacing names the resourceVersion that was read: of two candidates one gets 409
        await self._cluster.replace(LEASE, {**lease, "spec": self._spec(lease.get("spec") or {})})
        return True

    async def _read(self) -> Object | None:
        return await self._cluster.get(LEASE, namespace=self._namespace, name=self._name)

    def _is_held_by_another(self, lease: Object) -> bool:
        now, version = self._clock.monotonic(), lease["metadata"]["resourceVersion"]
        if version != self._seen:
            self._seen, self._seen_at = version, now
        if _holder(lease) in ("", self.identity):
            return False
        duration = float(lease["spec"].get("leaseDurationSeconds") or LEASE_SECONDS)
        return now < self._seen_at + duration

    def _spec(self, before: Object) -> Object:
        now, same = self._clock.now(), before.get("holderIdentity") == self.identity
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": before.get("acquireTime", now) if same else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (not same),
        }


_TYPE = {"apiVersion": LEASE.api_version, "kind": LEASE.kind}


def _holder(lease: Object) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "")
