"""The store behind its guard: each request has a budget, retries where they help, and passes a circuit breaker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from session_reuse.resilience.failure import Failure
from session_reuse.resilience.guard import Direction, Guard
from session_reuse.store.interface import Busy, Commit, CommitReply, EnterReply, Lease, ReadReply, Store
from session_reuse.store.keys import Keys

T = TypeVar("T")


class GuardedStore:
    """A store, and the guard that each request passes.

    Every method takes its budget in seconds and raises `Failure` when the store does not do it within.

    Args:
        store: what does the work.
        guard: deadlines, retries, breakers.
        keys: the names.

    Attributes:
        on_failure: called with each failure, to start a private server again.
    """

    def __init__(self, store: Store, guard: Guard, keys: Keys) -> None:
        self.store = store
        self.guard = guard
        self.keys = keys
        self.on_failure: Callable[[Failure], None] = lambda _: None

    def server_of(self, fingerprint: str) -> str:
        """Return which server a session lives on; empty where there is only one."""
        return self.store.server_of(self.keys.session(fingerprint))

    async def enter(
        self, fingerprint: str, budget: float, *, ttl: float | None, lease: tuple[str, float] | None, use_id: str,
        ceiling: bool = False,
    ) -> EnterReply:  # fmt: skip
        """Read a session, start its time to live anew, take its lease if one is asked for."""
        return await self._run(
            Direction.READ, fingerprint, budget,
            lambda timeout: self.store.enter(
                fingerprint, ttl=ttl, timeout=timeout, lease=lease, use_id=use_id, ceiling=ceiling
            ),
        )  # fmt: skip

    async def slide(self, fingerprint: str, budget: float, ttl: float) -> None:
        """Start the time to live anew within the limits that the session itself sets."""
        await self._run(
            Direction.WRITE, fingerprint, budget, lambda timeout: self.store.slide(fingerprint, ttl, timeout=timeout)
        )

    async def read(self, fingerprint: str, budget: float) -> ReadReply:
        """Read a session and leave its time to live alone."""
        return await self._run(
            Direction.READ, fingerprint, budget, lambda timeout: self.store.read(fingerprint, timeout=timeout)
        )

    async def commit(self, commit: Commit, budget: float) -> CommitReply:
        """Save, if the store holds what the commit expects."""
        return await self._run(
            Direction.WRITE, commit.fingerprint, budget, lambda timeout: self.store.commit(commit, timeout=timeout)
        )

    async def acquire(self, fingerprint: str, budget: float, holder: str, ttl: float) -> Lease | Busy:
        """Take the lease alone."""
        return await self._run(
            Direction.READ, fingerprint, budget,
            lambda timeout: self.store.acquire(fingerprint, holder, ttl, timeout=timeout),
        )  # fmt: skip

    async def renew(self, fingerprint: str, budget: float, lease: Lease, ttl: float) -> bool:
        """Prolong a lease; False when another holder has it."""
        return await self._run(
            Direction.WRITE, fingerprint, budget,
            lambda timeout: self.store.renew(fingerprint, lease, ttl, timeout=timeout),
        )  # fmt: skip

    async def release(self, fingerprint: str, budget: float, lease: Lease) -> bool:
        """Give a lease back; False when another holder has it."""
        return await self._run(
            Direction.WRITE, fingerprint, budget,
            lambda timeout: self.store.release(fingerprint, lease, timeout=timeout),
        )  # fmt: skip

    async def invalidate(
        self, fingerprint: str, budget: float, *, ttl: float, request_id: str, created_at: int
    ) -> bool:  # fmt: skip
        """Delete a session and refuse late saves for `ttl` seconds; return whether there was one."""
        return await self._run(
            Direction.WRITE, fingerprint, budget,
            lambda timeout: self.store.invalidate(
                fingerprint, ttl=ttl, request_id=request_id, created_at=created_at, timeout=timeout
            ),
        )  # fmt: skip

    async def affinity(self, agent_id: str, budget: float) -> str | None:
        """Return the affinity entry of an agent."""
        server = self.store.server_of(self.keys.affinity(agent_id))
        return await self.guard.run(
            Direction.READ, lambda timeout: self.store.affinity(agent_id, timeout=timeout), budget, server
        )

    async def _run(
        self, direction: Direction, fingerprint: str, budget: float, attempt: Callable[[float], Awaitable[T]]
    ) -> T:  # fmt: skip
        try:
            return await self.guard.run(direction, attempt, budget, self.server_of(fingerprint))
        except Failure as failure:
            self.on_failure(failure)
            raise
