"""What is told of sessions and of a manager: numbers and names. Must hold nothing of what is in a session."""

from __future__ import annotations

from dataclasses import dataclass

from session_reuse._state.header import Header
from session_reuse._store.interface import Listed
from session_reuse.errors import CorruptStateError
from session_reuse.outcome import Outcome


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """What a listing shows of a session: nothing of what is in it.

    Attributes:
        version: number of saves; None when the value is not a session of ours.
        created_at: first save, unix seconds.
        saved_at: last save, unix seconds.
        ttl: seconds to live; None for ever.
        size: bytes stored.
        uses: reuses, as far as agents count them.
        error_score: bad marks minus half of the good ones.
        encrypted: whether the body is.
    """

    fingerprint: str
    version: int | None
    created_at: float | None
    saved_at: float | None
    ttl: float | None
    size: int
    uses: int = 0
    error_score: float = 0.0
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class ManagerStats:
    """What this process has done so far.

    Attributes:
        entered: enters by outcome.
        saved: saves by outcome.
        pending: saves that wait for the store.
        flushed: waiting saves that got through.
        lost: waiting saves given up.
        breakers: state of the breaker for reads and for writes.
    """

    entered: dict[str, int]
    saved: dict[str, int]
    pending: int
    flushed: int
    lost: int
    breakers: dict[str, str]

    @property
    def reuse_rate(self) -> float:
        """Share of enters that reused a session; 0 before the first."""
        total = sum(self.entered.values())
        return self.entered.get(Outcome.REUSED.value, 0) / total if total else 0.0


def summary_of(listed: Listed) -> SessionSummary:
    """Return the summary of one session that a listing has found."""
    try:
        header = Header.decode(listed.head)
    except CorruptStateError:
        return SessionSummary(listed.fingerprint, None, None, None, listed.ttl, listed.size)
    return SessionSummary(
        listed.fingerprint,
        header.version,
        header.created_at / 1000,
        header.saved_at / 1000,
        listed.ttl,
        listed.size,
        header.uses,
        header.score / 10,
        header.flags[1] != "-",
    )
