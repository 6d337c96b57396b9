"""`session-reuse import`: one session from a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

from session_reuse._browser_session import BrowserSession
from session_reuse._manager import SessionManager, runtime_of
from session_reuse._session.composition import Runtime
from session_reuse._store.keys import checked
from session_reuse.cli.connection import Place, connected, execute
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import plural, printable
from session_reuse.cli.options import Force, argument, option
from session_reuse.cli.output import CommandFailed, Output
from session_reuse.cli.storage_files import STANDARD_STREAM, read_session
from session_reuse.config import ConfigOptions
from session_reuse.errors import ConfigurationError, CorruptStateError, UnreadableStateError
from session_reuse.outcome import SaveOutcome

DIRECT: Final[ConfigOptions] = {"strict": True, "spool_dir": None}
"""Settings of the manager: a save that cannot be written is an error. In memory it would end with this process."""
STORED: Final = frozenset({SaveOutcome.SAVED, SaveOutcome.UNCHANGED, SaveOutcome.MERGED})

File = Annotated[Path, argument("FILE", "The file; - for standard input.")]
Name = Annotated[str | None, argument("FINGERPRINT", "Name to store it under.")]
NameOption = Annotated[str | None, option("--fingerprint", "FINGERPRINT", "The same as an option.")]


async def import_(
    output: Output, place: Place, file: File, fingerprint: Name = None, name: NameOption = None, force: Force = False
) -> ExitCode:
    """Store a session from a file.

    The file is one of `session-reuse export`, a storage_state of Playwright or browser-use, an array of cookies as
    Cookie-Editor and Selenium write them, or a cookies.txt (Netscape) as curl and yt-dlp read it.
    """
    if fingerprint is not None and name is not None:
        raise ConfigurationError("give the FINGERPRINT once: as an argument or by --fingerprint")
    with output.blocking():
        data = sys.stdin.buffer.read() if file == STANDARD_STREAM else file.read_bytes()
    async with connected(place, **DIRECT) as manager:
        codec = (await runtime_of(manager)).codec
        try:
            session, file_format = read_session(data, name if fingerprint is None else fingerprint, codec)
        except CorruptStateError as error:
            raise type(error)(f"{file}: {error}") from None
        return await store_new(manager, session, output, replace=force, details={"format": file_format})


async def store_new(
    manager: SessionManager, session: BrowserSession, output: Output, *, replace: bool, details: dict[str, str]
) -> ExitCode:
    """Store a session that did not come from an agent, and print what became of it, with further details.

    Raises:
        CommandFailed: one of its name is stored, which it may not replace.
        CorruptStateError: one of its name is stored, with a key that is not configured.
        InvalidFingerprintError: its name cannot be stored.
        StoreError: it was not stored.
    """
    name, runtime = checked(session.fingerprint, "fingerprint"), await runtime_of(manager)
    found = await execute(runtime, lambda timeout: runtime.store.read(name, timeout=timeout))
    if found.value is not None and not replace:
        raise CommandFailed("Exists", f"there is a session {name!r} already: replace it with --force")
    if found.value:
        _check_readable(runtime, name, found.value)
    outcome = await manager.save(session)
    state = session.storage_state
    count = {"cookies": len(state["cookies"]), "origins": len(state["origins"])}
    output.emit({"fingerprint": name, **details, "outcome": outcome.value, **count})
    counts = ", ".join(plural(number, noun.removesuffix("s")) for noun, number in count.items())
    output.show(f"{outcome}: {printable(name)} ({', '.join(details.values())}, {counts})")
    return ExitCode.OK if outcome in STORED else ExitCode.WRONG


def _check_readable(runtime: Runtime, name: str, value: bytes) -> None:
    try:
        runtime.codec.decode(value, runtime.keys.session(name))
    except UnreadableStateError as error:  # a damaged value is set aside by the save
        raise UnreadableStateError(
            f"the session {name!r} is left as it is: {error}. Delete it with evict first"
        ) from None
    except CorruptStateError:
        return
