"""What users test their own agents with: stores without Redis, faults at will, assertions.

    async with memory_manager() as manager:
        async with reusable_session("shop.example/alice", manager=manager) as session:
            ...

The fixtures of `session_reuse.pytest_plugin` are made of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Unpack
from weakref import WeakKeyDictionary

from session_reuse._browser_session import BrowserSession
from session_reuse._manager import SessionManager
from session_reuse._resilience.failure import AttemptFailed, FailureScope, Retry
from session_reuse._state.storage_state import StorageState
from session_reuse._store.interface import SessionEntry
from session_reuse._store.keys import Keys
from session_reuse._store.redis.store import RedisStore
from session_reuse.config import ConfigOptions
from session_reuse.errors import MissingExtraError, StoreAuthError, StoreError, StoreTimeoutError, StoreUnavailableError
from session_reuse.outcome import Outcome, SaveOutcome

__all__ = [
    "Fault",
    "FaultyStore",
    "MemoryStore",
    "Store",
    "assert_fresh",
    "assert_reused",
    "assert_saved",
    "memory_manager",
    "state_with_cookie",
]

if TYPE_CHECKING:
    from fakeredis import FakeRedis

    _Forwarding = RedisStore
else:
    _Forwarding = object

Store: TypeAlias = RedisStore
"""What a manager takes: these stores have its methods."""
WRITES: Final = frozenset(
    {
        "add_uses", "commit", "edit_pool", "invalidate", "leave_pool", "note_liveness", "release", "renew", "return_to_pool",
        "set_totp_secret", "slide", "take_from_pool",
    }
)  # fmt: skip
OPERATIONS: Final = WRITES | {
    "acquire", "affinity", "enter", "facts", "member_facts", "pool_members", "pools", "read", "reseal_affinities", "sessions",
    "totp_secret", "totp_secrets", "uses",
}  # fmt: skip


class MemoryStore(_Forwarding):
    """Sessions in this process's memory, for tests: the store for Redis, with its scripts, over fakeredis.

    It may be used from several event loops, one after the other or in threads.

    Attributes:
        server: the fake server. Give it to `fakeredis.FakeRedis(server=...)` to look into it with Redis commands.
    """

    def __init__(self) -> None:
        try:
            from fakeredis import FakeServer
        except ImportError:
            raise MissingExtraError("testing", "the store in memory") from None
        self.server = FakeServer()
        self._keys = Keys()
        self._stores: WeakKeyDictionary[asyncio.AbstractEventLoop, RedisStore] = WeakKeyDictionary()

    def peek(self, fingerprint: str) -> bytes | None:
        """Return a stored value, readable by `BrowserSession.import_`, without touching its time to live."""
        value = self._client().get(self._keys.session(fingerprint))
        return value if isinstance(value, bytes) else None

    def put(self, fingerprint: str, value: bytes, ttl: float = 86400.0) -> None:
        """Store raw bytes, for example a damaged value."""
        self._client().set(self._keys.session(fingerprint), value, px=int(ttl * 1000))

    def advance(self, seconds: float) -> None:
        """Advance the time of sessions, leases and pools: they are that much nearer to their end.

        Times inside of values stay, such as that of a save, of an invalidation, or of a probe of `keep_alive`.
        """
        client = self._client()
        for key in client.scan_iter():
            left: Any = client.pttl(key)
            if left >= 0:
                client.pexpire(key, max(0, int(left - seconds * 1000)))
        for key in client.scan_iter(f"{self._keys.prefix}:pool:*"):  # members hold the time from which they are free
            members: Any = client.zrange(key, 0, -1)
            for member in members:
                client.zincrby(key, -round(seconds * 1_000_000), member)

    def _client(self) -> FakeRedis:
        from fakeredis import FakeRedis

        return FakeRedis(server=self.server)

    def _here(self) -> RedisStore:
        """Return the store for this event loop: connections belong to one loop."""
        loop = asyncio.get_running_loop()
        store = self._stores.get(loop)
        if store is None:
            from fakeredis.aioredis import FakeRedis

            store = self._stores[loop] = RedisStore(FakeRedis(server=self.server), self._keys)
        return store

    def __getattr__(self, name: str) -> Any:
        """Return an operation of the store for this event loop."""
        if name not in OPERATIONS:
            raise AttributeError(name)
        return lambda *args, **options: getattr(self._here(), name)(*args, **options)  # noqa: PLW0108  (the loop is known at the call only)

    def server_of(self, key: str) -> str:  # noqa: ARG002
        """Return the only server's name: none."""
        return ""

    def servers(self) -> Collection[str]:
        """Return the only server's name: none."""
        return ("",)

    async def aclose(self) -> None:
        """Keep everything: the same store serves the next manager, as a server does."""


class Fault(StrEnum):
    """What a `FaultyStore` does instead of its work."""

    UNAVAILABLE = "unavailable"
    """Nothing can be reached."""
    TIMEOUT = "timeout"
    """There is no answer. Whether a write was applied is unknown."""
    AUTH = "auth"
    """The store rejects the password."""
    READ_ONLY = "read_only"
    """The store reads but does not write."""


class FaultyStore(_Forwarding):
    """A store in trouble, over one that works. Change its attributes to break and heal it in the middle of a test.

    Args:
        store: what does the work when nothing is wrong.
        fail: what goes wrong; None for nothing.
        latency: seconds that each call takes. A call that has less time than that times out.
        times: how many calls fail before all is well again; None for all.
        only: names of the operations that fail, such as `{"commit"}`. All if not given.
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
        self.fail = fail
        self.latency = latency
        self.times = times
        self.only = only
        self.after = after
        self.calls: list[str] = []

    @property
    def fail(self) -> Fault | None:
        """What goes wrong; None for nothing. Takes the name of a fault, too.

        Raises:
            ValueError: on assigning something else.
        """
        return self._fail

    @fail.setter
    def fail(self, fault: Fault | str | None) -> None:
        if fault is not None and fault not in tuple(Fault):
            raise ValueError(f"unknown fault {fault!r}; known are {[each.value for each in Fault]}")
        self._fail = None if fault is None else Fault(fault)

    @property
    def only(self) -> frozenset[str]:
        """Names of the operations that fail.

        Raises:
            ValueError: on assigning one that there is not.
        """
        return self._only

    @only.setter
    def only(self, operations: Collection[str]) -> None:
        names = frozenset(operations)
        if unknown := names - OPERATIONS:
            raise ValueError(f"unknown operations {sorted(unknown)}; known are {sorted(OPERATIONS)}")
        self._only = names

    def heal(self) -> None:
        """End all trouble."""
        self.fail, self.latency, self.times = None, 0.0, None

    def __getattr__(self, name: str) -> Any:
        """Return an operation of the store within, that fails as asked for."""
        if name in OPERATIONS:
            return partial(self._through, name)
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.store, name)

    async def sessions(self, *, timeout: float) -> AsyncIterator[SessionEntry]:
        """List the sessions, unless listing fails."""
        await self._through("sessions", timeout=timeout)
        async for listed in self.store.sessions(timeout=timeout):
            yield listed

    async def aclose(self) -> None:
        """Keep the store within open: its owner closes it."""

    async def _through(self, operation: str, *args: Any, timeout: float, **options: Any) -> Any:
        """Do the work, or raise the fault."""
        self.calls.append(operation)
        if self.latency:
            await asyncio.sleep(min(self.latency, timeout))
        if self.latency >= timeout:
            raise _failure(Fault.TIMEOUT)
        fault = self._fault_of(operation)
        if fault is None or self.after:
            done = None
            if operation != "sessions":
                done = await getattr(self.store, operation)(*args, **options, timeout=timeout)
            if fault is None:
                return done
        raise _failure(fault)

    def _fault_of(self, operation: str) -> Fault | None:
        """Return the fault of this call, and count it."""
        harmless = self.fail is Fault.READ_ONLY and operation not in WRITES
        if self.fail is None or operation not in self.only or self.times == 0 or harmless:
            return None
        if self.times is not None:
            self.times -= 1
        return self.fail


_VERDICTS: Final[dict[Fault, tuple[type[StoreError], Retry, FailureScope]]] = {
    Fault.UNAVAILABLE: (StoreUnavailableError, Retry.ALWAYS, FailureScope.SERVER),
    Fault.TIMEOUT: (StoreTimeoutError, Retry.SAVE, FailureScope.SERVER),
    Fault.AUTH: (StoreAuthError, Retry.NEVER, FailureScope.CREDENTIALS),
    Fault.READ_ONLY: (StoreUnavailableError, Retry.SAVE, FailureScope.WRITES),
}
"""What the real store makes of such a fault."""


def _failure(fault: Fault) -> AttemptFailed:
    error, retry, scope = _VERDICTS[fault]
    return AttemptFailed(error(f"a fault on purpose: {fault}"), "FaultyStore", retry, scope)


def memory_manager(store: Store | None = None, **config: Unpack[ConfigOptions]) -> SessionManager:
    """Return a manager without Redis and without metrics.

    Args:
        store: a `MemoryStore` or `FaultyStore` to look into. A new `MemoryStore` if not given.
        config: fields of `session_reuse.Config`.
    """
    chosen: Store = MemoryStore() if store is None else store
    # What waits in a `spool_dir` of the environment is for another store.
    options: ConfigOptions = {"registry": None, "spool_dir": None, **config}
    return SessionManager(chosen, **options)


def state_with_cookie(
    name: str = "sid", value: str = "test", domain: str = "shop.example", **fields: Any
) -> StorageState:
    """Return a storage state with one cookie, as Playwright writes it. `fields` add to the cookie or replace."""
    cookie: Any = {
        "name": name, "value": value, "domain": domain, "path": "/", "expires": -1, "httpOnly": True, "secure": False,
        "sameSite": "Lax", **fields,
    }  # fmt: skip
    return {"cookies": [cookie], "origins": []}


def assert_reused(session: BrowserSession) -> None:
    """Fail unless a stored state was restored. The message says why it was not."""
    if not session.reused:
        problems = ", ".join(f"{problem.kind} ({problem.detail})" for problem in session.problems)
        raise AssertionError(f"{session!r} was not reused: {session.outcome}{f'; {problems}' if problems else ''}")


def assert_fresh(session: BrowserSession, outcome: Outcome | str | None = None) -> None:
    """Fail unless the session started fresh, and for this reason if one is given."""
    if session.reused or (outcome is not None and session.outcome != outcome):
        raise AssertionError(f"{session!r} entered as {session.outcome}, not {outcome or 'fresh'}")


def assert_saved(session: BrowserSession, *outcomes: SaveOutcome | str) -> None:
    """Fail unless the last save did this. Without outcomes, unless the stored state is now the session's own."""
    wanted = outcomes or (SaveOutcome.SAVED, SaveOutcome.MERGED, SaveOutcome.UNCHANGED)
    if session.save_outcome not in wanted:
        raise AssertionError(f"{session!r} left as {session.save_outcome}, not {' or '.join(map(str, wanted))}")
