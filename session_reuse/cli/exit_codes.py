"""The exit codes of every command: one closed set, with the same meaning in every command."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from session_reuse.errors import CorruptStateError, SessionBusyError, SessionReuseError, StoreError


class ExitCode(IntEnum):
    """The result of a command for the shell."""

    OK = 0
    WRONG = 1
    USAGE = 2
    STORE = 3
    UNREADABLE = 4
    INTERRUPTED = 130


MEANINGS: Final = {
    ExitCode.OK: "done",
    ExitCode.WRONG: "something is wrong or not there",
    ExitCode.USAGE: "wrong arguments, settings or files",
    ExitCode.STORE: "the store is down or rejects the credentials",
    ExitCode.UNREADABLE: "a value or file cannot be read",
    ExitCode.INTERRUPTED: "interrupted",
}
EPILOG: Final = "Exit codes: " + ", ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items()) + "."
_CODES: Final[tuple[tuple[type[Exception], ExitCode], ...]] = (
    (StoreError, ExitCode.STORE),
    (CorruptStateError, ExitCode.UNREADABLE),
    (SessionBusyError, ExitCode.WRONG),
    (SessionReuseError, ExitCode.USAGE),
    (OSError, ExitCode.USAGE),
)
"""The first match counts. An OSError is one of a file: those of the network are a StoreError."""


def code_of(error: SessionReuseError | OSError) -> ExitCode:
    """Return the exit code of a command that an error has ended."""
    return next(code for kind, code in _CODES if isinstance(error, kind))
