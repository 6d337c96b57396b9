"""What a session knows of its stored copy: the ground for saving it safely. Must never be guessed."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from session_reuse.state.header import Header
from session_reuse.state.record import record


class Expectation(StrEnum):
    """What a save expects to find in the store."""

    REVISION = "revision"
    """The very revision that was restored or saved last."""
    ABSENT = "absent"
    """Nothing: the store said so at enter."""
    UNKNOWN = "unknown"
    """Not known: the store was away at enter. Only an absent or a bad state is replaced."""
    CORRUPT = "corrupt"
    """The unreadable value met at enter; it is set aside, not overwritten."""


@record(kw_only=True)
class Baseline:
    """The last point at which a session and the store agreed.

    Attributes:
        expectation: what the store should hold.
        entered: monotonic time of the enter, from which the age of this knowledge is measured.
        header: head of the stored value, when it is known.
        epoch: server time in µs of the last invalidation known at enter; 0 if there was none.
        knows_epoch: whether the store has said so, or else `epoch` is of no use without a stored value.
        view: the session's own document at that point (JSON); the base of a merge. Empty when there was none.
        stored: the stored document at that point; differs from `view` after a merged checkpoint.
        dialect: JSON dialect of both.
        damaged: first bytes of the corrupt value, to recognise it.
    """

    expectation: Expectation
    entered: float
    header: Header | None = None
    epoch: int = 0
    knows_epoch: bool = False
    view: bytes = field(default=b"", repr=False)
    stored: bytes = field(default=b"", repr=False)
    dialect: str = "o"
    damaged: bytes = field(default=b"", repr=False)

    @property
    def saved_at(self) -> int:
        """When the stored state was saved, unix milliseconds; 0 when that is not known."""
        return self.header.saved_at if self.header is not None else 0
