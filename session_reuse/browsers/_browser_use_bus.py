"""Our handlers on browser-use's event bus, which it replaces at each stop and kill."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from browser_use.browser.events import (
    BrowserConnectedEvent,
    BrowserReconnectedEvent,
    BrowserStopEvent,
    SaveStorageStateEvent,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from browser_use import BrowserSession as AgentBrowser

_INTERVAL: Final = 0.01
_LIMIT: Final = 60.0
"""Seconds that a stop may take until there is a new bus. Browser-use allows itself 45 for its handlers, 5 for the bus."""


class BusListener:
    """Who listens to one browser-use session, over any number of its starts and ends.

    Args:
        browser_session: of browser-use.
        on_listen: called each time before a bus is listened to. The browser is not started yet, or running already.
        on_connected: awaited with the URL of its DevTools when there is a browser. `start()` waits for it.
        on_save: awaited as the first act of stop and kill, and at each request for a save.
        on_stop: awaited when the browser is being given up.
    """

    def __init__(
        self,
        browser_session: AgentBrowser,
        *,
        on_listen: Callable[[], None],
        on_connected: Callable[[str], Awaitable[None]],
        on_save: Callable[[], Awaitable[None]],
        on_stop: Callable[[], Awaitable[None]],
    ) -> None:
        self._browser_session = browser_session
        self._on_listen = on_listen
        self._on_connected = on_connected
        self._on_save = on_save
        self._on_stop = on_stop
        self._bus: Any = None
        self._following: asyncio.Task[None] | None = None
        self._is_closed = False

    async def listen(self) -> None:
        """Put our handlers on the bus in use, and take up a browser that is there already.

        A handler cannot be taken off a bus again: after `close` ours do nothing.
        """
        bus = self._bus = self._browser_session.event_bus
        self._on_listen()

        async def on_session_reuse_connected(event: BrowserConnectedEvent | BrowserReconnectedEvent) -> None:
            if not self._is_closed:
                await self._on_connected(event.cdp_url)

        async def on_session_reuse_save(_: SaveStorageStateEvent) -> None:
            if not self._is_closed:
                await self._on_save()

        async def on_session_reuse_stop(_: BrowserStopEvent) -> None:
            if not self._is_closed:
                self._following = asyncio.create_task(self._follow(bus))
                await self._on_stop()

        bus.on(BrowserConnectedEvent, on_session_reuse_connected)
        bus.on(BrowserReconnectedEvent, on_session_reuse_connected)
        bus.on(SaveStorageStateEvent, on_session_reuse_save)
        bus.on(BrowserStopEvent, on_session_reuse_stop)
        if self._browser_session.is_cdp_connected:
            await self._on_connected(str(self._browser_session.cdp_url))

    async def _follow(self, old: object) -> None:
        """Wait for the new bus, which comes without an event, and listen to it."""
        for _ in range(int(_LIMIT / _INTERVAL)):
            if self._browser_session.event_bus is not old:
                break
            await asyncio.sleep(_INTERVAL)
        if self._bus is old and self._browser_session.event_bus is not old:
            await self.listen()

    def close(self) -> None:
        """Listen no more."""
        self._is_closed = True
        if self._following is not None:
            self._following.cancel()
