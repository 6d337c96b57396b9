"""Saves while the agent works."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from session_reuse._problem import ProblemKind
from session_reuse.errors import LifecycleError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from session_reuse._browser_session import BrowserSession


async def save_checkpoint(session: BrowserSession, keep: Callable[[], Awaitable[None]]) -> None:
    """Save a session over its store.

    Args:
        session: asynchronous.
        keep: gives the session its state, where it has no store.
    """
    try:
        await session.checkpoint()
    except LifecycleError:
        await keep()  # a session without a store: the state stays in memory
    except Exception as error:  # noqa: BLE001 - the save at exit makes up for it
        session.report(ProblemKind.CHECKPOINT_FAILED, "the store", type(error).__name__)


def save_checkpoint_blocking(session: BrowserSession, keep: Callable[[], None]) -> None:
    """Save a session over its store, and wait for it. The state of an asynchronous session is kept in memory.

    Args:
        session: of either kind.
        keep: gives the session its state, where it was not saved.
    """
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
        keep()
