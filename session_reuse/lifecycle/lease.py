"""Keeping an exclusive lease while the body runs. Must never hold up the body, nor hold on after it has ended."""

from __future__ import annotations

import asyncio

from session_reuse._telemetry import Event, log
from session_reuse.lifecycle.services import Services
from session_reuse.resilience.failure import Failure
from session_reuse.resilience.guard import Direction
from session_reuse.store.interface import Lease


class Heartbeat:
    """Renews a lease at a third of its time to live, until it is stopped or the lease is lost.

    Attributes:
        lost: another holder has, or may have, taken over; the store will refuse our save.
    """

    def __init__(self, services: Services, fingerprint: str, lease: Lease) -> None:
        self._services = services
        self._fingerprint = fingerprint
        self._lease = lease
        self.lost = False
        self._task = services.spawn(self._beat(), "heartbeat")

    def stop(self) -> None:
        """Stop renewing."""
        self._task.cancel()

    async def _beat(self) -> None:
        ttl = self._services.config.lease_ttl
        while not self.lost:
            await asyncio.sleep(ttl / 3)
            try:
                server = self._services.server_of(self._fingerprint)
                kept = await self._services.guard.run(Direction.WRITE, self._renew, ttl / 3, server)
            except Failure as failure:
                self._services.degraded("lease", failure, self._fingerprint)
                continue
            if not kept:
                self.lost = True
                log.warning(Event.LEASE_LOST, fingerprint=self._fingerprint)

    async def _renew(self, timeout: float) -> bool:
        ttl = self._services.config.lease_ttl
        return await self._services.store.renew(self._fingerprint, self._lease, ttl, timeout=timeout)


def give_back(services: Services, fingerprint: str, lease: Lease) -> None:
    """Release a lease in the background; if the store is away it ends by itself."""
    services.spawn(_give_back(services, fingerprint, lease), "release")


async def _give_back(services: Services, fingerprint: str, lease: Lease) -> None:
    async def release(timeout: float) -> bool:
        return await services.store.release(fingerprint, lease, timeout=timeout)

    try:
        await services.guard.run(
            Direction.WRITE, release, services.config.save_timeout, services.server_of(fingerprint)
        )
    except Failure as failure:
        services.degraded("lease", failure, fingerprint)
