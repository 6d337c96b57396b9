"""Apply an agent's changes to the stored session. Pure.

A `Change` is the difference between two documents of one agent. `rebase` applies it to the stored document as
that has become meanwhile: directly, by a three-way merge, as a new login, or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from session_reuse._session.clock import Moment
from session_reuse._state import document
from session_reuse._state.document import PLAIN_JSON, Body
from session_reuse._state.domains import AllowedDomains
from session_reuse._state.header import Header
from session_reuse._state.health import judge
from session_reuse._state.merge import common_notes, merge_data, merge_documents
from session_reuse._state.record import record
from session_reuse._state.storage_state import is_empty
from session_reuse._store.interface import Lease, SessionUse
from session_reuse.errors import StoreError
from session_reuse.outcome import Outcome, SaveOutcome

TOMBSTONE_TTL: Final = 30 * 86400.0
"""Seconds for which an invalidation is kept in the store."""
HOLD_LIMIT: Final = 29 * 86400.0
"""Seconds after which an agent cannot prove any more that its session was not invalidated."""
_LONGEST_RACE: Final = 1.0
"""Seconds after which a save that is on its way has been held up: by its process, or by the save before it."""
REFUSED: Final = frozenset({SaveOutcome.STALE, SaveOutcome.SKIPPED})
NOT_STORED: Final = REFUSED | {SaveOutcome.LOST}


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
        heard_at: event loop time of the request.
        invalidated_at: last invalidation, server time in µs; None when it is not known.
        header: of a session that is present.
        body: its document.
        value: its stored form, by which it is recognised when it is read again.
        damaged: first bytes of a corrupt value.
    """

    kind: StoredKind
    heard_at: float
    invalidated_at: int | None = None
    header: Header | None = None
    body: Body = field(default=Body(b"", PLAIN_JSON), repr=False)
    value: bytes = field(default=b"", repr=False)
    damaged: bytes = field(default=b"", repr=False)

    @property
    def size(self) -> int:
        """Bytes it takes in memory, roughly."""
        return 512 + len(self.body.data) + len(self.value)


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
        heard_at: event loop time at which the store was last known to accept this login.
        wall: unix seconds at the same moment. A host that slept has no other witness of the time.
        created_at: first save of the stored session, unix milliseconds. 0 before.
        retire_at: when the stored session is retired, unix milliseconds. 0 for never.
        invalidated_at: last invalidation that is known, server time in µs. None when it is not known.
    """

    found: Found
    heard_at: float
    wall: float
    created_at: int = 0
    invalidated_at: int | None = None
    retire_at: int = 0

    def is_same(self, other: Login) -> bool:
        """Return whether two agents continue one login."""
        stored = self.found is other.found is Found.STORED  # else it is about to replace the login of this time
        return self is other or (stored and self.created_at == other.created_at != 0)

    def age(self, moment: Moment) -> float:
        """Return the seconds since the store was known to accept it."""
        return max(moment.loop - self.heard_at, moment.wall - self.wall)

    def continues(self, header: Header, found: Found = Found.STORED) -> None:
        """Note that the store holds a session that this login belongs to, or is to replace."""
        self.found, self.created_at, self.retire_at = found, header.created_at, header.retire_at

    def accepted(self, header: Header, moment: Moment) -> None:
        """Note that the store holds this login now."""
        self.continues(header)
        self.invalidated_at, self.heard_at, self.wall = header.invalidated_at, moment.loop, moment.wall


@dataclass(slots=True, kw_only=True, eq=False)
class Change:
    """One change of an agent, and its outcome.

    Attributes:
        before: the agent's document at its last save or restore.
        after: its document now. The same object as `before` when nothing has changed.
        login: which login it belongs to.
        made_at: event loop time of the save.
        ttl: seconds from then for which the session is kept.
        agent_id: whose affinity it moves.
        lease: exclusive lease it was made under.
        release: whether to give the lease back with it.
        vouched: whether the agent says that its login works.
        score_change: tenths, added to the shared error score.
        mark_only: whether it is nothing but a change of the score.
        waited: whether it had to wait for the store.
        parts: changes that were combined into this one, and share its outcome.
        built_on: waiting changes of others that `before` holds.
        ids: save ids of the requests that carried it. A stored header that names one of them contains the change.
        sent_over: version of the session when it was first sent. 0 for none.
        notes_only: whether the last request with it brings the notes alone, since another login is stored.
        is_cut: whether a change of its storage state is left out of that request.
        outcome: what became of it. None while it is on its way.
        not_taken: whether its storage state was left out, since another login is stored.
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
    parts: list[Change] = field(default_factory=list)
    built_on: Sequence[Change] = ()
    ids: list[str] = field(default_factory=list)
    sent_over: int = 0
    notes_only: bool = False
    is_cut: bool = False
    outcome: SaveOutcome | None = None
    not_taken: bool = False
    why: str = ""
    domains: AllowedDomains | None = None
    whole: Body = field(default=Body(b"", PLAIN_JSON), repr=False)
    failure: StoreError | None = None
    name: str = ""
    mark_id: str = ""
    uses: tuple[SessionUse, ...] = ()
    noted: SaveOutcome | None = None
    answered: asyncio.Event | None = None
    done: asyncio.Event | None = None

    @property
    def size(self) -> int:
        """Bytes it takes in memory, roughly."""
        before = len(self.before.data) if self.before is not self.after else 0
        return 1024 + len(self.after.data) + before + len(self.whole.data)

    @property
    def has_released_lease(self) -> bool:
        """Whether the lease was given back with it. One that may never have been sent has not done so."""
        return self.release and self.outcome is not None and self.outcome not in NOT_STORED

    def is_in(self, stored: Snapshot) -> bool:
        """Return whether the stored session contains it: a reply was lost, or another process has read it from disk."""
        return stored.header is not None and not {*self.ids, self.name}.isdisjoint(stored.header.save_ids)

    def age(self, now: float) -> float:
        """Return the seconds since it was made, by event loop time. 0 for one that did not wait."""
        age = now - self.made_at
        return age if self.waited or age > _LONGEST_RACE else 0.0

    def settle(self, outcome: SaveOutcome, why: str = "") -> None:
        """Set its outcome, once."""
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
            self.not_taken, self.why = True, "another login is stored: only the notes were saved"

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


@record()
class Rebased:
    """A document with a change applied.

    Attributes:
        body: the document.
        merged: whether it holds more than the agent's own document.
        new_login: whether it replaces the stored session as a whole.
        notes_only: whether another login is stored, to which the agent's notes were added.
        not_taken: whether a change of the agent's storage state was left out for that.
    """

    body: Body = field(repr=False)
    merged: bool = False
    new_login: bool = False
    notes_only: bool = False
    not_taken: bool = False


@record()
class Refused:
    """A change that must not be applied."""

    outcome: SaveOutcome
    why: str


def rebase(change: Change, stored: Snapshot, moment: Moment, *, retire_after_bad: int) -> Rebased | Refused:
    """Apply a change to the stored session."""
    login, header = change.login, stored.header
    if (refused := _refusal(change, stored, moment)) is not None:
        return refused
    if change.mark_only:
        return _marked(login, stored)
    if header is None:
        return Rebased(change.after, new_login=stored.kind is StoredKind.CORRUPT and login.found is not Found.STORED)
    same = login.created_at == header.created_at
    if login.found is Found.ABSENT or (login.found is Found.STORED and same):
        return _merged(change, stored.body, header.saved_at, moment)
    if login.found is Found.UNUSABLE and same and not _is_later(header.saved_at, change, moment):
        return Rebased(change.after, new_login=True)
    retired = judge(header, now=moment.wall, retire_after_bad=retire_after_bad) is Outcome.RETIRED
    return _beside_another_login(change, stored.body, header.saved_at, moment, retired=retired)


def _marked(login: Login, stored: Snapshot) -> Rebased | Refused:
    if stored.header is None or stored.header.created_at != login.created_at:
        return Refused(SaveOutcome.SKIPPED, "the session that was marked is gone")
    return Rebased(stored.body)


def _refusal(change: Change, stored: Snapshot, moment: Moment) -> Refused | None:
    login = change.login
    if stored.kind is StoredKind.UNREADABLE:
        return Refused(
            SaveOutcome.SKIPPED, "the stored session cannot be opened with the keys or limits of this process"
        )
    last = stored.invalidated_at or 0
    heard = moment.by_server(login.heard_at)
    if last > login.invalidated_at if login.invalidated_at is not None else heard is not None and last > heard:
        return Refused(SaveOutcome.STALE, "the session was invalidated")
    return _refusal_of_a_lost_one(change, moment) if stored.header is None else None


def _refusal_of_a_lost_one(change: Change, moment: Moment) -> Refused | None:
    """Return why a change must not bring a session back that is not stored any more."""
    login = change.login
    if moment.loop - change.made_at > change.ttl:
        return Refused(SaveOutcome.SKIPPED, "it waited for longer than its time to live")
    is_unchanged = change.before is change.after
    if is_unchanged and login.found is Found.STORED and 0 < login.retire_at <= moment.wall * 1000:
        return Refused(SaveOutcome.SKIPPED, "the session is gone, and would be retired by now")
    if is_unchanged and any(one.outcome in REFUSED for one in change.built_on):
        return Refused(SaveOutcome.SKIPPED, "it holds a change that was refused, and the session is gone")
    if login.age(moment) > HOLD_LIMIT:
        return Refused(SaveOutcome.STALE, "the session is gone, and it is too long ago to know why")
    return None


def _merged(change: Change, stored: Body, saved_at: int, moment: Moment) -> Rebased:
    """Merge a change into a document that was saved at this time, server milliseconds."""
    if change.before is change.after:
        return Rebased(stored)
    if change.before == stored:
        return Rebased(change.after)
    before = document.load(*change.before)
    mine, theirs = document.load(*change.after), document.load(*stored)
    if _is_later(saved_at, change, moment):
        mine, theirs = theirs, mine
    return Rebased(document.dump(merge_documents(before, mine, theirs)), merged=True)


def _is_later(saved_at: int, change: Change, moment: Moment) -> bool:
    """Return whether the stored session was saved after a change was made: where both changed one item, the later wins.

    The server's clock decides, for the whole document, since single items have no times. So a change that did not wait
    is the later one: it lost a race with another save by milliseconds, and most of the stored items are older than it.
    """
    made_at = moment.by_server(change.made_at) if change.age(moment.loop) else None
    return made_at is not None and saved_at * 1000 > made_at


def _beside_another_login(
    change: Change, stored: Body, saved_at: int, moment: Moment, *, retired: bool
) -> Rebased | Refused:  # fmt: skip
    """Decide for a login that is not the stored one: two logins are never mixed, only the agent's notes are."""
    mine, theirs = document.load(*change.after), document.load(*stored)
    made_at = moment.by_server(change.login.heard_at)
    younger = made_at is not None and made_at > saved_at * 1000 and change.login.found is not Found.STORED
    if younger and (change.vouched or retired) and not is_empty(mine["storage_state"]):
        return Rebased(change.after, new_login=True)
    before, notes = document.load(*change.before), (mine["data"], theirs["data"])
    if _is_later(saved_at, change, moment):
        notes = (theirs["data"], mine["data"])
    data = merge_data(common_notes(before["data"], mine["data"], theirs["data"]), *notes)
    not_taken = mine["storage_state"] != before["storage_state"]
    if data == theirs["data"]:
        outcome = SaveOutcome.STALE if change.login.found is Found.STORED else SaveOutcome.SKIPPED
        return Refused(outcome, "another login is stored")
    return Rebased(document.dump({**theirs, "data": data}), merged=True, notes_only=True, not_taken=not_taken)


@record()
class Folded:
    """Changes applied one after the other.

    Attributes:
        result: the document to store, with the flags of all that were applied.
        applied: the changes in it, each with what it made of the document before it.
        refused: the others, each with the reason.
    """

    result: Rebased
    applied: list[tuple[Change, Rebased]]
    refused: list[tuple[Change, Refused]]

    @property
    def login(self) -> Login | None:
        """The login of the last change whose storage state is in the result; None where that is the stored one."""
        return next((change.login for change, rebased in reversed(self.applied) if not rebased.notes_only), None)


def fold(changes: Iterable[Change], stored: Snapshot, moment: Moment, *, retire_after_bad: int) -> Folded:
    """Apply changes to the stored session, the earliest first."""
    applied: list[tuple[Change, Rebased]] = []
    refused: list[tuple[Change, Refused]] = []
    result = Rebased(stored.body)
    logins: list[Login] = []
    for change in changes:
        inside = result if change.domains is None else replace(result, body=change.domains.restrict_body(result.body))
        outcome = _on_top(change, stored, moment, inside, logins) if applied else None
        outcome = outcome or rebase(change, _with(stored, inside), moment, retire_after_bad=retire_after_bad)
        if isinstance(outcome, Rebased) and change.domains is not None:
            whole = stored.body if outcome.new_login else result.body  # what is before a new login is refused below
            if not whole.data and change.login.found is Found.STORED:
                whole = change.whole  # the store has lost the session: this process brings back what it knows of it
            outcome = _widened(change.domains, outcome, inside.body, whole)
        if isinstance(outcome, Refused):
            refused.append((change, outcome))
            continue
        if outcome.new_login and applied:
            refused += [
                (earlier, Refused(SaveOutcome.SKIPPED, "a new login has replaced it")) for earlier, _ in applied
            ]
            applied, logins = [], []
        if not outcome.notes_only:
            logins.append(change.login)
        applied.append((change, outcome))
        result = replace(outcome, new_login=True) if result.new_login else outcome
    if result.new_login and stored.header is not None and _is_logged_out(result.body, stored.body):
        refused += [
            (change, Refused(SaveOutcome.SKIPPED, "the new login was logged out again")) for change, _ in applied
        ]
        return Folded(Rebased(stored.body), [], refused)
    return Folded(result, applied, refused)


def _widened(domains: AllowedDomains, rebased: Rebased, inside: Body, whole: Body) -> Rebased:
    """Return the result of a change to a part of a document as one of the whole: what is outside stays as it is."""
    body = whole if rebased.body is inside else domains.join_body(whole, rebased.body)
    return replace(rebased, body=body)


def _is_logged_out(new: Body, stored: Body) -> bool:
    """Return whether a new login has come to less than what it would replace: no login any more, and no notes either."""
    mine, theirs = document.load(*new), document.load(*stored)
    return is_empty(mine["storage_state"]) and not (mine["data"] and is_empty(theirs["storage_state"]))


def _with(stored: Snapshot, result: Rebased) -> Snapshot:
    return stored if result.body is stored.body else replace(stored, body=result.body)


def _on_top(
    change: Change, stored: Snapshot, moment: Moment, result: Rebased, logins: list[Login]
) -> Rebased | Refused | None:  # fmt: skip
    """Apply a change to the login that an earlier change has brought; None when the stored login still stands."""
    if stored.header is not None and not result.new_login:
        return None
    if any(change.login.is_same(login) for login in logins):
        return _merged(change, result.body, 0, moment)
    if (refused := _refusal(change, stored, moment)) is not None:
        return refused
    if change.login.found is Found.ABSENT and not result.new_login:
        return _merged(change, result.body, 0, moment)
    return _beside_another_login(change, result.body, 0, moment, retired=False)
