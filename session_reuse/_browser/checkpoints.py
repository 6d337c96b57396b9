"""Saves while the agent works."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from session_reuse._problem import ProblemKind
from session_reuse.errors import AdapterError, LifecycleError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from session_reuse._browser_session import BrowserSession


async def save_checkpoint(session: BrowserSession, keep: Callable[[], Awaitable[object]]) -> None:
    """Save a session. One without a store keeps its state in memory."""
    checkpoint: Any = session.checkpoint
    with _reporting(session):
        try:
            if inspect.iscoroutinefunction(checkpoint):
                await checkpoint()
            else:  # in a thread, because a blocking one is captured over this loop
                await asyncio.to_thread(checkpoint)
        except LifecycleError:
            await keep()


def save_checkpoint_blocking(session: BrowserSession, keep: Callable[[], object]) -> None:
    """Save a session, and wait for it. An asynchronous one, or one without a store, keeps its state in memory."""
    checkpoint: Any = session.checkpoint
    with _reporting(session):
        if not inspect.iscoroutinefunction(checkpoint):
            with suppress(LifecycleError):
                checkpoint()
                return
        keep()


@contextmanager
def _reporting(session: BrowserSession) -> Iterator[None]:
    """Report a checkpoint that fails. The next one, or the save at exit, makes up for it."""
    try:
        yield
    except AdapterError as error:  # nothing was read yet
        session.report(ProblemKind.CHECKPOINT_FAILED, "the browser", str(error))
    except Exception as error:  # noqa: BLE001 - the agent goes on
        session.report(ProblemKind.CHECKPOINT_FAILED, "the store", type(error).__name__)
