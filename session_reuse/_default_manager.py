"""The manager that is used when none is given: one for each event loop, closed with it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from typing import Final, NamedTuple
from weakref import WeakSet

from session_reuse._manager import SessionManager
from session_reuse._session.replica import Replicas
from session_reuse.config import Config

_ATTRIBUTE: Final = "_session_reuse_default"
"""Where a loop keeps its manager. The manager refers to the loop, so a table of loops would keep both until the process ends."""


class _Default(NamedTuple):
    manager: SessionManager
    end: AsyncIterator[None]
    """Referenced here, since an asynchronous generator without a reference is closed at once."""


_defaults: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
"""The loops that have a default manager."""
_left: list[tuple[Config, Replicas]] = []
"""What the default manager knew whose loop has ended last, with its settings."""
_lock = threading.Lock()


async def default_manager() -> SessionManager:
    """Return this event loop's own manager, made from the environment. It is closed when the loop ends."""
    loop = asyncio.get_running_loop()
    default: _Default | None = getattr(loop, _ATTRIBUTE, None)
    if default is None or default.manager.closed:
        close_orphans()
        default = _Default(manager := SessionManager(), _until_loop_ends(manager))
        with _lock:
            if _left and _left[0][0] == manager.config:
                _, manager._known = _left.pop()  # noqa: SLF001
        setattr(loop, _ATTRIBUTE, default)
        with _lock:
            _defaults.add(loop)
        await anext(default.end)
    return default.manager


def close_orphans() -> None:
    """Close the managers of loops that were closed without `shutdown_asyncgens`."""
    with _lock:
        closed = [loop for loop in _defaults if loop.is_closed()]
        _defaults.difference_update(closed)
    for loop in closed:
        default: _Default = getattr(loop, _ATTRIBUTE)
        delattr(loop, _ATTRIBUTE)
        default.manager._abandon()  # noqa: SLF001
        _leave_known(default.manager)


async def _until_loop_ends(manager: SessionManager) -> AsyncIterator[None]:
    """Close the manager with its loop: `asyncio.run` closes the asynchronous generators that are left."""
    try:
        yield
    finally:
        await manager.aclose()
        _leave_known(manager)


def _leave_known(manager: SessionManager) -> None:
    """Keep what a manager knows: a worker that calls `asyncio.run` for each job starts from it while the store is away."""
    known = manager._leave_known()  # noqa: SLF001
    if known is not None:
        with _lock:
            _left[:] = [(manager.config, known)]


def _start_anew_in_child() -> None:
    _defaults.clear()
    _lock.release()


if hasattr(os, "register_at_fork"):  # so that no child gets the lock in the hands of a thread that it does not have
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_start_anew_in_child)
