"""Saves while the agent works."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from session_reuse._problem import ProblemKind
from session_reuse.errors import AdapterError, LifecycleError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from session_reuse._browser_session import BrowserSession


async def save_checkpoint(session: BrowserSession, keep: Callable[[], Awaitable[object]]) -> None:
    """Save an asynchronous session. One without a store keeps its state in memory."""
    try:
        await session.checkpoint()
    except LifecycleError:
        try:
            await keep()
        except AdapterError as error:  # nothing was read yet: the next look may read it
            session.report(ProblemKind.CHECKPOINT_FAILED, "the browser", str(error))
    except Exception as error:  # noqa: BLE001 - the save at exit makes up for it
        session.report(ProblemKind.CHECKPOINT_FAILED, "the store", type(error).__name__)


def save_checkpoint_blocking(session: BrowserSession, keep: Callable[[], object]) -> None:
    """Save a session, and wait for it. An asynchronous one, or one without a store, keeps its state in memory."""
    try:
        saving: Any = session.checkpoint()
    except LifecycleError:
        saving = None
    except Exception as error:  # noqa: BLE001 - the save at exit makes up for it
        session.report(ProblemKind.CHECKPOINT_FAILED, "the store", type(error).__name__)
        return
    if inspect.iscoroutine(saving):
        saving.close()  # nobody here can wait for it
    if not isinstance(saving, str):
        try:
            keep()
        except AdapterError as error:
            session.report(ProblemKind.CHECKPOINT_FAILED, "the browser", str(error))
