"""Whether a stored session may still be used, from its header alone. Pure: clocks are passed in."""

from __future__ import annotations

from typing import Final

from session_reuse._state.header import Header
from session_reuse.outcome import Outcome

BAD_MARK: Final = 10
GOOD_MARK: Final = -5
"""Changes of the error score, in tenths."""


def judge(
    header: Header,
    *,
    now: float,
    retire_after_bad: int,
    max_age: float | None = None,
    max_uses: int | None = None,
    uses: int | None = None,
) -> Outcome:
    """Return REUSED or RETIRED.

    Args:
        header: of the stored value.
        now: unix seconds.
        retire_after_bad: how many bad marks retire it.
        max_age: seconds since the first save after which it is retired.
        max_uses: number of reuses after which it is retired.
        uses: reuses before this one. Default: the count in the header.
    """
    now_ms = now * 1000
    used = header.uses if uses is None else uses
    is_retired = (
        header.score >= retire_after_bad * BAD_MARK
        or (header.retire_at and now_ms >= header.retire_at)
        or (max_age is not None and now_ms - header.created_at >= max_age * 1000)
        or (max_uses is not None and used >= max_uses)
    )
    return Outcome.RETIRED if is_retired else Outcome.REUSED
