"""`session-reuse copy`: a stored session under a second name."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from session_reuse._browser_session import BrowserSession
from session_reuse._manager import runtime_of
from session_reuse.cli.commands.import_ import Force, store_new
from session_reuse.cli.connection import Place, connected, read_stored
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.options import AsJson, KeyPrefix, Url, complete_fingerprints
from session_reuse.cli.output import Output
from session_reuse.cli.running import run

Source = Annotated[
    str,
    typer.Argument(
        metavar="FROM", help="Name of the session.", show_default=False, autocompletion=complete_fingerprints
    ),
]
Target = Annotated[str, typer.Argument(metavar="TO", help="Name of the copy.", show_default=False)]


def copy(
    source: Source,
    target: Target,
    force: Force = False,
    url: Url = None,
    key_prefix: KeyPrefix = None,
    as_json: AsJson = False,
) -> None:
    """Store a session under a second name. From then on both go their own ways: changes of one do not reach the other."""
    run(partial(_copy, Place(url, key_prefix), source, target, force), as_json=as_json)


async def _copy(place: Place, source: str, target: str, force: bool, output: Output) -> ExitCode:
    async with connected(place) as manager:
        stored = await read_stored(await runtime_of(manager), source, used_by="copy")
        if stored is None:
            output.error("NotThere", f"there is no session {source!r}", ExitCode.WRONG)
            return ExitCode.WRONG
        document = stored.document
        session = BrowserSession(target, storage_state=document["storage_state"], data=document["data"])
        return await store_new(manager, session, output, replace=force, details={"copied_from": source})
