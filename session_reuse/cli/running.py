"""Runs a command's coroutine and turns what comes out into an exit code. Must never show a traceback for a dead store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn

import typer

from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.output import Output
from session_reuse.errors import CorruptStateError, SessionReuseError, StoreError

Work = Callable[[Output], Coroutine[Any, Any, ExitCode]]

_CODES: Final[tuple[tuple[type[Exception], ExitCode], ...]] = (
    (StoreError, ExitCode.STORE),
    (CorruptStateError, ExitCode.UNREADABLE),
    (SessionReuseError, ExitCode.USAGE),
    (OSError, ExitCode.USAGE),
)
"""First match counts. An OSError is one of a file: the store's own are turned into StoreError by the store."""


def run(work: Work, *, as_json: bool, on_interrupt: ExitCode = ExitCode.INTERRUPTED) -> NoReturn:
    """Run a command to its end and leave with its exit code.

    Args:
        work: the command.
        as_json: whether programs read.
        on_interrupt: exit code for Ctrl-C.
    """
    output = Output(as_json=as_json)
    try:
        code = asyncio.run(work(output))
    except KeyboardInterrupt:
        code = on_interrupt
    except (SessionReuseError, OSError) as error:
        code = exit_code_of(error)
        output.error(type(error).__name__, str(error), code)
    raise typer.Exit(code)


def exit_code_of(error: Exception) -> ExitCode:
    """Return the exit code that an error leads to."""
    return next(code for kind, code in _CODES if isinstance(error, kind))
