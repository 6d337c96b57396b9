"""What a commit does to what a store holds: one pure function, the rules of `scripts/commit.lua` in its order.

Must never do I/O nor read a clock. `MemoryStore` decides by it; a test compares it with the script on a real server.
"""

from __future__ import annotations

from dataclasses import dataclass

from session_reuse.errors import CorruptStateError
from session_reuse.state.baseline import Expectation
from session_reuse.state.header import Header
from session_reuse.store.interface import Commit, CommitOutcome, Lease


@dataclass(frozen=True, slots=True)
class Standing:
    """What the store holds of one session when a commit arrives.

    Attributes:
        head: first bytes of the value; None when there is no value, empty when it is not a string.
        lease: the exclusive lease, whoever holds it.
        tombstone: µs of the last invalidation on record; 0 without one.
        now: µs of the store's clock.
    """

    head: bytes | None
    lease: Lease | None
    tombstone: int
    now: int

    @property
    def header(self) -> Header | None:
        """The header, when the value is one of ours."""
        try:
            return Header.decode(self.head or b"")
        except CorruptStateError:
            return None


def decide(commit: Commit, standing: Standing) -> CommitOutcome:
    """Return what a commit does to this standing: the rules of `scripts/commit.lua`, in its order."""
    header = standing.header
    if header is not None and commit.save_id in header.save_ids:
        return CommitOutcome.DUPLICATE
    if commit.lease is not None and fenced_off(commit.lease.token, header, standing.lease):
        return CommitOutcome.STALE
    if commit.expectation is Expectation.REVISION or commit.age is None:
        if invalidated_at(standing) > commit.epoch:
            return CommitOutcome.STALE
    elif standing.tombstone > standing.now - commit.age * 1_000_000:
        return CommitOutcome.STALE
    return _compared(commit, standing, header)


def fenced_off(token: int, header: Header | None, lease: Lease | None) -> bool:
    """Return whether a later holder of the lease has come, or has saved."""
    return (lease is not None and lease.token > token) or (header is not None and header.token > token)


def invalidated_at(standing: Standing) -> int:
    """Return the µs of the last invalidation that the tombstone or the header knows of; 0 if there was none."""
    return max(standing.tombstone, standing.header.epoch if standing.header else 0)


def _compared(commit: Commit, standing: Standing, header: Header | None) -> CommitOutcome:
    """Compare what is there with what the commit expects."""
    exists = standing.head is not None
    if commit.expectation is Expectation.REVISION:
        return _compared_revision(commit, header) if exists else CommitOutcome.RECREATED
    if not exists:
        return CommitOutcome.SAVED
    if commit.expectation is Expectation.UNKNOWN:
        return CommitOutcome.EXISTS
    if commit.expectation is Expectation.CORRUPT and standing.head == commit.known:
        return CommitOutcome.SAVED
    return CommitOutcome.CONFLICT


def _compared_revision(commit: Commit, header: Header | None) -> CommitOutcome:
    if header is None:
        return CommitOutcome.CONFLICT
    if header.revision.encode() == commit.known:
        return CommitOutcome.SAVED
    if header.version < int(commit.known[:12]) and header.created_at == commit.created_at:
        return CommitOutcome.RECOVERED  # a fail-over lost the save that the commit builds on
    return CommitOutcome.CONFLICT
