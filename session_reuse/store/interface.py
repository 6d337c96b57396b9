"""What a store does for sessions: the questions, the answers, the interface. Must never know how it is done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from session_reuse.state.baseline import Expectation
from session_reuse.state.record import record


class CommitOutcome(StrEnum):
    """What a commit did."""

    __hash__ = str.__hash__

    SAVED = "saved"
    RECOVERED = "recovered"
    """Written over an older version: a fail-over had lost the one we knew."""
    RECREATED = "recreated"
    """Written where the session was gone without having been invalidated: evicted, or a restart without data."""
    DUPLICATE = "duplicate"
    """Was written before; the reply had been lost."""
    CONFLICT = "conflict"
    """Somebody else has saved; merge and try again."""
    EXISTS = "exists"
    """A state is there that we know nothing of."""
    STALE = "stale"
    """The lease went to another, or the session was invalidated."""

    @property
    def written(self) -> bool:
        """Whether the state is in the store now."""
        return self in _WRITTEN


_WRITTEN = frozenset(
    {CommitOutcome.SAVED, CommitOutcome.RECOVERED, CommitOutcome.RECREATED, CommitOutcome.DUPLICATE}
)  # fmt: skip


class TouchOutcome(StrEnum):
    """What refreshing the time to live did."""

    UNCHANGED = "unchanged"
    STALE = "stale"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Lease:
    """An exclusive lease: its fencing token (µs of server time) and who holds it."""

    token: int
    holder: str


@dataclass(frozen=True, slots=True)
class Busy:
    """The lease is somebody else's.

    Attributes:
        left: seconds until it ends by itself.
        foreign: what stands there is not a lease of ours.
    """

    left: float
    foreign: bool = False


@record(kw_only=True)
class Commit:
    """One conditional save.

    Attributes:
        value: the stored form to put in place.
        known: revision that must be there (`Expectation.REVISION`), or the head of the damaged value (`CORRUPT`).
        epoch: µs of the last invalidation known at enter.
        age: seconds since the enter; None when `epoch` says all. A save that is late on its way looks younger.
        created_at: of the session that was restored, unix milliseconds.
        fresh: a new login: the shared counts of uses and errors start anew.
        score_change: tenths, added to the error score.
        indexed: whether the session is known to be in the index of deadlines.
    """

    fingerprint: str
    value: bytes = field(repr=False)
    save_id: str
    expectation: Expectation
    known: bytes = b""
    epoch: int = 0
    age: float | None = 0.0
    created_at: int = 0
    ttl: float = 86400.0
    agent_id: str | None = None
    lease: Lease | None = None
    release: bool = False
    fresh: bool = False
    score_change: int = 0
    indexed: bool = False


@record()
class Committed:
    """Answer to a commit.

    Attributes:
        outcome: what it did.
        epoch: µs of the last invalidation that now applies.
        replicas: how many acknowledged; None when not asked.
        exists: whether a session is there, as far as a refused commit says so.
    """

    outcome: CommitOutcome
    epoch: int = 0
    replicas: int | None = None
    exists: bool = True


@record(kw_only=True)
class Touch:
    """Refresh of a session that has not changed; fields as in `Commit`."""

    fingerprint: str
    epoch: int
    ttl: float
    agent_id: str | None = None
    lease: Lease | None = None
    release: bool = False
    score_change: int = 0


@record()
class Entered:
    """Answer to an enter.

    Attributes:
        value: what is stored.
        lease: the lease, if one was asked for.
        uses: uses before this one, if counted.
        epoch: without a value, µs of the last invalidation, 0 if there was none; None when it could not be asked.
    """

    value: bytes | None = field(repr=False)
    lease: Lease | Busy | None = None
    uses: int | None = None
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """One session found by listing: its head, seconds to live (None: for ever), bytes stored."""

    fingerprint: str
    head: bytes
    ttl: float | None
    size: int


class WrongType(Exception):  # noqa: N818  (an answer, not an error)
    """Something that is not a string stands under the session's key.

    Attributes:
        lease: what came of the lease that was asked for together with the value.
    """

    def __init__(self, lease: Lease | Busy | None = None) -> None:
        super().__init__()
        self.lease = lease


class Store(Protocol):
    """Sessions in a store. Every method raises `Failure` when the store does not do it in time."""

    async def enter(
        self, fingerprint: str, *, ttl: float | None, timeout: float, lease: tuple[str, float] | None = None,
        count_use: bool = False,
    ) -> Entered:  # fmt: skip
        """Read a session and start its time to live anew; with `lease` (holder, seconds) take the lease as well."""

    async def read(self, fingerprint: str, *, timeout: float) -> bytes | None:
        """Read a session and leave its time to live alone."""

    async def commit(self, commit: Commit, *, timeout: float) -> Committed:
        """Save, if the store still holds what the commit expects."""

    async def touch(self, touch: Touch, *, timeout: float) -> TouchOutcome:
        """Start the time to live of an unchanged session anew."""

    async def renew(self, fingerprint: str, lease: Lease, ttl: float, *, timeout: float) -> bool:
        """Prolong a lease; False when it is ours no more."""

    async def release(self, fingerprint: str, lease: Lease, *, timeout: float) -> bool:
        """Give a lease back; False when it was ours no more."""

    async def invalidate(self, fingerprint: str, *, ttl: float, timeout: float) -> bool:
        """Delete a session and refuse late saves for `ttl` seconds; return whether there was one."""

    async def mark(self, fingerprint: str, *, created_at: int, epoch: int, change: int, timeout: float) -> int | None:
        """Change the error score of this very session; None when another has replaced it."""

    async def affinity(self, agent_id: str, *, timeout: float) -> str | None:
        """Return the fingerprint the agent used last."""

    def sessions(self, *, timeout: float) -> AsyncIterator[Listed]:
        """List the sessions by cursor, without holding up the server. May show one twice, misses none that stays."""

    def server_of(self, key: str) -> str:
        """Return which server a key lives on, as far as is known now; empty where there is only one."""

    def servers(self) -> Collection[str]:
        """Return the names of all servers that `server_of` may name now."""

    async def aclose(self) -> None:
        """Close what the store opened."""
