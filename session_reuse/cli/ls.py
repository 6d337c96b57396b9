"""`session-reuse ls`: the stored sessions. Must never read what is in one."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from session_reuse.cli.connection import Place, connected
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import plural
from session_reuse.cli.listing import as_json as summary_as_json
from session_reuse.cli.listing import each_session, sessions_table
from session_reuse.cli.options import AsJson, KeyPrefix, Url
from session_reuse.cli.output import Output
from session_reuse.cli.running import run

Pattern = Annotated[str | None, typer.Argument(help="Shell pattern, such as 'shop.example/*'.", show_default=False)]
Limit = Annotated[int | None, typer.Option(min=1, help="Stop after so many.", show_default=False)]


def ls(
    pattern: Pattern = None,
    limit: Limit = None,
    url: Url = None,
    key_prefix: KeyPrefix = None,
    as_json: AsJson = False,
) -> None:
    """List the stored sessions: JSON lines with --json. Nothing of what is in them is read."""
    run(partial(_list, Place(url, key_prefix), pattern, limit), as_json=as_json)


async def _list(place: Place, pattern: str | None, limit: int | None, output: Output) -> ExitCode:
    found = []
    async with connected(place) as manager:
        async for summary in each_session(manager, pattern):
            output.emit(summary_as_json(summary))
            found.append(summary)
            if len(found) == limit:
                break
    if found:
        output.show(sessions_table(sorted(found, key=lambda summary: summary.fingerprint)))
    output.note(plural(len(found), "session"))
    return ExitCode.OK
