"""The manager that is used when none is given: one for each event loop, closed with it."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Final
from weakref import WeakSet

from session_reuse._manager import SessionManager
from session_reuse._session.replica import Replicas
from session_reuse.config import Config

_ATTRIBUTE: Final = "_session_reuse_default"
"""Where a loop keeps its manager. The manager refers to the loop, so a table of loops would keep both until the process ends."""


_defaults: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
"""The loops that have a default manager."""
_left: list[tuple[Config, Replicas]] = []
"""What the default managers knew whose loops have ended, with their settings."""
_lock = threading.Lock()


class _DefaultManager(SessionManager):
    def __init__(self) -> None:
        super().__init__()
        with _lock:
            if _left and _left[0][0] == self.config:
                self._known = _left[0][1].successor(has_disk=False)

    async def _loop_ends(self) -> None:
        await self.aclose()
        self.keep_known()

    def keep_known(self) -> None:
        """Keep what it knows: a worker that calls `asyncio.run` for each job starts from it while the store is away."""
        known = self._leave_known()
        with _lock:
            if known is not None and _left and _left[0][0] == self.config:
                _left[0][1].join(known)
            elif known is not None:
                _left[:] = [(self.config, known)]


async def default_manager() -> SessionManager:
    """Return this event loop's own manager, made from the environment. It is closed when the loop ends."""
    loop = asyncio.get_running_loop()
    manager: SessionManager | None = getattr(loop, _ATTRIBUTE, None)
    if manager is None or manager.closed:
        with _lock:
            closed = [each for each in _defaults if each.is_closed()]  # without `shutdown_asyncgens`
            _defaults.difference_update(closed)
        for each in closed:
            left: _DefaultManager = getattr(each, _ATTRIBUTE)
            delattr(each, _ATTRIBUTE)
            left._abandon()  # noqa: SLF001  (its own loop has ended, and cannot)
            left.keep_known()
        manager = _DefaultManager()
        setattr(loop, _ATTRIBUTE, manager)
        with _lock:
            _defaults.add(loop)
    return manager


def _start_anew_in_child() -> None:
    _defaults.clear()
    _lock.release()


# So that no child gets the lock in the hands of a thread that it does not have.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_start_anew_in_child)
