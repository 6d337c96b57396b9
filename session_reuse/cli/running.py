"""Run the coroutine of a command, and turn its result or error into an exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
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
"""The first match counts. An OSError is one of a file: those of the network are a StoreError."""


def run(
    work: Work, *, as_json: bool, on_interrupt: ExitCode = ExitCode.INTERRUPTED, logs: bool = False
) -> NoReturn:  # fmt: skip
    """Run a command and exit with its exit code.

    Args:
        work: the command.
        as_json: whether the output is for programs.
        on_interrupt: exit code for Ctrl-C and SIGTERM.
        logs: whether warnings of the package are printed on standard error.
    """
    output = Output(as_json=as_json)
    try:
        with _logging(shown=logs):
            code = asyncio.run(_until_interrupted(work, output))
        sys.stdout.flush()
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = on_interrupt
        _abandon_output()
    except BrokenPipeError:  # the reader of a pipe has seen enough
        code = ExitCode.INTERRUPTED
        _abandon_output()
    except (SessionReuseError, OSError) as error:
        code = exit_code_of(error)
        output.error(type(error).__name__, str(error), code)
        if isinstance(error, OSError):  # a full disk under standard output would fail once more at the end of Python
            _abandon_output()
    raise typer.Exit(code)


async def _until_interrupted(work: Work, output: Output) -> ExitCode:
    """Run a command. Ctrl-C and SIGTERM cancel it, or end it at once if it waits for the reader of its output."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()

    def interrupt(_number: int, _frame: object) -> None:
        # A write blocks while the reader of a full pipe waits. Only an exception ends it.
        if output.is_interrupted or output.is_writing:
            raise KeyboardInterrupt
        output.is_interrupted = True
        if task is not None:
            loop.call_soon_threadsafe(task.cancel)

    if task is not None:
        output.on_broken_pipe = task.cancel
    with _handling(interrupt):
        return await work(output)


@contextmanager
def _handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle SIGINT and SIGTERM during the `with`. A signal that is ignored stays so, as in the background of a shell."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    handled = [number for number in numbers if before[number] is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])


@contextmanager
def _logging(*, shown: bool) -> Iterator[None]:
    handler = logging.StreamHandler() if shown else logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("session_reuse")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _abandon_output() -> None:
    """Drop the unwritten output: at its end, Python would wait for the reader of the pipe."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None and not sys.stdout.isatty():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_code_of(error: Exception) -> ExitCode:
    """Return the exit code of an error."""
    return next(code for kind, code in _CODES if isinstance(error, kind))
