"""`session-reuse stats`: counts and sizes over all sessions."""

from __future__ import annotations

import math
import time
from typing import Annotated, Any

import typer

from session_reuse._summaries import SessionSummary
from session_reuse.cli.connection import Place, connected
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import duration, plural, size
from session_reuse.cli.listing import Refusals, each_session
from session_reuse.cli.output import Output, Table
from session_reuse.errors import ConfigurationError

Soon = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Time to live that counts as expiring soon.")]


async def stats(output: Output, place: Place, soon: Soon = 3600.0) -> ExitCode:
    """Count the stored sessions: number, bytes, age, encrypted share, expiring soon."""
    if not math.isfinite(soon):  # JSON has no number for it
        raise ConfigurationError("--soon must be a number of seconds")
    refusals = Refusals()
    async with connected(place) as manager:
        found = [summary async for summary in each_session(manager, refusals=refusals)]
    totals = _totals(found, time.time(), soon)
    output.emit(totals)
    output.show(_table(totals))
    return refusals.end(output)


def _totals(found: list[SessionSummary], now: float, soon: float) -> dict[str, Any]:
    """Return the sums, with ages in seconds. What is refused or not ours counts as a session, too."""
    shown = [each for each in found if not each.error]
    ages = [max(0.0, now - each.created_at) for each in shown if each.created_at is not None]
    idle = [max(0.0, now - each.saved_at) for each in shown if each.saved_at is not None]
    encrypted = sum(each.encrypted for each in shown)
    return {
        "sessions": len(found),
        "bytes": sum(each.size for each in shown),
        "largest": max((each.size for each in shown), default=0),
        "encrypted": encrypted,
        "foreign": sum(each.version is None for each in shown),
        "refused": len(found) - len(shown),
        "expiring_soon": sum(each.ttl is not None and each.ttl < soon for each in shown),
        "without_end": sum(each.ttl is None for each in shown),
        "uses": sum(each.uses for each in shown),
        "marked_bad": sum(each.error_score > 0 for each in shown),
        "oldest": max(ages, default=None),
        "idle_longest": max(idle, default=None),
        "idle_shortest": min(idle, default=None),
        "encrypted_share": encrypted / len(found) if found else 0.0,
        "soon": soon,
    }


def _table(totals: dict[str, Any]) -> Table:
    """Return the sums for people, without those that are mostly 0."""
    count, oldest = totals["sessions"], totals["oldest"]
    average, last = totals["bytes"] // max(1, count), (totals["idle_shortest"], totals["idle_longest"])
    made = Table("", "")
    for name, value, is_shown in (
        ("sessions", str(count), True),
        ("stored", f"{size(totals['bytes'])}, {size(average)} each, {size(totals['largest'])} the largest", True),
        ("encrypted", f"{totals['encrypted']} ({totals['encrypted_share']:.0%})", True),
        (f"expiring within {duration(totals['soon'])}", str(totals["expiring_soon"]), True),
        ("marked bad", str(totals["marked_bad"]), True),
        ("reuses counted", str(totals["uses"]), totals["uses"]),
        ("first saved, the oldest", f"{duration(oldest)} ago", oldest is not None),
        ("last saved", " to ".join(map(duration, last)) + " ago", oldest is not None),
        ("without a time to live", plural(totals["without_end"], "session"), totals["without_end"]),
        ("not shown by the store", plural(totals["refused"], "session"), totals["refused"]),
        ("not sessions of ours", plural(totals["foreign"], "value"), totals["foreign"]),
    ):
        if is_shown:
            made.add_row(name, value)
    return made
