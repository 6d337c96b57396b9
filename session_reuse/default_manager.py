"""The manager that is used when none is given: one for each event loop. Must never outlive its loop, nor be made at import."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from weakref import WeakKeyDictionary

from session_reuse.manager import SessionManager

_defaults: WeakKeyDictionary[asyncio.AbstractEventLoop, SessionManager] = WeakKeyDictionary()
_endings: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncIterator[None]] = WeakKeyDictionary()
"""Kept, since an asynchronous generator that nobody holds is closed at once."""
_guard = threading.Lock()


async def default_manager() -> SessionManager:
    """Return this event loop's own manager, made from the environment; it is closed when the loop ends."""
    loop = asyncio.get_running_loop()
    with _guard:
        manager = _defaults.get(loop)
        if manager is None or manager.closed:
            manager = _defaults[loop] = SessionManager()
            fresh = True
        else:
            fresh = False
    if fresh:
        ending = _endings[loop] = _until_loop_ends(loop, manager)
        await anext(ending)
    return manager


async def _until_loop_ends(loop: asyncio.AbstractEventLoop, manager: SessionManager) -> AsyncIterator[None]:
    """Close the manager with its loop: `asyncio.run` closes the asynchronous generators that are left."""
    try:
        yield
    finally:
        await manager.aclose()
        _defaults.pop(loop, None)
        _endings.pop(loop, None)
