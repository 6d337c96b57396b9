"""Runs a command's coroutine and turns what comes out into an exit code. Must never show a traceback for a dead store."""

from __future__ import annotations

import asyncio
import signal
import threading
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
        on_interrupt: exit code for Ctrl-C and SIGTERM.
    """
    output = Output(as_json=as_json)
    try:
        code = asyncio.run(_until_terminated(work(output)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = on_interrupt
    except (SessionReuseError, OSError) as error:
        code = exit_code_of(error)
        output.error(type(error).__name__, str(error), code)
    raise typer.Exit(code)


async def _until_terminated(work: Coroutine[Any, Any, ExitCode]) -> ExitCode:
    """Let SIGTERM end a command in order, as Ctrl-C does."""
    task = asyncio.current_task()
    if task is not None and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


def exit_code_of(error: Exception) -> ExitCode:
    """Return the exit code that an error leads to."""
    return next(code for kind, code in _CODES if isinstance(error, kind))
