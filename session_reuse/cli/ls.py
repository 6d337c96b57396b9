"""`session-reuse ls`: the stored sessions, by their headers; the bodies are not read."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from session_reuse.cli.connection import Place, connected
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import plural
from session_reuse.cli.listing import Printer, each_session
from session_reuse.cli.listing import as_json as summary_as_json
from session_reuse.cli.options import AsJson, KeyPrefix, Url
from session_reuse.cli.output import Output
from session_reuse.cli.running import run

Pattern = Annotated[
    str | None, typer.Argument(metavar="PATTERN", help="Shell pattern, such as 'shop.example/*'.", show_default=False)
]
Limit = Annotated[
    int | None, typer.Option(min=1, metavar="NUMBER", help="Stop after so many.", show_default=False)
]  # fmt: skip


def ls(
    pattern: Pattern = None,
    limit: Limit = None,
    url: Url = None,
    key_prefix: KeyPrefix = None,
    as_json: AsJson = False,
) -> None:
    """List the stored sessions: JSON lines with --json. Nothing of what is in them is read.

    The first 1000 are sorted by name, further ones come as the store gives them.
    """
    run(partial(_list, Place(url, key_prefix), pattern, limit), as_json=as_json)


async def _list(place: Place, pattern: str | None, limit: int | None, output: Output) -> ExitCode:
    printer, count = Printer(output), 0
    async with connected(place) as manager:
        async for summary in each_session(manager, pattern):
            count += 1
            if output.as_json:
                output.emit(summary_as_json(summary), flush=False)
            else:
                printer.add(summary)
            if count == limit:
                break
    printer.finish()
    output.note(plural(count, "session"))
    return ExitCode.OK
