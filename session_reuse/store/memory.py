"""Sessions in this process's memory, behaving as Redis does, for tests. Must never be given to agents in earnest.

What a commit does is decided by `decision.decide`. Times to live and tokens go by the clock that is passed in, so that a
test can let a day pass in no time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from session_reuse.state.baseline import Expectation
from session_reuse.state.header import LENGTH, Header
from session_reuse.store.decision import Standing, decide, fenced_off, invalidated_at
from session_reuse.store.interface import (
    Busy,
    Commit,
    CommitOutcome,
    Committed,
    Entered,
    Lease,
    Listed,
    Touch,
    TouchOutcome,
    WrongType,
)

T = TypeVar("T")

_HIGHEST_USES: Final = 99_999_999
_HIGHEST_SCORE: Final = 9999
_REFUSED_FOR_GOOD: Final = frozenset({CommitOutcome.EXISTS, CommitOutcome.STALE})
"""After these a lease that was to be released is released; after a conflict the save is tried again."""


@dataclass(slots=True)
class Kept(Generic[T]):
    """Something that lives until `ends`, in seconds of the store's clock."""

    item: T
    ends: float


class MemoryStore:
    """A store with the interface of `session_reuse.store.interface.Store`, for one event loop.

    Args:
        clock: unix seconds; pass a function of your own to let sessions and leases expire at will.

    Attributes:
        sessions_by_fingerprint: the stored values; an item that is not bytes stands for a value of a wrong type.
        leases, tombstones, agents: by fingerprint.
        affinities: fingerprint by agent.
        set_aside: unreadable values that a save has put aside, by fingerprint.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.sessions_by_fingerprint: dict[str, Kept[bytes | object]] = {}
        self.leases: dict[str, Kept[Lease]] = {}
        self.tombstones: dict[str, Kept[int]] = {}
        self.agents: dict[str, set[str]] = {}
        self.affinities: dict[str, Kept[str]] = {}
        self.set_aside: dict[str, bytes | object] = {}

    def peek(self, fingerprint: str) -> bytes | None:
        """Return a stored value, readable by `BrowserSession.import_`, without touching its time to live."""
        value = _alive(self.sessions_by_fingerprint, fingerprint, self.clock())
        return value if isinstance(value, bytes) else None

    def put(self, fingerprint: str, value: object, ttl: float = 86400.0) -> None:
        """Put a value in place as it is, e.g. a damaged one; what is not bytes stands for a wrong type."""
        self.sessions_by_fingerprint[fingerprint] = Kept(value, self.clock() + ttl)

    async def enter(
        self, fingerprint: str, *, ttl: float | None, timeout: float, lease: tuple[str, float] | None = None,
        count_use: bool = False,
    ) -> Entered:  # fmt: skip
        """Read a session and start its time to live anew; with `lease` (holder, seconds) take the lease as well."""
        await _a_turn_for_others(timeout)
        held = self._acquire(fingerprint, *lease) if lease is not None else None
        uses = self._count_use(fingerprint) if count_use else None
        try:
            value = self._value(fingerprint)
        except WrongType:
            raise WrongType(held) from None
        if value is not None and ttl is not None:
            self.sessions_by_fingerprint[fingerprint].ends = self.clock() + ttl
        epoch = None if value is not None else _alive(self.tombstones, fingerprint, self.clock()) or 0
        return Entered(value, held, uses, epoch)

    async def read(self, fingerprint: str, *, timeout: float) -> bytes | None:
        """Read a session and leave its time to live alone."""
        await _a_turn_for_others(timeout)
        return self._value(fingerprint)

    async def commit(self, commit: Commit, *, timeout: float) -> Committed:
        """Save, if the store still holds what the commit expects."""
        await _a_turn_for_others(timeout)
        standing = self._standing(commit.fingerprint)
        outcome = decide(commit, standing)
        self._used(commit)
        if outcome.written and outcome is not CommitOutcome.DUPLICATE:
            self._put_in_place(commit, standing)
        if commit.release and (outcome.written or outcome in _REFUSED_FOR_GOOD):
            self._release(commit.fingerprint, commit.lease)
        exists = outcome.written or standing.head is not None
        if outcome is CommitOutcome.STALE and not exists:
            self._forget_affinity(commit.agent_id, commit.fingerprint)
        return Committed(outcome, invalidated_at(standing) if outcome.written else 0, exists=exists)

    async def touch(self, touch: Touch, *, timeout: float) -> TouchOutcome:
        """Start the time to live of an unchanged session anew."""
        await _a_turn_for_others(timeout)
        self._used(touch)
        standing = self._standing(touch.fingerprint)
        outcome = self._touched(touch, standing)
        if touch.release and outcome is not TouchOutcome.GONE:
            self._release(touch.fingerprint, touch.lease)
        if outcome is TouchOutcome.STALE and standing.head is None:
            self._forget_affinity(touch.agent_id, touch.fingerprint)
        return outcome

    async def renew(self, fingerprint: str, lease: Lease, ttl: float, *, timeout: float) -> bool:
        """Prolong a lease; False when it is ours no more."""
        await _a_turn_for_others(timeout)
        if _alive(self.leases, fingerprint, self.clock()) != lease:
            return False
        self.leases[fingerprint].ends = self.clock() + ttl
        return True

    async def release(self, fingerprint: str, lease: Lease, *, timeout: float) -> bool:
        """Give a lease back; False when it was ours no more."""
        await _a_turn_for_others(timeout)
        return self._release(fingerprint, lease)

    async def invalidate(self, fingerprint: str, *, ttl: float, timeout: float) -> bool:
        """Delete a session, its lease and its agents' affinity, and refuse late saves for `ttl` seconds."""
        await _a_turn_for_others(timeout)
        standing = self._standing(fingerprint)
        header = standing.header
        known = [standing.tombstone, standing.lease.token if standing.lease else 0]
        known += [header.epoch, header.token] if header else []
        self.tombstones[fingerprint] = Kept(max(standing.now, max(known) + 1), self.clock() + ttl)
        self.sessions_by_fingerprint.pop(fingerprint, None)
        self.leases.pop(fingerprint, None)
        self.set_aside.pop(fingerprint, None)
        for agent in self.agents.pop(fingerprint, set()):
            self._forget_affinity(agent, fingerprint)
        return standing.head is not None

    async def mark(self, fingerprint: str, *, created_at: int, epoch: int, change: int, timeout: float) -> int | None:
        """Change the error score of this very session; None when another has replaced it."""
        await _a_turn_for_others(timeout)
        header = self._standing(fingerprint).header
        if header is None or (header.created_at, header.epoch) != (created_at, epoch):
            return None
        return self._rewrite(fingerprint, replace(header, score=_score(header, change))).score

    async def affinity(self, agent_id: str, *, timeout: float) -> str | None:
        """Return the fingerprint the agent used last."""
        await _a_turn_for_others(timeout)
        return _alive(self.affinities, agent_id, self.clock())

    async def sessions(self, *, timeout: float) -> AsyncIterator[Listed]:
        """List the sessions."""
        await _a_turn_for_others(timeout)
        now = self.clock()
        for fingerprint in list(self.sessions_by_fingerprint):
            value = _alive(self.sessions_by_fingerprint, fingerprint, now)
            if value is not None:
                data = value if isinstance(value, bytes) else b""
                left = self.sessions_by_fingerprint[fingerprint].ends - now
                yield Listed(fingerprint, data[:LENGTH], left, len(data))

    def server_of(self, key: str) -> str:  # noqa: ARG002
        """Return the only server's name: none."""
        return ""

    def servers(self) -> Collection[str]:
        """Return the only server's name: none."""
        return ("",)

    async def aclose(self) -> None:
        """Keep everything: the same store serves the next manager, as a server does."""

    def _value(self, fingerprint: str) -> bytes | None:
        value = _alive(self.sessions_by_fingerprint, fingerprint, self.clock())
        if value is not None and not isinstance(value, bytes):
            raise WrongType
        return value

    def _standing(self, fingerprint: str) -> Standing:
        now = self.clock()
        value = _alive(self.sessions_by_fingerprint, fingerprint, now)
        head = value[:LENGTH] if isinstance(value, bytes) else None if value is None else b""
        lease = _alive(self.leases, fingerprint, now)
        return Standing(head, lease, _alive(self.tombstones, fingerprint, now) or 0, int(now * 1_000_000))

    def _acquire(self, fingerprint: str, holder: str, seconds: float) -> Lease | Busy:
        standing, now = self._standing(fingerprint), self.clock()
        lease = standing.lease
        if lease is not None and lease.holder != holder:
            return Busy(self.leases[fingerprint].ends - now)
        if lease is None:
            last = max(standing.tombstone, standing.header.token if standing.header else 0)
            lease = Lease(max(standing.now, last + 1), holder)
        self.leases[fingerprint] = Kept(lease, now + seconds)
        return lease

    def _release(self, fingerprint: str, lease: Lease | None) -> bool:
        held = _alive(self.leases, fingerprint, self.clock())
        if lease is None or held is None or held.holder != lease.holder or lease.token not in {0, held.token}:
            return False
        del self.leases[fingerprint]
        return True

    def _used(self, save: Commit | Touch) -> None:
        """Note the agent's last session; whose affinity points to a session is on its list."""
        if save.agent_id is not None:
            self.affinities[save.agent_id] = Kept(save.fingerprint, self.clock() + save.ttl)
            self.agents.setdefault(save.fingerprint, set()).add(save.agent_id)

    def _forget_affinity(self, agent_id: str | None, fingerprint: str) -> None:
        if agent_id is not None and _alive(self.affinities, agent_id, self.clock()) == fingerprint:
            del self.affinities[agent_id]

    def _count_use(self, fingerprint: str) -> int:
        header = self._standing(fingerprint).header
        if header is None:
            return -1
        self._rewrite(fingerprint, replace(header, uses=min(_HIGHEST_USES, header.uses + 1)))
        return header.uses

    def _touched(self, touch: Touch, standing: Standing) -> TouchOutcome:
        header = standing.header
        if touch.lease is not None and fenced_off(touch.lease.token, header, standing.lease):
            return TouchOutcome.STALE
        if invalidated_at(standing) > touch.epoch:
            return TouchOutcome.STALE
        if header is None:
            return TouchOutcome.GONE
        self._rewrite(touch.fingerprint, replace(header, score=_score(header, touch.score_change)))
        self.sessions_by_fingerprint[touch.fingerprint].ends = self.clock() + touch.ttl
        return TouchOutcome.UNCHANGED

    def _put_in_place(self, commit: Commit, standing: Standing) -> None:
        """Put the payload in place, with the parts of the header that are the store's to say."""
        before = standing.header
        if commit.expectation is Expectation.CORRUPT and standing.head is not None:
            self.set_aside[commit.fingerprint] = self.sessions_by_fingerprint[commit.fingerprint].item
            before = None
        counted = before if before is not None and not commit.fresh else None
        header = Header.decode(commit.value)
        token = commit.lease.token if commit.lease else 0
        header = replace(
            header,
            epoch=invalidated_at(standing),
            token=max(token, before.token if before else 0),
            uses=counted.uses if counted else 0,
            score=_score(counted, commit.score_change),
        )
        self.put(commit.fingerprint, header.encode() + commit.value[LENGTH:], commit.ttl)

    def _rewrite(self, fingerprint: str, header: Header) -> Header:
        kept = self.sessions_by_fingerprint[fingerprint]
        if isinstance(kept.item, bytes):
            kept.item = header.encode() + kept.item[LENGTH:]
        return header


def _alive(kept: dict[str, Kept[T]], name: str, now: float) -> T | None:
    """Return what is kept under a name, unless its time is over: then it goes."""
    found = kept.get(name)
    if found is not None and found.ends <= now:
        del kept[name]
        return None
    return None if found is None else found.item


def _score(header: Header | None, change: int) -> int:
    return min(_HIGHEST_SCORE, max(0, (header.score if header else 0) + change))


async def _a_turn_for_others(timeout: float) -> None:
    """Let other tasks run first, as a network would: tests see the interleavings that agents meet."""
    async with asyncio.timeout(timeout):
        await asyncio.sleep(0)
