"""Summaries of sessions and of a manager: numbers and names, no content of a session."""

from __future__ import annotations

import re
from dataclasses import dataclass

from session_reuse._state.header import Header, judge
from session_reuse._store.interface import SessionEntry
from session_reuse.config import Config
from session_reuse.errors import CorruptStateError
from session_reuse.outcome import Liveness, Outcome


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """Facts about a stored session, without its content.

    Attributes:
        version: number of saves. None when the value is not a session of ours.
        created_at: first save, unix seconds.
        saved_at: last save, unix seconds.
        ttl: seconds to live. None for ever.
        size: bytes stored.
        uses: reuses, as far as agents count them.
        error_score: bad marks minus half of the good ones.
        encrypted: whether the body is.
        retired: whether the next agent starts fresh: too old, or marked bad too often.
        used_by: the agent that saved last, if it has a name.
        used_at: when it did, unix seconds.
        holder: name of the holder of the exclusive lease. Empty without one.
        lease_left: seconds until the lease ends by itself.
        liveness: what the last probe of `keep_alive` found out about this login.
        checked_at: when, unix seconds.
        cookies_expire_at: when the last login cookie expires, unix seconds. None where it is not known, or there is none.
        readable: whether it could be opened: False when it is damaged, or sealed with keys that are not configured here. None when
            it was not tried.
        error: why the store did not show it, such as a key that its user may not read. Empty when it did.
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
    retired: bool = False
    used_by: str = ""
    used_at: float | None = None
    holder: str = ""
    lease_left: float = 0.0
    liveness: Liveness = Liveness.UNKNOWN
    checked_at: float | None = None
    cookies_expire_at: float | None = None
    readable: bool | None = None
    error: str = ""


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


def summary_of(listed: SessionEntry, config: Config, now: float) -> SessionSummary:
    """Return the summary of one session that a listing has found."""
    if listed.failure is not None:
        error = str(listed.failure.error)
        return SessionSummary(listed.fingerprint, None, None, None, None, 0, readable=False, error=error)
    try:
        header = Header.decode(listed.head)
    except CorruptStateError:
        return SessionSummary(listed.fingerprint, None, None, None, listed.ttl, listed.size)
    judged = judge(
        header, now=now, retire_after_bad=config.retire_after_bad, max_age=config.max_age, max_uses=config.max_uses
    )
    liveness, checked_at = _liveness(listed.liveness, header)
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
        retired=judged is Outcome.RETIRED,
        used_by=listed.used_by,
        used_at=listed.used_at / 1000 if listed.used_at else None,
        holder=listed.holder,
        lease_left=listed.lease_left,
        liveness=liveness,
        checked_at=checked_at,
    )


def _liveness(noted: str, header: Header) -> tuple[Liveness, float | None]:
    """Return the last verdict and its time, as far as it is about the login that is stored now."""
    at, _, rest = noted.partition(" ")
    created_at, _, verdict = rest.partition(" ")
    if not re.fullmatch(r"[0-9]{1,20}", at) or created_at != str(header.created_at) or verdict not in set(Liveness):
        return Liveness.UNKNOWN, None
    if verdict == Liveness.DEAD and header.saved_at * 1000 > int(at):
        verdict = Liveness.UNKNOWN  # an agent may have logged in since
    return Liveness(verdict), int(at) / 1_000_000
