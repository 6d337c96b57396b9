"""`session-reuse stats`: counts and sizes over all sessions."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from session_reuse._summaries import SessionSummary
from session_reuse.cli.connection import Place, connected
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import duration, plural, size
from session_reuse.cli.listing import Refusals, each_session
from session_reuse.cli.output import Output, Table
from session_reuse.errors import ConfigurationError

Soon = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Time to live that counts as expiring soon.")]


@dataclass(slots=True)
class Totals:
    """Sums over the sessions. Ages are in seconds."""

    sessions: int = 0
    bytes: int = 0
    largest: int = 0
    encrypted: int = 0
    foreign: int = 0
    """Values that are no sessions of ours. They count as sessions, too."""
    refused: int = 0
    """What the store does not show. They count as sessions, too."""
    expiring_soon: int = 0
    without_end: int = 0
    uses: int = 0
    marked_bad: int = 0
    oldest: float | None = None
    idle_longest: float | None = None
    idle_shortest: float | None = None

    def add(self, summary: SessionSummary, now: float, soon: float) -> None:
        """Count one session."""
        self.sessions += 1
        if summary.error:
            self.refused += 1
            return
        self.bytes += summary.size
        self.largest = max(self.largest, summary.size)
        self.encrypted += summary.encrypted
        self.expiring_soon += summary.ttl is not None and summary.ttl < soon
        self.without_end += summary.ttl is None
        self.uses += summary.uses
        self.marked_bad += summary.error_score > 0
        if summary.created_at is None or summary.saved_at is None:
            self.foreign += 1
            return
        age, idle = max(0.0, now - summary.created_at), max(0.0, now - summary.saved_at)
        self.oldest = max(age, self.oldest or 0.0)
        self.idle_longest = max(idle, self.idle_longest or 0.0)
        self.idle_shortest = idle if self.idle_shortest is None else min(idle, self.idle_shortest)


async def stats(output: Output, place: Place, soon: Soon = 3600.0) -> ExitCode:
    """Count the stored sessions: number, bytes, age, encrypted share, expiring soon."""
    if not math.isfinite(soon):  # JSON has no number for it
        raise ConfigurationError("--soon must be a number of seconds")
    totals, now, refusals = Totals(), time.time(), Refusals()  # one time for all, so that ages are comparable
    async with connected(place) as manager:
        async for summary in each_session(manager, refusals=refusals):
            totals.add(summary, now, soon)
    share = totals.encrypted / totals.sessions if totals.sessions else 0.0
    output.emit(asdict(totals) | {"encrypted_share": share, "soon": soon})
    made = Table("", "")
    for name, value in _rows(totals, share, soon):
        made.add_row(name, value)
    output.show(made)
    return refusals.end(output)


def _rows(totals: Totals, share: float, soon: float) -> list[tuple[str, str]]:
    average = totals.bytes // totals.sessions if totals.sessions else 0
    rows = [
        ("sessions", str(totals.sessions)),
        ("stored", f"{size(totals.bytes)}, {size(average)} each, {size(totals.largest)} the largest"),
        ("encrypted", f"{totals.encrypted} ({share:.0%})"),
        (f"expiring within {duration(soon)}", str(totals.expiring_soon)),
        ("marked bad", str(totals.marked_bad)),
    ]
    if totals.uses:
        rows.append(("reuses counted", str(totals.uses)))
    if totals.oldest is not None and totals.idle_shortest is not None:
        rows.append(("first saved, the oldest", f"{duration(totals.oldest)} ago"))
        rows.append(("last saved", f"{duration(totals.idle_shortest)} to {duration(totals.idle_longest)} ago"))
    if totals.without_end:
        rows.append(("without a time to live", plural(totals.without_end, "session")))
    if totals.refused:
        rows.append(("not shown by the store", plural(totals.refused, "session")))
    if totals.foreign:
        rows.append(("not sessions of ours", plural(totals.foreign, "value")))
    return rows
