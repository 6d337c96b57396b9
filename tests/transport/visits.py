"""What an agent does in these tests."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from session_reuse import Outcome, SaveOutcome, SessionManager, reusable_session

DEFAULTS: Final[dict[str, Any]] = {"registry": None, "reuse_while_away": 0}
"""Default settings, but for the reuse of what this process knows: what is reused here, the store has answered."""


@dataclass(frozen=True, slots=True)
class Visit:
    """How one visit went.

    Attributes:
        outcome: of the enter.
        saved: of the leave. None when nothing was saved.
        entered_in: seconds.
        began: when it began.
    """

    outcome: Outcome
    saved: SaveOutcome | None
    entered_in: float
    began: float


async def visit(manager: SessionManager, name: str = "shop/1", *, save: bool = True, pad: str = "") -> Visit:
    """Enter, change something, leave."""
    began = monotonic()
    async with reusable_session(name, manager=manager) as session:
        entered_in = monotonic() - began
        if save:
            session.data["n"] = session.data.get("n", 0) + 1
            if pad:
                session.data["pad"] = pad
        else:
            session.discard()
    return Visit(session.outcome, session.save_outcome if save else None, entered_in, began)


async def visits(manager: SessionManager, names: list[str], *, save: bool = True) -> list[Visit]:
    """Let agents visit at once."""
    return await asyncio.gather(*(visit(manager, name, save=save) for name in names))


def outcomes(found: list[Visit]) -> Counter[str]:
    """Count how visits began."""
    return Counter(visit.outcome.value for visit in found)


def breakers(manager: SessionManager) -> set[str]:
    """Return the states that the breakers are in."""
    return set(manager.stats().breakers.values())
