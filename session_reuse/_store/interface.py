"""What a store is asked for, and what it replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple, TypeAlias

from session_reuse._resilience.failure import AttemptFailed
from session_reuse._state.record import record
from session_reuse.outcome import Outcome, SaveOutcome


class Precondition(StrEnum):
    """What a commit expects to find in the store."""

    __hash__ = str.__hash__

    MATCHES = "matches"
    """The revision that is named."""
    ABSENT = "absent"
    """Nothing."""
    CORRUPT = "corrupt"
    """The damaged value that is named. It is set aside, not overwritten."""
    UNCHANGED = "unchanged"
    """The named session, at any revision: its time to live starts again and no payload is sent."""


class CommitOutcome(StrEnum):
    """What a commit did."""

    __hash__ = str.__hash__

    SAVED = "saved"
    RECOVERED = "recovered"
    """Written over an ancestor: a fail-over had lost the revision that was expected."""
    RECREATED = "recreated"
    """Written where the session was gone without having been invalidated: evicted, or a restart without data."""
    DUPLICATE = "duplicate"
    """Was written before. The reply had been lost."""
    UNCHANGED = "unchanged"
    CONFLICT = "conflict"
    """Something else is stored: read it, merge, and try again."""
    STALE = "stale"
    """The lease went to another holder, or the session was invalidated or replaced."""
    GONE = "gone"
    """An unchanged session is not there any more: send the payload."""

    @property
    def written(self) -> bool:
        """Whether the state is in the store now."""
        return self not in {CommitOutcome.CONFLICT, CommitOutcome.STALE, CommitOutcome.GONE}


@dataclass(frozen=True, slots=True)
class Lease:
    """An exclusive lease: its fencing token (µs of server time, 0 when not known) and its holder."""

    token: int
    holder: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Another holder has the lease.

    Attributes:
        left: seconds until it expires.
        foreign: what stands under the key is not a lease of ours.
    """

    left: float
    foreign: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionUse:
    """One use of a session, as the audit keeps it.

    Attributes:
        agent_id: the agent. Empty for one without a name.
        outcome: of the enter.
        save_outcome: of the save at the end. None for a session that was only restored.
        allowed_domains: the hosts that it was limited to. None for all.
        read_only: whether `save="never"` was set.
        used_at: when it ended, unix seconds by the server's clock.
        use_id: names the use. Of several lines about one use, the last one counts.
    """

    fingerprint: str
    agent_id: str = ""
    outcome: Outcome
    save_outcome: SaveOutcome | None = None
    allowed_domains: tuple[str, ...] | None = None
    read_only: bool = False
    used_at: float = 0.0
    use_id: str


@record(kw_only=True)
class Commit:
    """One conditional save.

    Attributes:
        value: the stored form to put in place. Empty with `Precondition.UNCHANGED`.
        save_id: names this request. A repetition is recognised by it.
        known: version and save ids that must be there (MATCHES), or the header of the damaged value (CORRUPT).
        invalidated_at: last invalidation that the caller knows, server time in µs.
        may_recreate: whether the caller's knowledge is young enough to write where nothing is stored.
        created_at: of the session that was restored, unix milliseconds.
        ttl: seconds to live at least. 0 leaves the time to live alone.
        agents: agents that used the session, with the value of each one's affinity entry.
        new_login: whether shared counts of uses and errors start again.
        score_change: tenths, added to the error score.
        mark_id: names the change of the score, which counts once. Empty for `save_id`.
        age: seconds since the change was made, if it had to wait.
        indexed: whether the session is known to be in the index of deadlines.
        uses: lines for the audit, each with the seconds since the use ended.
    """

    fingerprint: str
    value: bytes = field(default=b"", repr=False)
    save_id: str
    precondition: Precondition
    known: bytes = b""
    invalidated_at: int = 0
    may_recreate: bool = True
    created_at: int = 0
    ttl: float = 86400.0
    agents: tuple[tuple[str, str], ...] = ()
    lease: Lease | None = None
    release: bool = False
    new_login: bool = False
    score_change: int = 0
    mark_id: str = ""
    age: float = 0.0
    indexed: bool = False
    uses: tuple[tuple[SessionUse, float], ...] = ()


@record()
class CommitReply:
    """Reply to a commit.

    Attributes:
        outcome: what it did.
        invalidated_at, uses, score, saved_at, ttl: fields of the header as it stands now, when written.
        replicas: how many acknowledged. None when not asked.
        audit_error: why the store refused a line of the audit. Empty when it did not.
    """

    outcome: CommitOutcome
    invalidated_at: int = 0
    uses: int = 0
    score: int = 0
    saved_at: int = 0
    ttl: int = 0
    replicas: int | None = None
    audit_error: str = ""


@record()
class EnterReply:
    """Reply to an enter.

    Attributes:
        value: the stored bytes. empty for a value of a wrong type.
        lease: the lease, if one was asked for.
        uses: uses before this one, if counted.
        invalidated_at: server time in µs of the last invalidation, without a value or if it was asked for. None when it
            could not be read.
        now: server time in µs, if it was asked for.
    """

    value: bytes | None = field(repr=False)
    lease: Lease | Busy | None = None
    uses: int | None = None
    invalidated_at: int | None = None
    now: int | None = None


@record()
class ReadReply:
    """Reply to a read.

    Attributes:
        value: the stored bytes. empty for a value of a wrong type.
        invalidated_at: server time in µs of the last invalidation. 0 if there was none.
        now: server time in µs.
    """

    value: bytes | None = field(repr=False)
    invalidated_at: int
    now: int


@dataclass(frozen=True, slots=True)
class SessionEntry:
    """One session found by listing.

    Attributes:
        head: its header.
        ttl: seconds to live, None without an end.
        size: bytes stored.
        used_by: the agent that saved last, if it has a name.
        used_at: when, unix milliseconds by the server's clock.
        holder: who has the exclusive lease, for `lease_left` seconds more, or empty.
        liveness: what `note_liveness` has kept.
        now: server time in µs.
        failure: why the store did not show this one. Then all else is empty.
    """

    fingerprint: str
    head: bytes
    ttl: float | None
    size: int
    used_by: str = ""
    used_at: int = 0
    holder: str = ""
    lease_left: float = 0.0
    liveness: str = ""
    now: int = 0
    failure: AttemptFailed | None = None


@record()
class PoolReply:
    """Reply to a call for a member of a pool.

    Attributes:
        member: the member that is reserved. Empty for none.
        arrival: since when the caller waits, server time in µs.
        left: seconds until a member may be free. None when the pool has none.
        reserved_until: names the reservation.
        others: further members that are free, with their scores.
    """

    member: str
    arrival: int
    left: float | None
    reserved_until: int = 0
    others: Sequence[tuple[str, str]] = ()


class PassedMember(NamedTuple):
    """A member of a pool that will not do.

    Attributes:
        name: the member.
        score: that it had. Another one is left alone.
        pause: seconds for which nobody need look at it. 0 for one that only this agent does not want.
    """

    name: str
    score: str
    pause: float


class PoolMember(NamedTuple):
    """A member of a pool, and the seconds until it may be used."""

    name: str
    free_in: float


PoolEdit: TypeAlias = Literal["add", "remove"]
