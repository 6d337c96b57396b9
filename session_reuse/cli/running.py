"""Run the coroutine of a command with the options that all commands have, and end with its exit code."""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, NoReturn

import typer

from session_reuse.cli.connection import Place
from session_reuse.cli.exit_codes import ExitCode, code_of
from session_reuse.cli.options import AsJson, KeyPrefix, store_url
from session_reuse.cli.output import CommandFailed, Output, abandon
from session_reuse.errors import SessionReuseError

Work = Callable[..., Coroutine[None, None, ExitCode | None]]
"""A command: gets its output, and returns its exit code, or None for 0."""


def as_command(work: Work, on_interrupt: ExitCode, store_option: str) -> Callable[..., NoReturn]:
    """Return a command for typer: it has the parameters of `work` after the first two, and the options of all commands."""

    def command(*, url: str | None, key_prefix: str | None, as_json: bool, **given: object) -> NoReturn:
        code = ExitCode.INTERRUPTED if given.get("once") else on_interrupt  # one pass that was cut off is not done
        run(lambda output: work(output, Place(url, key_prefix), **given), as_json=as_json, on_interrupt=code)

    common = {
        "url": (Annotated[str | None, store_url(store_option)], None),
        "key_prefix": (KeyPrefix, None),
        "as_json": (AsJson, False),
    }
    kind = inspect.Parameter.KEYWORD_ONLY
    own = [each.replace(kind=kind) for each in inspect.signature(work, eval_str=True).parameters.values()]
    shared = [inspect.Parameter(name, kind, annotation=of, default=default) for name, (of, default) in common.items()]
    command.__signature__ = inspect.Signature([*own[2:], *shared])  # type: ignore[attr-defined]
    command.__annotations__, command.__doc__ = {}, work.__doc__
    return command


def run(work: Work, *, as_json: bool, on_interrupt: ExitCode = ExitCode.INTERRUPTED) -> NoReturn:
    """Run a command and exit with its exit code. Ctrl-C and SIGTERM have one of their own."""
    output = Output(as_json=as_json)
    try:
        with logging_to(logging.NullHandler()):
            code = asyncio.run(_until_interrupted(work, output)) or ExitCode.OK
        sys.stdout.flush()
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = ExitCode.INTERRUPTED if output.is_unread else on_interrupt
        abandon(sys.stdout)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        code = ExitCode.INTERRUPTED
        abandon(sys.stdout)
    except CommandFailed as failure:
        code = ExitCode.WRONG
        output.error(failure.kind, str(failure), code)
    except SessionReuseError as error:
        code = code_of(error)
        output.error(type(error).__name__, str(error), code)
    except OSError as error:
        code = code_of(error)
        output.error(
            type(error).__name__, f"{error.filename}: {error.strerror}" if error.filename else str(error), code
        )
        abandon(sys.stdout)  # a full disk under it would fail once more at the end of Python
    raise typer.Exit(code)


async def _until_interrupted(work: Work, output: Output) -> ExitCode | None:
    """Run a command. Ctrl-C and SIGTERM cancel it, or end it at once if it waits for a pipe or a person."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()

    def interrupt(_number: int, _frame: object) -> None:
        # A write blocks while the reader of a full pipe waits, and so does a read. Only an exception ends it.
        if output.is_interrupted or output.is_blocked:
            raise KeyboardInterrupt
        output.is_interrupted = True
        if task is not None:
            loop.call_soon_threadsafe(task.cancel)

    if task is not None:
        output.on_broken_pipe = task.cancel
    with _handling(interrupt):
        return await work(output)


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
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
def logging_to(handler: logging.Handler | None = None) -> Iterator[None]:
    """Write the log events of the package to a handler during the `with`. Default: warnings, on standard error."""
    handler = handler or logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("session_reuse")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
