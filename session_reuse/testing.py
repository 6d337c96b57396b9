"""What users test their own agents with: stores without Redis, faults at will, assertions. Must never import a test runner.

    async with memory_manager() as manager:
        async with reusable_session("shop.example/alice", manager=manager) as session:
            ...

The fixtures of `session_reuse.pytest_plugin` are made of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from enum import StrEnum
from typing import Any, Final, TypeVar

from session_reuse.errors import StoreAuthError, StoreTimeoutError, StoreUnavailableError
from session_reuse.manager import SessionManager
from session_reuse.outcome import Outcome, SaveOutcome
from session_reuse.resilience.failure import Blame, Failure, Retry
from session_reuse.session import BrowserSession
from session_reuse.state.storage_state import StorageState
from session_reuse.store.interface import Commit, Committed, Entered, Lease, Listed, Store, Touch, TouchOutcome
from session_reuse.store.memory import MemoryStore

__all__ = [
    "Fault",
    "FaultyStore",
    "MemoryStore",
    "assert_fresh",
    "assert_reused",
    "assert_saved",
    "memory_manager",
    "state_with_cookie",
]

T = TypeVar("T")

WRITES: Final = frozenset({"commit", "touch", "renew", "release", "invalidate", "mark"})
OPERATIONS: Final = WRITES | {"enter", "read", "affinity", "sessions"}


class Fault(StrEnum):
    """What a `FaultyStore` does instead of its work."""

    UNAVAILABLE = "unavailable"
    """Nothing can be reached."""
    TIMEOUT = "timeout"
    """There is no answer; whether a write was applied is unknown."""
    AUTH = "auth"
    """The store rejects the password."""
    READ_ONLY = "read_only"
    """The store reads but does not write."""


class FaultyStore:
    """A store in trouble, over one that works. Change its attributes to break and heal it in the middle of a test.

    Args:
        store: what does the work when nothing is wrong.
        fail: what goes wrong; None for nothing.
        latency: seconds that each call takes; a call that has less time than that times out.
        times: how many calls fail before all is well again; None for all.
        only: names of the operations that fail, such as `{"commit"}`; all if not given.
        after: whether the work is done before the call fails, as when a reply is lost on its way.

    Attributes:
        calls: the names of all operations asked for.
    """

    def __init__(
        self,
        store: Store,
        *,
        fail: Fault | str | None = None,
        latency: float = 0.0,
        times: int | None = None,
        only: Collection[str] = OPERATIONS,
        after: bool = False,
    ) -> None:
        self.store = store
        self.fail = None if fail is None else Fault(fail)
        self.latency = latency
        self.times = times
        self.only = frozenset(only)
        self.after = after
        self.calls: list[str] = []
        if unknown := self.only - OPERATIONS:
            raise ValueError(f"unknown operations {sorted(unknown)}; known are {sorted(OPERATIONS)}")

    def heal(self) -> None:
        """End all trouble."""
        self.fail, self.latency, self.times = None, 0.0, None

    async def enter(
        self, fingerprint: str, *, ttl: float | None, timeout: float, lease: tuple[str, float] | None = None,
        count_use: bool = False,
    ) -> Entered:  # fmt: skip
        """See `Store`."""
        options: dict[str, Any] = {"ttl": ttl, "lease": lease, "count_use": count_use}
        return await self._through("enter", timeout, self.store.enter, fingerprint, **options)

    async def read(self, fingerprint: str, *, timeout: float) -> bytes | None:
        """See `Store`."""
        return await self._through("read", timeout, self.store.read, fingerprint)

    async def commit(self, commit: Commit, *, timeout: float) -> Committed:
        """See `Store`."""
        return await self._through("commit", timeout, self.store.commit, commit)

    async def touch(self, touch: Touch, *, timeout: float) -> TouchOutcome:
        """See `Store`."""
        return await self._through("touch", timeout, self.store.touch, touch)

    async def renew(self, fingerprint: str, lease: Lease, ttl: float, *, timeout: float) -> bool:
        """See `Store`."""
        return await self._through("renew", timeout, self.store.renew, fingerprint, lease, ttl)

    async def release(self, fingerprint: str, lease: Lease, *, timeout: float) -> bool:
        """See `Store`."""
        return await self._through("release", timeout, self.store.release, fingerprint, lease)

    async def invalidate(self, fingerprint: str, *, ttl: float, timeout: float) -> bool:
        """See `Store`."""
        return await self._through("invalidate", timeout, self.store.invalidate, fingerprint, ttl=ttl)

    async def mark(self, fingerprint: str, *, created_at: int, epoch: int, change: int, timeout: float) -> int | None:
        """See `Store`."""
        options = {"created_at": created_at, "epoch": epoch, "change": change}
        return await self._through("mark", timeout, self.store.mark, fingerprint, **options)

    async def affinity(self, agent_id: str, *, timeout: float) -> str | None:
        """See `Store`."""
        return await self._through("affinity", timeout, self.store.affinity, agent_id)

    async def sessions(self, *, timeout: float) -> AsyncIterator[Listed]:
        """See `Store`."""
        await self._through("sessions", timeout, _nothing)
        async for listed in self.store.sessions(timeout=timeout):
            yield listed

    def server_of(self, key: str) -> str:
        """See `Store`."""
        return self.store.server_of(key)

    def servers(self) -> Collection[str]:
        """See `Store`."""
        return self.store.servers()

    async def aclose(self) -> None:
        """Leave the store within open: it is its maker's to close."""

    async def _through(
        self, operation: str, timeout: float, work: Callable[..., Awaitable[T]], *args: Any, **options: Any
    ) -> T:
        """Do the work, or what is wrong instead of it."""
        self.calls.append(operation)
        if self.latency:
            await asyncio.sleep(min(self.latency, timeout))
        if self.latency >= timeout:
            raise _failure(Fault.TIMEOUT)
        fault = self._fault_of(operation)
        if fault is None or self.after:
            done = await work(*args, **options, timeout=timeout)
            if fault is None:
                return done
        raise _failure(fault)

    def _fault_of(self, operation: str) -> Fault | None:
        """Return what is wrong with this call, and count it."""
        harmless = self.fail is Fault.READ_ONLY and operation not in WRITES
        if self.fail is None or operation not in self.only or self.times == 0 or harmless:
            return None
        if self.times is not None:
            self.times -= 1
        return self.fail


async def _nothing(*, timeout: float) -> None:
    del timeout


def _failure(fault: Fault) -> Failure:
    """Return the verdict that the real store gives on such a fault."""
    text = f"a fault on purpose: {fault}"
    if fault is Fault.TIMEOUT:
        return Failure(StoreTimeoutError(text), "FaultyStore", Retry.SAVE, Blame.SERVER)
    if fault is Fault.AUTH:
        return Failure(StoreAuthError(text), "FaultyStore", Retry.NEVER, Blame.CREDENTIALS)
    if fault is Fault.READ_ONLY:
        return Failure(StoreUnavailableError(text), "FaultyStore", Retry.SAVE, Blame.WRITES)
    return Failure(StoreUnavailableError(text), "FaultyStore", Retry.ALWAYS, Blame.SERVER)


def memory_manager(store: Store | None = None, **config: Any) -> SessionManager:
    """Return a manager without Redis and without metrics.

    Args:
        store: a `MemoryStore` or `FaultyStore` to look into; a new `MemoryStore` if not given.
        config: fields of `session_reuse.Config`.
    """
    chosen: Store = MemoryStore() if store is None else store
    return SessionManager(chosen, **{"registry": None, **config})


def state_with_cookie(
    name: str = "sid", value: str = "test", domain: str = "shop.example", **fields: Any
) -> StorageState:
    """Return a storage state with one cookie, as Playwright writes it; `fields` add to the cookie or replace."""
    cookie = {
        "name": name, "value": value, "domain": domain, "path": "/", "expires": -1, "httpOnly": True, "secure": False,
        "sameSite": "Lax", **fields,
    }  # fmt: skip
    return {"cookies": [cookie], "origins": []}


def assert_reused(session: BrowserSession) -> None:
    """Fail unless a stored state was restored; the message says why it was not."""
    if not session.reused:
        problems = ", ".join(f"{problem.kind} ({problem.detail})" for problem in session.problems)
        raise AssertionError(f"{session!r} was not reused: {session.outcome}{f'; {problems}' if problems else ''}")


def assert_fresh(session: BrowserSession, outcome: Outcome | str | None = None) -> None:
    """Fail unless the session started fresh, and for this reason if one is given."""
    if session.reused or (outcome is not None and session.outcome != outcome):
        raise AssertionError(f"{session!r} entered as {session.outcome}, not {outcome or 'fresh'}")


def assert_saved(session: BrowserSession, *outcomes: SaveOutcome | str) -> None:
    """Fail unless the last save did this; without outcomes, unless the stored state is now the session's own."""
    wanted = outcomes or (SaveOutcome.SAVED, SaveOutcome.MERGED, SaveOutcome.UNCHANGED)
    if session.save_outcome not in wanted:
        raise AssertionError(f"{session!r} left as {session.save_outcome}, not {' or '.join(map(str, wanted))}")
