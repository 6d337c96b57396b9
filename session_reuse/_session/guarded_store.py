"""The store behind its guard: each request has a budget, retries where they help, and passes a circuit breaker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NotRequired, TypedDict, TypeVar, Unpack

from session_reuse._resilience.guard import Access, Guard
from session_reuse._store.interface import (
    Busy,
    Commit,
    CommitReply,
    EnterReply,
    Lease,
    PoolEdit,
    PoolMember,
    PoolReply,
    ReadReply,
    SessionEntry,
    SessionUse,
    Store,
)
from session_reuse._store.keys import Keys

T = TypeVar("T")


class EnterOptions(TypedDict):
    """The options of `Store.enter`, which explains them."""

    ttl: float | None
    lease: NotRequired[tuple[str, float] | None]
    use_id: NotRequired[str]
    ceiling: NotRequired[bool]
    timed: NotRequired[bool]


class GuardedStore:
    """A store, and the guard that each request passes.

    Every method takes its budget in seconds, to be awaited at once, and raises `AttemptFailed` when the store does not do it within.

    Args:
        store: what does the work.
        guard: deadlines, retries, breakers.
        keys: the names.

    Attributes:
        time: returns the time that budgets are counted by: seconds, without those in which the event loop was late.
    """

    def __init__(self, store: Store, guard: Guard, keys: Keys) -> None:
        self.store = store
        self.guard = guard
        self.keys = keys
        self.time = guard.timeouts.time  # no method: it is called seven times in a cycle

    def server_of(self, fingerprint: str) -> str:
        """Return which server a session lives on. Empty where there is only one."""
        return self.store.server_of(self.keys.session(fingerprint))

    def enter(self, fingerprint: str, budget: float, **options: Unpack[EnterOptions]) -> Awaitable[EnterReply]:
        """Read a session, restart its time to live, take its lease if one is asked for."""
        return self._run(
            Access.READ, fingerprint, budget,
            lambda timeout: self.store.enter(fingerprint, timeout=timeout, **options),
        )  # fmt: skip

    def slide(self, fingerprint: str, budget: float, ttl: float) -> Awaitable[None]:
        """Restart the time to live within the limits that the session itself sets."""
        return self._run(
            Access.WRITE, fingerprint, budget, lambda timeout: self.store.slide(fingerprint, ttl, timeout=timeout)
        )

    def read(self, fingerprint: str, budget: float) -> Awaitable[ReadReply]:
        """Read a session and leave its time to live alone."""
        return self._run(
            Access.READ, fingerprint, budget, lambda timeout: self.store.read(fingerprint, timeout=timeout)
        )

    def commit(self, commit: Commit, budget: float) -> Awaitable[CommitReply]:
        """Save, if the store holds what the commit expects."""
        return self._run(
            Access.WRITE, commit.fingerprint, budget, lambda timeout: self.store.commit(commit, timeout=timeout)
        )

    def acquire(self, fingerprint: str, budget: float, holder: str, ttl: float) -> Awaitable[Lease | Busy]:
        """Take the lease alone."""
        return self._run(
            Access.READ, fingerprint, budget,
            lambda timeout: self.store.acquire(fingerprint, holder, ttl, timeout=timeout),
        )  # fmt: skip

    def renew(self, fingerprint: str, budget: float, lease: Lease, ttl: float) -> Awaitable[bool]:
        """Prolong a lease; False when another holder has it."""
        return self._run(
            Access.WRITE, fingerprint, budget,
            lambda timeout: self.store.renew(fingerprint, lease, ttl, timeout=timeout),
        )  # fmt: skip

    def release(self, fingerprint: str, budget: float, lease: Lease) -> Awaitable[bool]:
        """Release a lease; False when another holder has it."""
        return self._run(
            Access.WRITE, fingerprint, budget,
            lambda timeout: self.store.release(fingerprint, lease, timeout=timeout),
        )  # fmt: skip

    def invalidate(
        self, fingerprint: str, budget: float, *, ttl: float, request_id: str, created_at: int
    ) -> Awaitable[bool]:  # fmt: skip
        """Delete a session and refuse late saves for `ttl` seconds. Return whether there was one."""
        return self._run(
            Access.WRITE, fingerprint, budget,
            lambda timeout: self.store.invalidate(
                fingerprint, ttl=ttl, request_id=request_id, created_at=created_at, timeout=timeout
            ),
        )  # fmt: skip

    def affinity(self, agent_id: str, budget: float) -> Awaitable[str | None]:
        """Return the affinity entry of an agent."""
        server = self.store.server_of(self.keys.affinity(agent_id))
        return self.guard.run(
            Access.READ, lambda timeout: self.store.affinity(agent_id, timeout=timeout), budget, server
        )

    def facts(self, fingerprint: str, budget: float) -> Awaitable[SessionEntry | None]:
        """Return what a listing shows of one session."""
        return self._run(
            Access.READ, fingerprint, budget, lambda timeout: self.store.facts(fingerprint, timeout=timeout)
        )

    def note_liveness(
        self, fingerprint: str, budget: float, verdict: str, created_at: int, ttl: float
    ) -> Awaitable[None]:  # fmt: skip
        """Keep what a probe has found out about a login."""
        return self._run(
            Access.WRITE, fingerprint, budget,
            lambda timeout: self.store.note_liveness(fingerprint, verdict, created_at, ttl, timeout=timeout),
        )  # fmt: skip

    def totp_secret(self, fingerprint: str, budget: float) -> Awaitable[tuple[bytes | None, int]]:
        """Return the sealed secret of a session's one-time codes, and the server time in µs."""
        return self._run(
            Access.READ, fingerprint, budget, lambda timeout: self.store.totp_secret(fingerprint, timeout=timeout)
        )

    def set_totp_secret(
        self, fingerprint: str, budget: float, value: bytes, known: bytes | None = None
    ) -> Awaitable[bool]:  # fmt: skip
        """Keep a sealed secret, or none, if the known one is there."""
        return self._run(
            Access.WRITE, fingerprint, budget,
            lambda timeout: self.store.set_totp_secret(fingerprint, value, known, timeout=timeout),
        )  # fmt: skip

    def shares_server_with_audit(self, fingerprint: str) -> bool:
        """Return whether a session and the audit live on one server."""
        return self.store.server_of(self.keys.audit) == self.server_of(fingerprint)

    def add_uses(self, uses: Sequence[tuple[SessionUse, float]], budget: float) -> Awaitable[None]:
        """Append lines to the audit."""
        server = self.store.server_of(self.keys.audit)
        return self.guard.run(Access.WRITE, lambda timeout: self.store.add_uses(uses, timeout=timeout), budget, server)

    def take_from_pool(
        self, pool: str, budget: float, waiter: str, arrival: int, hold: float, longest: float
    ) -> Awaitable[PoolReply]:  # fmt: skip
        """Reserve a member of a pool, or take a place in its queue."""
        return self._run_pool(
            Access.READ, pool, budget,
            lambda timeout: self.store.take_from_pool(pool, waiter, arrival, hold, longest, timeout=timeout),
        )  # fmt: skip

    def leave_pool(self, pool: str, budget: float, waiter: str) -> Awaitable[None]:
        """Remove a waiter from the queue of a pool."""
        return self._run_pool(
            Access.WRITE, pool, budget, lambda timeout: self.store.leave_pool(pool, waiter, timeout=timeout)
        )

    def return_to_pool(
        self, pool: str, budget: float, member: str, cooldown: float, reserved_until: int
    ) -> Awaitable[None]:  # fmt: skip
        """Free a member after so many seconds."""
        return self._run_pool(
            Access.WRITE, pool, budget,
            lambda timeout: self.store.return_to_pool(pool, member, cooldown, reserved_until, timeout=timeout),
        )  # fmt: skip

    def member_facts(
        self, pool: str, member: str, fingerprint: str, budget: float
    ) -> Awaitable[SessionEntry | None]:  # fmt: skip
        """Return what a listing shows of a reserved member's session. None when the member is not to be used."""
        return self._run(
            Access.READ, fingerprint, budget,
            lambda timeout: self.store.member_facts(pool, member, fingerprint, timeout=timeout),
        )  # fmt: skip

    def edit_pool(
        self, pool: str, budget: float, edit: PoolEdit, members: Sequence[str], request_id: str
    ) -> Awaitable[int]:  # fmt: skip
        """Add or remove members. Return how many."""
        return self._run_pool(
            Access.WRITE, pool, budget,
            lambda timeout: self.store.edit_pool(pool, edit, members, request_id, timeout=timeout),
        )  # fmt: skip

    def pool_members(self, pool: str, budget: float) -> Awaitable[list[PoolMember]]:
        """Return the members, the next one to be used first."""
        return self._run_pool(Access.READ, pool, budget, lambda timeout: self.store.pool_members(pool, timeout=timeout))

    def _run_pool(
        self, access: Access, pool: str, budget: float, attempt: Callable[[float], Awaitable[T]]
    ) -> Awaitable[T]:  # fmt: skip
        return self.guard.run(access, attempt, budget, self.store.server_of(self.keys.pool(pool)[0]))

    def _run(
        self, access: Access, fingerprint: str, budget: float, attempt: Callable[[float], Awaitable[T]]
    ) -> Awaitable[T]:  # fmt: skip
        return self.guard.run(access, attempt, budget, self.server_of(fingerprint))
