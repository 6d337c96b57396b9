"""`session-reuse ls`: list the stored sessions by their headers."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from session_reuse.cli.connection import Place, connected
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import plural
from session_reuse.cli.listing import Refusals, Rows, each_session
from session_reuse.cli.options import argument
from session_reuse.cli.output import Output

if TYPE_CHECKING:
    from session_reuse._summaries import SessionSummary

SORTED: Final = 1000
"""How many sessions are sorted before the first one is printed. A sort of all would delay and hold 50,000 in memory."""

Pattern = Annotated[str | None, argument("PATTERN", "Shell pattern, such as 'shop.example/*'.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="NUMBER", help="Stop after so many.", show_default=False)]


async def ls(output: Output, place: Place, pattern: Pattern = None, limit: Limit = None) -> ExitCode:
    """List the stored sessions, as JSON lines with --json. Their content is not read.

    For people, the first 1000 are sorted by name. Further ones and those of --json come in the order of the store.
    """
    first: list[SessionSummary] = []
    rows: Rows | None = None
    count, refusals = 0, Refusals()
    async with connected(place) as manager:
        async for summary in each_session(manager, pattern, refusals=refusals):
            count += 1
            if output.as_json:
                # A flush for each of 50,000 lines would take longer than the listing itself.
                output.emit(asdict(summary), flush=False)
            elif rows is not None:
                output.show(rows.row(summary, time.time()))
            else:
                first.append(summary)
                rows = _show_sorted(first, output) if len(first) == SORTED else None
            if count == limit:
                break
    if rows is None and first:
        _show_sorted(first, output)
    output.note(plural(count, "session"))
    return refusals.end(output)


def _show_sorted(summaries: list[SessionSummary], output: Output) -> Rows:
    rows, now = Rows(output.width, (each.fingerprint for each in summaries)), time.time()
    output.show(rows.heading(), "bold")
    for summary in sorted(summaries, key=lambda each: each.fingerprint):
        output.show(rows.row(summary, now))
    return rows
