"""browser-use 0.13: sessions and agents that start logged in.

    async with reusable_session("shop.example/alice") as session:
        async with open_browser_session(session, headless=True) as browser_session:
            await Agent(task, llm=llm, browser_session=browser_session).run()

browser-use's own `storage_state` stays None, so that its own persistence neither loads nor writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from session_reuse._browser import limits
from session_reuse._browser.checkpoints import save_checkpoint
from session_reuse._browser.devtools_browser import DevToolsBrowser
from session_reuse._browser.drivers.connection import CdpError
from session_reuse._browser.drivers.thread import open_websocket
from session_reuse._browser.options import EngineOptions, Settings
from session_reuse._misuse import asynccontextmanager
from session_reuse._problem import ProblemKind
from session_reuse.errors import ConfigurationError, MissingExtraError

try:
    from browser_use import BrowserSession as AgentBrowser

    from session_reuse.browsers._browser_use_bus import BusListener
except ImportError:
    raise MissingExtraError("browser-use", "session_reuse.browsers.browser_use") from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from session_reuse._browser_session import BrowserSession
    from session_reuse._state.storage_state import StorageState

__all__ = ["attach_browser_session", "open_browser_session"]


_logger = logging.getLogger("session_reuse.browsers")
_background: set[asyncio.Task[Any]] = set()
"""Tasks that outlive a cancelled exit: the loop itself keeps no strong reference to them."""


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
    session.require_open()
    if options.get("storage_state") is not None:
        raise ConfigurationError("storage_state comes from the session: assign session.storage_state instead")
    names = EngineOptions.__annotations__.keys() & options.keys()
    ours: Any = {name: options.pop(name) for name in names}
    browser_session = AgentBrowser(**options)
    async with attach_browser_session(session, browser_session, **ours):
        try:
            yield browser_session
        finally:
            if browser_session.cdp_url is not None:
                await _finished(_killed(browser_session))


@asynccontextmanager
async def attach_browser_session(
    session: BrowserSession, browser_session: AgentBrowser, **options: Unpack[EngineOptions]
) -> AsyncIterator[AgentBrowser]:
    """Restore the session's state into a browser-use session, started or not. At the end it is captured and left open.

    Args:
        session: whose state is restored, and which gets what was captured.
        browser_session: of browser-use, without a `storage_state` of its own.
        options: those of `session_reuse.browsers.playwright.open_context` that are for all clients.
    """
    if browser_session.browser_profile.storage_state is not None:
        raise ConfigurationError("storage_state comes from the session: leave the browser-use session's own at None")
    attachment = _Attachment(session, browser_session, Settings(**options))
    try:
        await attachment.start()
        yield browser_session
    finally:
        attachment.keep_last_seen()
        await _finished(attachment.finish())


class _Attachment:
    """What is bound between one session and one browser-use session, over any number of its starts and ends."""

    def __init__(self, session: BrowserSession, browser_session: AgentBrowser, settings: Settings) -> None:
        self._session = session
        self._browser_session = browser_session
        self._settings = settings
        self._browser: DevToolsBrowser | None = None
        self._cdp_url: str | None = None
        self._connecting = asyncio.Lock()
        self._is_own = False
        self._changed = asyncio.Event()
        self._checkpoints: asyncio.Task[None] | None = None
        self._listener = BusListener(
            browser_session,
            on_listen=self._look_at_profile,
            on_connected=self._connect,
            on_save=self._save,
            on_stop=self._put_away,
        )
        self._unbind = session.bind_capture(self._capture)

    async def start(self) -> None:
        """Listen, and restore at once when the browser is there already."""
        await self._listener.listen()
        if self._settings.checkpoint_after is not None:
            self._checkpoints = asyncio.create_task(self._checkpoint_regularly(self._settings.checkpoint_after))

    def _look_at_profile(self) -> None:
        self._is_own = _has_empty_profile(self._browser_session)

    async def _save(self) -> None:
        await self._take(is_final=True)  # as far as anybody knows: a stop begins with this
        if self._settings.checkpoint_after is not None:
            await self._checkpoint()

    async def _connect(self, cdp_url: str) -> None:
        """Restore into the browser that has just been connected, and follow it.

        `start()` of browser-use waits for this, so no page is loaded before. A browser that we had before and lost touch
        with is followed only: what it holds is newer than what we know.
        """
        async with self._connecting:
            is_known = cdp_url == self._cdp_url
            if self._browser is not None and is_known and not self._browser.is_gone:
                return
            self.keep_last_seen()
            try:
                async with asyncio.timeout(limits.START):
                    browser = await self._opened(cdp_url, self._browser.visited if self._browser and is_known else None)
            except Exception as error:  # noqa: BLE001  (whatever it is, the agent starts, and the session says so)
                reason = str(error) if isinstance(error, CdpError) else type(error).__name__
                self._session.report(ProblemKind.RESTORE_FAILED, "browser-use", f"no connection of our own: {reason}")
                _logger.warning("no connection of our own to browser-use's browser: %s", reason)
                return
            await self._put_away()
            self._browser, self._cdp_url = browser, cdp_url

    async def _opened(self, cdp_url: str, known: frozenset[str] | None) -> DevToolsBrowser:
        transport = await open_websocket(cdp_url, self._browser_session.browser_profile.headers)
        browser = DevToolsBrowser(
            transport,
            self._session,
            self._settings,
            known=known,
            is_own=self._is_own,
            of_target=self._browser_session.agent_focus_target_id,
            on_change=self._changed.set,
        )
        try:
            await browser.start()
            _require_tab(browser, self._browser_session.agent_focus_target_id)
        except BaseException:
            await browser.close()
            raise
        return browser

    async def _put_away(self) -> None:
        """Release the browser that we have, if any. What was seen of it stays with the session."""
        self.keep_last_seen()
        browser, self._browser, self._cdp_url = self._browser, None, None
        if browser is not None:
            await browser.close()

    async def _capture(self, *, is_final: bool = False) -> StorageState:
        if self._browser is not None and self._browser.is_gone and self._browser_session.is_cdp_connected:
            await self._connect(str(self._browser_session.cdp_url))
        if self._browser is None:
            return self._session.storage_state
        return await self._browser.capture(is_final=is_final)

    async def _checkpoint_regularly(self, seconds: float) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(seconds)
            self._changed.clear()
            await self._checkpoint()

    async def _checkpoint(self) -> None:
        await save_checkpoint(self._session, self._take)

    async def _take(self, *, is_final: bool = False) -> None:
        try:
            self._session.storage_state = await self._capture(is_final=is_final)
        except Exception as error:  # noqa: BLE001  (the stored state stays as it is)
            self._session.capture_failed(f"browser-use: {error}")

    def keep_last_seen(self) -> None:
        """Assign the state that was last seen to the session, without a call of the browser."""
        state = self._browser.last_seen() if self._browser is not None else None
        if state is not None:
            self._session.storage_state = state

    async def finish(self) -> None:
        """Capture for the last time. The browser-use session goes on without us."""
        self._listener.close()
        if self._checkpoints is not None:
            self._checkpoints.cancel()
        if self._browser is not None:
            await self._take(is_final=True)
        self._unbind()
        await self._put_away()


def _require_tab(browser: DevToolsBrowser, tab: str | None) -> None:
    if tab is not None and not browser.has_tab(tab):
        raise CdpError("its endpoint gives each connection a browser of its own")


def _has_empty_profile(browser_session: AgentBrowser) -> bool:
    """Return whether the browser to come starts without any storage of its own."""
    folder = browser_session.browser_profile.user_data_dir
    if not browser_session.is_local or folder is None:
        return False
    return not Path(folder).exists() or not any(Path(folder).iterdir())


async def _killed(browser_session: AgentBrowser) -> None:
    with contextlib.suppress(Exception):  # it was gone before
        await browser_session.kill()


async def _finished(work: Any) -> None:
    """Wait for work that goes on in the background when we are cancelled."""
    task = asyncio.create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
    await asyncio.shield(task)
