"""`session-reuse import`: one session from a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from session_reuse._browser_session import BrowserSession
from session_reuse._manager import SessionManager, runtime_of
from session_reuse._session.composition import Runtime
from session_reuse.cli.connection import Place, connected, execute
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import plural, printable
from session_reuse.cli.options import AsJson, File, KeyPrefix, Url
from session_reuse.cli.output import Output
from session_reuse.cli.running import run
from session_reuse.cli.storage_files import read_file, read_session
from session_reuse.errors import StoreUnavailableError
from session_reuse.outcome import SaveOutcome

Name = Annotated[str | None, typer.Argument(metavar="FINGERPRINT", help="Name to store it under.", show_default=False)]
NameOption = Annotated[
    str | None, typer.Option("--fingerprint", metavar="FINGERPRINT", help="The same as an option.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Replace the stored session of this name.")]


def import_(
    file: File,
    fingerprint: Name = None,
    name: NameOption = None,
    force: Force = False,
    url: Url = None,
    key_prefix: KeyPrefix = None,
    as_json: AsJson = False,
) -> None:
    """Store a session from a file.

    The file is one of `session-reuse export`, a storage_state of Playwright or browser-use, an array of cookies as
    Cookie-Editor and Selenium write them, or a cookies.txt (Netscape) as curl and yt-dlp read it.
    """
    run(partial(_import, Place(url, key_prefix), file, fingerprint or name, force), as_json=as_json)


async def _import(place: Place, file: Path, fingerprint: str | None, force: bool, output: Output) -> ExitCode:
    data = read_file(file)
    async with connected(place) as manager:
        services = await runtime_of(manager)
        session, file_format = read_session(data, fingerprint, services.codec)
        return await store_new(manager, session, output, replace=force, details={"format": file_format.value})


async def store_new(
    manager: SessionManager, session: BrowserSession, output: Output, *, replace: bool, details: dict[str, str]
) -> ExitCode:
    """Store a session that did not come from an agent, and print what became of it.

    Args:
        manager: of the store.
        session: what to store.
        output: of the command.
        replace: whether it may replace a stored session.
        details: further facts to print.

    Raises:
        StoreError: it was not stored.
    """
    name = session.fingerprint
    if not replace and await _is_taken(await runtime_of(manager), name):
        output.error("Exists", f"there is a session {name!r} already: replace it with --force", ExitCode.WRONG)
        return ExitCode.WRONG
    outcome = await manager.save(session)
    # A save that waits in memory ends with this process.
    if outcome is SaveOutcome.PENDING:
        raise StoreUnavailableError("the session was not stored")
    state = session.storage_state
    count = {"cookies": len(state["cookies"]), "origins": len(state["origins"])}
    output.emit({"fingerprint": name, **details, "outcome": outcome.value, **count})
    counts = ", ".join(plural(number, noun.removesuffix("s")) for noun, number in count.items())
    output.show(f"{outcome}: {printable(name)} ({', '.join(details.values())}, {counts})")
    stored = {SaveOutcome.SAVED, SaveOutcome.UNCHANGED, SaveOutcome.MERGED}
    return ExitCode.OK if outcome in stored else ExitCode.WRONG


async def _is_taken(services: Runtime, fingerprint: str) -> bool:
    reply = await execute(services, lambda timeout: services.store.read(fingerprint, timeout=timeout))
    return reply.value is not None
