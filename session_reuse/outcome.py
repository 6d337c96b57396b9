"""The closed sets of outcomes, the same in code, metrics, logs, docs and command line."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The result of an enter."""

    __hash__ = str.__hash__  # Enum's own is written in Python: it took 3 µs of each cycle (measured 2026-11)

    REUSED = "reused"
    """A stored state was restored."""
    MISSING = "missing"
    """The store answered, and holds nothing for this fingerprint."""
    CORRUPT = "corrupt"
    """A value is there but cannot be trusted: damaged, foreign, or not readable with the configured keys."""
    UNVERIFIED = "unverified"
    """A state was restored, but the `verify` hook did not accept it."""
    RETIRED = "retired"
    """A state is there, but it is too old, used up, or was marked bad."""
    BUSY = "busy"
    """Another agent holds the exclusive lease, or no member of the pool is free."""
    UNAVAILABLE = "unavailable"
    """The store could not be reached or refused the command."""
    TIMEOUT = "timeout"
    """The store did not answer within the budget."""
    CIRCUIT_OPEN = "circuit_open"
    """The store failed shortly before, so no request was sent."""
    AUTH = "auth"
    """The store rejected the credentials or lacks the rights."""

    @property
    def degraded(self) -> bool:
        """True when the store, not the data, is the reason for a fresh session."""
        return self in {Outcome.UNAVAILABLE, Outcome.TIMEOUT, Outcome.CIRCUIT_OPEN, Outcome.AUTH}


class SaveOutcome(StrEnum):
    """The result of a save."""

    __hash__ = str.__hash__

    SAVED = "saved"
    """The state was written."""
    UNCHANGED = "unchanged"
    """Nothing had changed. The time to live was refreshed."""
    MERGED = "merged"
    """Another holder had saved meanwhile. Both sets of changes were written."""
    PENDING = "pending"
    """The store is away. The state is kept in memory and written when the store is back."""
    SPOOLED = "spooled"
    """The store is away. The state is kept in memory and, encrypted, on disk."""
    SKIPPED = "skipped"
    """Not written, on purpose: discarded, marked bad, failed verification, an empty session in the place of a login, or not ours to overwrite."""
    STALE = "stale"
    """Refused: the lease was lost, or the session was invalidated or replaced by a new login meanwhile."""
    LOST = "lost"
    """Not written and not kept: a bound was reached, the manager was closed while the store was away, or the exit was cut off."""


class Liveness(StrEnum):
    """Whether a stored login works, by its last probe."""

    __hash__ = str.__hash__

    LIVE = "live"
    """The last probe was logged in."""
    DEAD = "dead"
    """The last probe was logged out, and nothing was saved since."""
    UNKNOWN = "unknown"
    """No probe has a result for this login."""
