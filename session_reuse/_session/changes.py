"""What the store held, which login an agent works with, and what the agent has changed.

A `Change` is the difference between two documents of one agent. `fold.py` applies it to the stored session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from session_reuse._session.clock import Moment
from session_reuse._state.document import NO_BODY, Body
from session_reuse._state.domains import AllowedDomains
from session_reuse._state.header import Header
from session_reuse._state.record import record
from session_reuse._store.interface import Lease, SessionUse
from session_reuse.errors import StoreError
from session_reuse.outcome import SaveOutcome

TOMBSTONE_TTL: Final = 30 * 86400.0
"""Seconds for which an invalidation is kept in the store."""
HOLD_LIMIT: Final = 29 * 86400.0
"""Seconds after which an agent cannot prove any more that its session was not invalidated."""
_LONGEST_RACE: Final = 1.0
"""Seconds after which a save that is on its way has been held up: by its process, or by the save before it."""
ANOTHER_LOGIN: Final = "another login is stored"
INVALIDATED: Final = "the session was invalidated"
REFUSED: Final = frozenset({SaveOutcome.STALE, SaveOutcome.SKIPPED})
NOT_STORED: Final = REFUSED | {SaveOutcome.LOST}
NOT_FINAL: Final = frozenset({None, SaveOutcome.PENDING, SaveOutcome.SPOOLED})


class StoredKind(StrEnum):
    """What the store holds for a fingerprint."""

    __hash__ = str.__hash__

    UNKNOWN = "unknown"
    """The store could not be asked."""
    ABSENT = "absent"
    PRESENT = "present"
    CORRUPT = "corrupt"
    """Damaged: a save sets it aside."""
    UNREADABLE = "unreadable"
    """Whole, but this process lacks the key, the extra or the memory limit: it is left alone."""


@record(kw_only=True)
class Snapshot:
    """What the store held for one fingerprint when it was asked last.

    Attributes:
        kind: what it is.
        heard_at: `elapsed()` at the request.
        invalidated_at: last invalidation, server time in µs; None when it is not known.
        header: of a session that is present.
        body: its document.
        value: its stored form, by which it is recognised when it is read again.
        damaged: first bytes of a corrupt value.
        answered_at: `elapsed()` at the answer. Infinity when it is not known.
        lost: what the store held before, as far as this process knows, if it holds nothing or nothing whole.
    """

    kind: StoredKind
    heard_at: float
    invalidated_at: int | None = None
    header: Header | None = None
    body: Body = field(default=NO_BODY, repr=False)
    value: bytes = field(default=b"", repr=False)
    damaged: bytes = field(default=b"", repr=False)
    answered_at: float = float("inf")
    lost: Snapshot | None = field(default=None, repr=False)

    @property
    def last_held(self) -> Snapshot | None:
        """The last session that the store held, as far as this process knows."""
        return self if self.kind is StoredKind.PRESENT else self.lost

    @property
    def size(self) -> int:
        """Bytes it takes in memory, roughly."""
        return 512 + len(self.body.data) + len(self.value) + (self.lost.size if self.lost is not None else 0)


NEVER_HEARD: Final = Snapshot(kind=StoredKind.UNKNOWN, heard_at=float("-inf"))
"""Of a session that the store was not asked for yet."""


class Found(StrEnum):
    """How an agent met the stored session."""

    __hash__ = str.__hash__

    STORED = "stored"
    """It was restored."""
    ABSENT = "absent"
    """There was none, or a damaged one."""
    UNUSABLE = "unusable"
    """It was retired or not verified: a new login replaces it as a whole."""
    AWAY = "away"
    """The store could not be asked, or holds what this process cannot open."""


@dataclass(slots=True)
class Login:
    """The login that an agent's changes belong to. All sessions that continue one login share the object.

    Attributes:
        found: how the agent met the store.
        heard_at: `elapsed()` when the store was last known to accept this login.
        wall: unix seconds at the same moment. A host that slept has no other witness of the time.
        created_at: first save of the stored session, unix milliseconds. 0 before.
        retire_at: when the stored session is retired, unix milliseconds. 0 for never.
        invalidated_at: last invalidation that is known, server time in µs. None when it is not known.
        ancestors: ids of the saves before the stored one. A store that holds one of them has lost those since.
        is_over: whether its session was invalidated. A store may lose that it was.
    """

    found: Found
    heard_at: float
    wall: float
    created_at: int = 0
    invalidated_at: int | None = None
    retire_at: int = 0
    ancestors: tuple[str, ...] = ()
    is_over: bool = False

    def is_same(self, other: Login) -> bool:
        """Return whether two agents continue one login."""
        stored = self.found is other.found is Found.STORED  # else it is about to replace the login of this time
        return self is other or (stored and self.created_at == other.created_at != 0)

    def age(self, moment: Moment) -> float:
        """Return the seconds since the store was known to accept it."""
        return max(moment.elapsed - self.heard_at, moment.wall - self.wall)

    def continues(self, header: Header, found: Found = Found.STORED) -> None:
        """Note that the store holds a session that this login belongs to, or is to replace."""
        self.found, self.created_at, self.retire_at = found, header.created_at, header.retire_at
        self.ancestors = header.save_ids[1:]

    def stand_back(self) -> None:
        """Note that another login is stored, so that it replaces the unusable one no more."""
        if self.found is Found.UNUSABLE:
            self.found = Found.AWAY

    def accepted(self, header: Header, moment: Moment) -> None:
        """Note that the store holds this login now."""
        self.continues(header)
        self.is_over = False
        self.invalidated_at, self.heard_at, self.wall = header.invalidated_at, moment.elapsed, moment.wall


@dataclass(slots=True, weakref_slot=True, kw_only=True, eq=False)
class Change:
    """One change of an agent, and its outcome.

    Attributes:
        before: the agent's document at its last save or restore.
        after: its document now. The same object as `before` when nothing has changed.
        login: which login it belongs to.
        made_at: `elapsed()` at the save.
        ttl: seconds from then for which the session is kept.
        agent_id: whose affinity it moves.
        lease: exclusive lease it was made under.
        release: whether to give the lease back with it.
        vouched: whether the agent says that its login works.
        score_change: tenths, added to the shared error score.
        mark_only: whether it is nothing but a change of the score.
        waited: whether it had to wait for the store.
        left_alone: whether its agent was cancelled while an earlier save was on its way, and hears nothing of it.
        parts: changes that were combined into this one, as long as others refer to them. They share its outcome.
        combined: the change that this one was combined into. Its documents are in there alone, within the bounds of memory.
        built_on: waiting changes of others that `before` holds.
        ids: save ids of the requests that carried it. A stored header that names one of them contains the change.
        sent_over: version of the session when it was last sent. 0 for none.
        sent_as: times of creation of the logins that these requests were to store.
        notes_only: whether the last request with it brings the notes alone, since another login is stored.
        is_cut: whether a change of its storage state is left out of that request.
        outcome: what became of it. None while it is on its way.
        not_taken: whether its storage state was left out, since another login is stored.
        is_adopted: whether another process has left it on disk. It stays there when this one has no room for it.
        name: names it on disk, and in the header of the save that brings it: two managers may have read one file.
        mark_id: names its mark at the server. Empty before it is sent or on disk.
        why: the reason, if it was refused.
        domains: the part of the session that it is about. None for the whole.
        whole: the session that this part was taken from.
        failure: why the first attempt to send it failed.
        uses: what it ends, for the audit, each with the time of this host.
        noted: the outcome in the last line of the audit about it.
        answered: set when its agent need not wait any longer: it is settled, or it waits for the store.
        done: set when it is settled.
        size: bytes that it took in memory when it was made, roughly.
    """

    before: Body = field(repr=False)
    after: Body = field(repr=False)
    login: Login
    made_at: float
    ttl: float
    agent_id: str | None = None
    lease: Lease | None = None
    release: bool = False
    vouched: bool = False
    score_change: int = 0
    mark_only: bool = False
    waited: bool = False
    left_alone: bool = False
    parts: Collection[Change] = field(default=(), repr=False)
    combined: Change | None = field(default=None, repr=False)
    built_on: Sequence[Change] = field(default=(), repr=False)
    ids: list[str] = field(default_factory=list)
    sent_over: int = 0
    sent_as: list[int] = field(default_factory=list)
    notes_only: bool = False
    is_cut: bool = False
    outcome: SaveOutcome | None = None
    not_taken: bool = False
    why: str = ""
    domains: AllowedDomains | None = None
    whole: Body = field(default=NO_BODY, repr=False)
    failure: StoreError | None = None
    is_adopted: bool = False
    name: str = ""
    mark_id: str = ""
    uses: tuple[SessionUse, ...] = ()
    noted: SaveOutcome | None = None
    answered: asyncio.Event | None = None
    done: asyncio.Event | None = None
    size: int = field(init=False)

    def __post_init__(self) -> None:
        before = len(self.before.data) if self.before is not self.after else 0
        self.size = 1024 + len(self.after.data) + before + len(self.whole.data)

    @property
    def has_content(self) -> bool:
        """Whether it changes something, other than to vouch for what was there."""
        return self.before is not self.after

    @property
    def has_released_lease(self) -> bool:
        """Whether the lease was given back with it. One that may never have been sent has not done so."""
        return self.release and self.outcome is not None and self.outcome not in NOT_STORED

    @property
    def whole_change(self) -> Change:
        """The change that has its documents: itself, or the one that it was combined into."""
        return self.combined or self

    def is_in(self, stored: Snapshot) -> bool:
        """Return whether the stored session contains it: a reply was lost, or another process has read it from disk."""
        return stored.header is not None and not {*self.ids, self.name}.isdisjoint(stored.header.save_ids)

    def confirm_login(self, header: Header) -> None:
        """Note that the store holds the login that it has brought, or held it before another one."""
        # By another process that has read it from disk, which chose the time of creation.
        by_another = {*self.ids}.isdisjoint(header.save_ids)
        if by_another or not self.sent_as or header.created_at in self.sent_as:
            self.login.continues(header)
        else:
            self.login.found, self.login.created_at = Found.STORED, self.sent_as[-1]

    def age(self, now: float) -> float:
        """Return the seconds since it was made, by `elapsed()`. 0 for one that did not wait."""
        age = now - self.made_at
        return age if self.waited or age > _LONGEST_RACE else 0.0

    def again(self, login: Login, until: float) -> Change:
        """Return the same change, to be sent once more. Its session is kept until then, by `elapsed()`."""
        return Change(
            before=self.before, after=self.after, login=login, made_at=self.made_at, ttl=until - self.made_at,
            agent_id=self.agent_id, lease=self.lease, vouched=self.vouched, score_change=self.score_change, waited=True,
            domains=self.domains, whole=self.whole,
        )  # fmt: skip

    def settle(self, outcome: SaveOutcome, why: str = "") -> None:
        """Set its outcome, once."""
        if why == ANOTHER_LOGIN:
            self.login.stand_back()
        elif why == INVALIDATED:
            self.login.is_over = True
        for change in (self, *self.parts):
            if change.outcome is None:
                change.outcome, change.why = outcome, why
                change.answer()
                if change.done is not None:
                    change.done.set()

    def settle_as_stored(self, outcome: SaveOutcome) -> None:
        """Set the outcome of a change that the store holds, as far as its last request has brought it."""
        self.settle(outcome)
        if self.is_cut:
            self.not_taken, self.why = True, f"{ANOTHER_LOGIN}: only the notes were saved"
            self.login.stand_back()

    def answer(self) -> None:
        """Wake its agent."""
        if self.answered is not None:
            self.answered.set()

    async def final(self) -> SaveOutcome:
        """Wait until it is settled, and return its outcome."""
        if self.outcome is None:
            self.done = self.done or asyncio.Event()
            await self.done.wait()
        assert self.outcome is not None  # noqa: S101  (set before `done`)
        return self.outcome
