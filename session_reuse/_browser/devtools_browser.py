"""`DevToolsBrowser`: one session in one Chromium over a DevTools connection of our own."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Self

from session_reuse._browser import limits
from session_reuse._browser.drivers.connection import CdpError, Transport
from session_reuse._browser.drivers.devtools import DevToolsDriver
from session_reuse._browser.engine import BrowserEngine
from session_reuse._browser.flow import run_async
from session_reuse._problem import ProblemKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from session_reuse._browser.options import Settings
    from session_reuse._browser_session import BrowserSession
    from session_reuse._state.storage_state import StorageState

DEBOUNCE: Final = 0.25
"""Seconds between something that happens in the browser and our look at it."""
_IDLE_INTERVAL: Final = 1.0
"""Seconds between looks when nothing is seen to happen: scripts set cookies without an event."""


class DevToolsBrowser:
    """The browser behind one transport.

    Args:
        transport: an open websocket to the browser's own endpoint, not to a page's.
        session: its state is restored. What cannot be restored or captured is reported to it.
        settings: of the user.
        before: of a connection to this browser that has ended. What was seen there is followed only, and so are the cookies.
            None for a browser that is restored in full.
        is_own: whether the browser was started for this session.
        of_target: a target whose context is followed. Without, the browser's default context. New tabs wait until
            they have our scripts, unless the browser is shared and this says with which tab.
        on_change: called after each look that found something new.

    Attributes:
        engine: the engine.
    """

    def __init__(
        self,
        transport: Transport,
        session: BrowserSession,
        settings: Settings,
        *,
        before: BrowserEngine | None = None,
        is_own: bool,
        of_target: str | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._session = session
        self._on_change = on_change
        self._stirred = asyncio.Event()
        self._capturing = asyncio.Lock()
        self._driver = DevToolsDriver(
            transport,
            session,
            of_target=of_target,
            is_own=is_own,
            pauses_tabs=is_own or of_target is None,
            on_stir=self._stirred.set,
        )
        self.engine = BrowserEngine(session, self._driver, settings, is_new_profile=is_own, before=before)
        self._driver.engine = self.engine
        self._is_restored = before is None
        self._is_own = is_own
        self._is_closed = False
        self._seen = 0
        self._watching: asyncio.Task[None] | None = None

    @property
    def is_gone(self) -> bool:
        """True when the connection has ended, because of us or because the browser did."""
        return self._driver.is_gone

    async def ended(self) -> None:
        """Wait for the end of the connection."""
        await self._driver.connection.ended.wait()

    async def product(self) -> str:
        """Return name and version of the browser, such as `Chrome/156.0.8078.108`."""
        return str((await self._driver.connection.send("Browser.getVersion")).get("product"))

    def has_tab(self, target: str) -> bool:
        """Return whether a tab is one of this browser's."""
        return any(tab.key == target for tab in self.engine.follower.tabs)

    async def start(self) -> Self:
        """Restore what has to be there before the first page, register the rest, and follow all tabs from now on.

        Raises:
            CdpError: the browser did not answer.
        """
        driver, restorer, follower = self._driver, self.engine.restorer, self.engine.follower
        await driver.find_context()
        if self._is_restored:
            await run_async(restorer.add_cookies())
        if self._is_own:
            await run_async(restorer.fill_early())
            await run_async(restorer.register())
        await run_async(driver.follow(is_new_profile=self._is_own and self._is_restored))
        if not self._is_own:
            # Origins that are open first: they are filled in no other way.
            await run_async(restorer.fill_open(follower.open_frames(), follower.evaluate))
            await run_async(restorer.fill_early())
            await run_async(restorer.register())
        self._watching = asyncio.create_task(self._watch())
        return self

    async def capture(self, *, is_final: bool = False) -> StorageState:
        """Return the current state, or the last one seen when the browser has ended.

        Raises:
            CdpError: nothing was ever read, or no tab was ever followed.
        """
        if not self.is_gone:
            try:
                async with asyncio.timeout(limits.CAPTURE), self._capturing:
                    await run_async(self.engine.captured(is_final=is_final))
            except TimeoutError:
                where, reason = "the browser", f"it did not answer in {limits.CAPTURE:g} s"
                self._session.report(ProblemKind.CAPTURE_LIMITED, where, reason)
            except CdpError:
                pass  # it went away meanwhile
        if self.is_gone and not self._is_closed:
            self.engine.capture.report_gone()
        if self.engine.mirror.has_read and not self.engine.follower.has_followed:
            raise CdpError("no tab of the browser could be followed")
        state = self.engine.last_seen()
        if state is None:
            raise CdpError("the browser was gone before anything could be read from it")
        return state

    async def rearm_session_storage(self) -> None:
        """Restore sessionStorage in the next tab once more: the tab of a check had it."""
        async with self._capturing:
            await run_async(self.engine.capture.refresh())
            again = self.engine.mirror.session_storages()
            await self._driver.settle()  # an update of the scripts under way would remove them a second time
            await run_async(self.engine.restorer.rearm_session_storage(again))

    async def close(self) -> None:
        """Release the browser. The scripts that are still registered go too."""
        self._is_closed = True
        tasks = self._driver.cancel_tasks()
        if self._watching is not None:
            self._watching.cancel()
            tasks.append(self._watching)
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=limits.UNDO)
        finally:
            await self._driver.connection.close()

    async def _watch(self) -> None:
        """Poll the browser after each event and once a second, until its connection ends."""
        while not self.is_gone:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_INTERVAL):
                    await self._stirred.wait()
            await asyncio.sleep(DEBOUNCE)
            self._stirred.clear()
            with contextlib.suppress(CdpError, TimeoutError):
                async with self._capturing:
                    await run_async(self.engine.capture.refresh())
            if self.engine.mirror.version != self._seen:
                self._seen = self.engine.mirror.version
                self._on_change()
