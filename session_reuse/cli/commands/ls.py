"""`session-reuse ls`: list the stored sessions by their headers."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from session_reuse.cli.connection import Place, connected
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import plural
from session_reuse.cli.listing import Refusals, each_session, table_of
from session_reuse.cli.options import argument
from session_reuse.cli.output import Output

if TYPE_CHECKING:
    from session_reuse._summaries import SessionSummary

Pattern = Annotated[str | None, argument("PATTERN", "Shell pattern, such as 'shop.example/*'.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="NUMBER", help="Stop after so many.", show_default=False)]


async def ls(output: Output, place: Place, pattern: Pattern = None, limit: Limit = None) -> ExitCode:
    """List the stored sessions by name. Their content is not read.

    With --json, print one line each, in the order of the store, as soon as it is known.
    """
    found: list[SessionSummary] = []
    count, refusals = 0, Refusals()
    async with connected(place) as manager:
        async for summary in each_session(manager, pattern, refusals=refusals):
            count += 1
            if output.as_json:
                # A flush for each of 50,000 lines would take longer than the listing itself.
                output.emit(asdict(summary), flush=False)
            else:
                found.append(summary)
            if count == limit:
                break
    if found:
        output.show(table_of(sorted(found, key=lambda each: each.fingerprint), output.width))
    output.note(plural(count, "session"))
    return refusals.end(output)
