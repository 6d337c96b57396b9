"""browser-use 0.13: sessions and agents that start logged in.

    async with reusable_session("shop.example/alice") as session:
        async with open_browser_session(session, headless=True) as browser_session:
            await Agent(task, llm=llm, browser_session=browser_session).run()

browser-use's own `storage_state` stays None, so that its own persistence neither loads nor writes.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

from session_reuse._browser.drivers.connection import CdpError
from session_reuse._browser.drivers.tasks import finished, is_done
from session_reuse._browser.options import STATE_OF_SESSION, EngineOptions, Settings
from session_reuse._browser_session import require_open
from session_reuse._misuse import asynccontextmanager
from session_reuse._state.storage_state import is_empty
from session_reuse.browsers._attachment import Attachment
from session_reuse.browsers._devtools_address import Address
from session_reuse.errors import ConfigurationError, MissingExtraError

try:
    from browser_use import BrowserSession as AgentBrowser
    from browser_use.browser.events import (
        BrowserConnectedEvent,
        BrowserReconnectedEvent,
        BrowserStopEvent,
        SaveStorageStateEvent,
    )
except ImportError:
    raise MissingExtraError("browser-use", "session_reuse.browsers.browser_use") from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from session_reuse._browser_session import BrowserSession
    from session_reuse._state.storage_state import StorageState

__all__ = ["attach_browser_session", "open_browser_session"]

_BUS_INTERVAL: Final = 0.01
_BUS_LIMIT: Final = 60.0
"""Seconds that a stop may take until there is a new bus. Browser-use allows itself 45 for its handlers, 5 for the bus."""


@asynccontextmanager
async def open_browser_session(session: BrowserSession, **options: Any) -> AsyncIterator[AgentBrowser]:
    """Open a browser-use session with the session's state. At the end it is captured and killed.

    An agent may start and kill it as it likes: it is captured before it goes, and restored when it is started again.

    Args:
        session: whose state is restored, and which gets what was captured.
        options: those of `session_reuse.browsers.playwright.open_context` that are for all clients.

    Raises:
        ConfigurationError: `storage_state` is among the options. The session brings it.
    """
    require_open(session)
    if options.get("storage_state") is not None:
        raise ConfigurationError(STATE_OF_SESSION)
    names = EngineOptions.__annotations__.keys() & options.keys()
    ours: Any = {name: options.pop(name) for name in names}
    browser_session = AgentBrowser(**options)
    async with attach_browser_session(session, browser_session, **ours):
        try:
            yield browser_session
        finally:
            if browser_session.cdp_url is not None:
                await is_done(browser_session.kill(), _BUS_LIMIT)


@asynccontextmanager
async def attach_browser_session(
    session: BrowserSession, browser_session: AgentBrowser, **options: Unpack[EngineOptions]
) -> AsyncIterator[AgentBrowser]:
    """Restore the session's state into a browser-use session, started or not. At the end it is captured and left open.

    Args:
        session: whose state is restored, and which gets what was captured.
        browser_session: of browser-use, without its own `storage_state`.
        options: those of `session_reuse.browsers.playwright.open_context` that are for all clients.
    """
    if browser_session.browser_profile.storage_state is not None:
        raise ConfigurationError("storage_state comes from the session: leave the browser-use session's own at None")
    binding = _Binding(session, browser_session, Settings.build(options))
    try:
        await binding.listen()
        yield browser_session
    finally:
        binding.keep_last_seen()
        await finished(binding.finish())


class _Binding:
    """One session bound to one browser-use session, over any number of its starts and ends."""

    def __init__(self, session: BrowserSession, browser_session: AgentBrowser, settings: Settings) -> None:
        self._session = session
        self._browser_session = browser_session
        self._settings = settings
        self._attachment: Attachment | None = None
        self._cdp_url = self._unrestored_url = ""
        self._connecting = asyncio.Lock()
        self._is_own = False
        self._bus: Any = None
        self._following: asyncio.Task[None] | None = None
        self._is_finished = False
        self._unbind = session.bind_capture(self._capture)

    async def listen(self) -> None:
        """Register our handlers on the event bus in use, and restore at once when the browser is there already.

        A handler cannot be taken off a bus again: after `finish` ours do nothing.
        """
        bus = self._bus = self._browser_session.event_bus
        self._is_own = _has_empty_profile(self._browser_session)

        async def on_session_reuse_connected(event: BrowserConnectedEvent | BrowserReconnectedEvent) -> None:
            await self._connect(event.cdp_url)

        async def on_session_reuse_save(_: SaveStorageStateEvent) -> None:
            if not self._is_finished:
                await self._save()

        async def on_session_reuse_stop(_: BrowserStopEvent) -> None:
            if not self._is_finished:
                self._following = asyncio.create_task(self._follow(bus))
                await self._release()

        bus.on(BrowserConnectedEvent, on_session_reuse_connected)
        bus.on(BrowserReconnectedEvent, on_session_reuse_connected)
        bus.on(SaveStorageStateEvent, on_session_reuse_save)
        bus.on(BrowserStopEvent, on_session_reuse_stop)
        if self._browser_session.is_cdp_connected:
            await self._connect(str(self._browser_session.cdp_url))

    async def _follow(self, old: object) -> None:
        """Wait for the new bus, which takes the place of the old one without an event, and listen to it."""
        for _ in range(int(_BUS_LIMIT / _BUS_INTERVAL)):
            if self._browser_session.event_bus is not old:
                break
            await asyncio.sleep(_BUS_INTERVAL)
        if self._bus is old and self._browser_session.event_bus is not old:
            await self.listen()

    async def _save(self) -> None:
        """Save: a stop begins with this."""
        if self._attachment is not None:
            await self._attachment.take(is_final=True)
            if self._settings.checkpoint_after is not None:
                await self._attachment.checkpoint()

    async def _connect(self, cdp_url: str) -> None:
        """Restore into the browser that has just been connected, and follow it.

        `start()` of browser-use waits for this, so no page is loaded before.
        """
        async with self._connecting:
            if self._is_finished:
                return
            if self._attachment is not None and cdp_url == self._cdp_url:
                await self._attachment.reconnect()
                return
            if cdp_url == self._unrestored_url and not is_empty(self._session.storage_state):
                return  # too late: see `Attachment.reconnect`
            await self._release()
            browser_session = self._browser_session
            address = Address.of(
                cdp_url,
                browser_session.browser_profile.headers,
                is_own=self._is_own,
                may_be_there=lambda: bool(browser_session.is_cdp_connected),
            )
            tab = browser_session.agent_focus_target_id
            attachment = Attachment(self._session, self._settings, address, of_target=tab)
            try:
                await attachment.start()
                _require_tab(attachment, browser_session.agent_focus_target_id)
            except Exception as error:  # noqa: BLE001  (whatever it is, the agent starts, and the session says so)
                await attachment.release()
                attachment.report_failure("browser-use", error)
                self._unrestored_url = cdp_url
                return
            if self._is_finished:  # while this was under way
                await attachment.release()
                return
            self._attachment, self._cdp_url = attachment, cdp_url

    async def _release(self) -> None:
        """Release the browser that we have, if any. What was seen of it stays with the session."""
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            attachment.keep_last_seen()
            await attachment.release()

    async def _capture(self) -> StorageState:
        return self._session.storage_state if self._attachment is None else await self._attachment.capture()

    def keep_last_seen(self) -> None:
        """Assign the state that was last seen to the session, without a call of the browser."""
        if self._attachment is not None:
            self._attachment.keep_last_seen()

    async def finish(self) -> None:
        """Capture for the last time. The browser-use session goes on without us."""
        self._is_finished = True
        if self._following is not None:
            self._following.cancel()
        if self._attachment is not None:
            await self._attachment.finish()
        self._unbind()
        await self._release()


def _require_tab(attachment: Attachment, tab: str | None) -> None:
    if tab is not None and not attachment.has_tab(tab):
        raise CdpError("its endpoint gives each connection a browser of its own")


def _has_empty_profile(browser_session: AgentBrowser) -> bool:
    """Return whether the browser to come starts without any storage."""
    folder = browser_session.browser_profile.user_data_dir
    if not browser_session.is_local or folder is None:
        return False
    return not Path(folder).exists() or not any(Path(folder).iterdir())
