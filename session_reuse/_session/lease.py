"""The exclusive lease of one session: kept while the body runs, released however the body ends."""

from __future__ import annotations

import asyncio
import random
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from session_reuse._resilience.failure import AttemptFailed, FailureScope, Retry
from session_reuse._session.clock import elapsed
from session_reuse._session.guarded_store import Access, GuardedStore, Request
from session_reuse._session.tasks import Spawn
from session_reuse._store.interface import Busy, EnterReply, Lease
from session_reuse._telemetry import Event, Operation, Telemetry, log
from session_reuse.config import Config
from session_reuse.errors import StoreUnavailableError

if TYPE_CHECKING:
    from session_reuse._session.writer import Writer

_POLL: Final = (0.02, 0.1)
"""Shortest and longest pause between two requests for a busy lease, in seconds."""


class LeaseHolder:
    """The lease of one `with`.

    Attributes:
        holder: names this holder, different for each `with`.
        lease: the lease, once it is taken.
    """

    def __init__(
        self, store: GuardedStore, writer: Writer, telemetry: Telemetry, fingerprint: str, agent_id: str | None, config: Config,
        spawn: Spawn,
    ) -> None:  # fmt: skip
        self._store = store
        self._writer = writer
        self._telemetry = telemetry
        self._fingerprint = fingerprint
        self._config = config
        self._ttl = config.lease_ttl
        self._spawn = spawn
        self.holder = f"{agent_id or 'agent'}-{secrets.token_hex(6)}"
        self.lease: Lease | None = None
        self._heartbeat: asyncio.Task[None] | None = None

    async def deliver_first(self, budget: float) -> None:
        """Write what waits, and wait for a last save on its way: a new lease would make the saves of earlier ones stale.

        Raises:
            AttemptFailed: one of them still waits after `budget` seconds.
        """
        replica = self._writer.replicas.of(self._fingerprint)
        first = [change for change in replica.unsettled if change.release or change in replica.outbox]
        if first and replica.writing:
            with suppress(TimeoutError):
                async with asyncio.timeout(budget):
                    await first[-1].final()
        await self._writer.flush(self._fingerprint, budget)
        if any(change.lease is not None for change in replica.outbox):
            error = StoreUnavailableError("a save under an earlier lease waits")
            raise AttemptFailed(error, "pending", Retry.NEVER, FailureScope.REQUEST)

    async def wait(
        self, reply: EnterReply, request: Request[EnterReply], budget: float, seconds: float, chance: random.Random
    ) -> EnterReply:  # fmt: skip
        """Wait for a busy lease without reading the session meanwhile. Return the reply that says who holds it now.

        Args:
            reply: the busy one.
            request: enters again, once the lease is taken.
            budget: seconds for that.
            seconds: how long to wait at most.
            chance: where the jitter comes from.

        Raises:
            AttemptFailed: the store did not answer, or a save of an earlier lease waits.
        """
        give_up = elapsed() + seconds
        while isinstance(reply.lease, Busy) and await self._taken(reply.lease, give_up, chance):
            reply = await self._store.run(Access.READ, self._fingerprint, budget, request)
        return reply

    async def _taken(self, busy: Busy, give_up: float, chance: random.Random) -> bool:
        held: Lease | Busy = busy
        while isinstance(held, Busy) and (left := give_up - elapsed()) > 0:
            pause = min(left, max(_POLL[0], min(held.left or _POLL[1], _POLL[1])))
            await asyncio.sleep(pause * chance.uniform(0.5, 1.0))
            await self.deliver_first(self._config.restore_timeout / 2)
            held = await self._store.run(
                Access.READ, self._fingerprint, self._config.restore_timeout,
                lambda store, timeout: store.acquire(self._fingerprint, self.holder, self._ttl, timeout=timeout),
            )  # fmt: skip
        return isinstance(held, Lease)

    def take(self, lease: Lease) -> None:
        """Keep a lease from now on, by renewing it at a third of its time to live."""
        self.lease = lease
        self._heartbeat = self._spawn(self._beat(lease), "heartbeat")

    def stop(self) -> None:
        """Stop renewing."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None

    async def _beat(self, lease: Lease) -> None:
        pause = self._ttl / 3
        while True:
            await asyncio.sleep(pause)
            pause = self._ttl / 3
            try:
                kept = await self._store.run(
                    Access.WRITE, self._fingerprint, self._ttl / 3,
                    lambda store, timeout: store.renew(self._fingerprint, lease, self._ttl, timeout=timeout),
                )  # fmt: skip
            except AttemptFailed as failure:
                self._degraded(failure)
                pause = self._ttl / 30  # a store that is away for a moment at two beats must not cost the lease
                continue
            if not kept:
                log.warning(Event.LEASE_LOST, fingerprint=self._fingerprint)
                return

    def refused(self, busy: Busy) -> None:
        """Abandon the lease, as another holder has it."""
        if busy.foreign:
            log.warning(Event.LEASE_FOREIGN, fingerprint=self._fingerprint, remedy="the lease key holds something else")
        self.abandon()  # a copy of the request may still be on its way

    def abandon(self) -> None:
        """Release it in the background, also one that may be taken by a request that is still on its way."""
        self.stop()
        self._spawn(self.release(self._config.save_timeout), "release")

    async def release(self, budget: float) -> None:
        """Release the lease, also one whose reply was lost.

        While the store is away it is tried again, until the lease has expired.
        """
        self.stop()
        lease = self.lease or Lease(0, self.holder)
        until = elapsed() + self._ttl
        pause = 0.05
        while True:
            try:
                await self._store.run(
                    Access.WRITE, self._fingerprint, budget,
                    lambda store, timeout: store.release(self._fingerprint, lease, timeout=timeout),
                )  # fmt: skip
            except AttemptFailed as failure:
                self._degraded(failure)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)
            if elapsed() > until:
                return

    def _degraded(self, failure: AttemptFailed) -> None:
        self._telemetry.degraded(Operation.LEASE, failure.error, code=failure.code, fingerprint=self._fingerprint)
