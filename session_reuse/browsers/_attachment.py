"""`Attachment`: one session bound to the browser behind a DevTools address, over any number of connections."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from typing import TYPE_CHECKING, Final

from session_reuse._browser import limits
from session_reuse._browser.checkpoints import save_checkpoint
from session_reuse._browser.drivers.connection import CdpError
from session_reuse._browser.drivers.devtools import DevToolsDriver
from session_reuse._browser.engine import BrowserEngine
from session_reuse._browser.flow import run_async
from session_reuse._problem import ProblemKind
from session_reuse._state.storage_state import is_empty
from session_reuse.errors import AdapterError, LifecycleError, SessionReuseError

if TYPE_CHECKING:
    from session_reuse._browser.options import Settings
    from session_reuse._browser_session import BrowserSession
    from session_reuse._state.storage_state import StorageState
    from session_reuse.browsers._chromium_process import ChromiumProcess
    from session_reuse.browsers._devtools_address import Address

_DEBOUNCE: Final = 0.25
"""Seconds between something that happens in the browser and our look at it."""
_IDLE_INTERVAL: Final = 1.0
"""Seconds between looks when nothing is seen to happen: scripts set cookies without an event."""
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0
_CHECKPOINT_LIMIT: Final = 5.0

_logger = logging.getLogger("session_reuse.browsers")


class Attachment:
    """Restores a session into a browser, follows it, saves what changes, and connects again when a connection drops.

    Args:
        session: whose state is restored, and which gets what was captured.
        settings: of the user.
        endpoint: where the browser is, or one that was started here.
        of_target: a tab whose context is used. If not given, the browser's default context is used.
        in_thread: whether this runs on an event loop in a separate thread, where no asynchronous session can be saved.

    Attributes:
        websocket: URL of the connection.
        driver: of the browser, once it is restored.
    """

    def __init__(
        self,
        session: BrowserSession,
        settings: Settings,
        endpoint: Address | ChromiumProcess,
        *,
        of_target: str | None = None,
        in_thread: bool = False,
    ) -> None:
        self._session = session
        self._settings = settings
        self._endpoint = endpoint
        self._of_target = of_target
        self._in_thread = in_thread
        self.websocket = ""
        self.driver: DevToolsDriver | None = None
        self._connecting = asyncio.Lock()
        self._capturing = asyncio.Lock()
        self._ending = asyncio.Event()
        self._is_refused = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Restore, and follow the browser.

        Raises:
            CdpError: the browser did not answer.
            AdapterError: there is no connection, or it cannot be used.
            TimeoutError: it took too long.
            LifecycleError: the session of another login is in the browser.
        """
        try:
            await self._connect()
        except LifecycleError:
            self._is_refused = True  # also when the other has left: what it has stored is still there
            raise
        self._tasks = [asyncio.create_task(self._stay_connected())]
        if self._settings.checkpoint_after is not None:
            self._tasks.append(asyncio.create_task(self._checkpoint_regularly(self._settings.checkpoint_after)))

    def report_failure(self, where: str, error: Exception) -> None:
        """Report that there is no connection, and that the agent works without."""
        reason = str(error) if isinstance(error, SessionReuseError) else type(error).__name__
        self._session.report(ProblemKind.RESTORE_FAILED, where, f"no connection of our own: {reason}")
        _logger.warning("no connection of our own to %s: %s", where, reason)

    async def _connect(self) -> None:
        """Open a connection. A browser that we lost touch with is followed only: it is newer than what we know."""
        self.keep_last_seen()
        async with asyncio.timeout(limits.START):
            websocket, transport = await self._endpoint.connect()
            before = driver = self.driver
            if driver is not None and websocket != self.websocket:
                driver = None
            elif driver is not None and not await driver.reconnect(transport):
                driver = None  # a fixed address, and a browser behind it that was not there before
                websocket, transport = await self._endpoint.connect()
            if driver is None:
                is_own = self._endpoint.is_own
                driver = DevToolsDriver(transport, self._session, of_target=self._of_target, is_own=is_own)
                driver.engine = BrowserEngine(self._session, driver, self._settings, is_new_profile=is_own)
            try:
                self._endpoint.accept(str((await driver.connection.send("Browser.getVersion")).get("product")))
                await driver.find_context()
                await run_async(driver.engine.start())
            except BaseException:
                await driver.close()
                raise
        self.driver, self.websocket = driver, websocket
        if before is not None and before is not driver:
            await before.close()

    def has_tab(self, target: str) -> bool:
        """Return whether a tab is one of those that are followed."""
        return self.driver is not None and any(tab.key == target for tab in self.driver.engine.follower.tabs)

    async def reconnect(self) -> None:
        """Connect again if the connection has ended."""
        async with self._connecting:
            is_connected = self.driver is not None and not self.driver.is_gone
            # The agent works in a browser that was not restored. Cookies of before would replace those of its new login.
            is_too_late = self.driver is None and not is_empty(self._session.storage_state)
            if is_connected or is_too_late or self._is_refused or not self._endpoint.is_alive:
                return
            try:
                await self._connect()
            except Exception as error:  # noqa: BLE001  (each transport has its own; all mean: not yet)
                _logger.debug("no new connection to the browser: %s", type(error).__name__)

    async def _stay_connected(self) -> None:
        delay = 0.0
        while True:  # until the release: a client that has lost its browser for a moment finds it again
            began = time.monotonic()
            if self.driver is not None:
                await self._watch(self.driver)
            if time.monotonic() - began > _LONGEST_DELAY:  # not one of those that drop again and again
                delay = 0.0
            await asyncio.sleep(delay)
            delay = min(max(2 * delay, _FIRST_DELAY), _LONGEST_DELAY)
            await self.reconnect()

    async def _watch(self, driver: DevToolsDriver) -> None:
        """Poll the browser after each event and once a second, until its connection ends."""
        while not driver.is_gone:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_INTERVAL):
                    await driver.stirred.wait()
            if not driver.is_gone:
                await asyncio.sleep(_DEBOUNCE)
            driver.stirred.clear()
            try:
                async with self._capturing:
                    is_answering = await run_async(driver.engine.refresh())
                if not is_answering:  # a suspended host, or a gateway that has gone, ends no connection
                    await driver.close_if_silent()
            except Exception as error:  # noqa: BLE001  (following a browser must never disturb the agent)
                driver.report_not_followed(error)

    async def _checkpoint_regularly(self, seconds: float) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(seconds, _DEBOUNCE)):
                    await self._ending.wait()
            is_dirty = self.driver is not None and self.driver.engine.is_dirty
            if is_dirty and not self._ending.is_set():
                await self.checkpoint()

    async def checkpoint(self) -> None:
        """Save what was captured. Where no save is possible, it is kept in memory."""
        if self._in_thread and inspect.iscoroutinefunction(self._session.checkpoint):
            await self.take()
        else:
            await save_checkpoint(self._session, self.take)

    async def capture(self, *, is_final: bool = False) -> StorageState:
        """Return the current state, or the last one seen when the browser has ended.

        Raises:
            AdapterError: nothing was ever read, or no tab was ever followed.
        """
        await self.reconnect()
        driver = self.driver
        if driver is None:
            raise CdpError("the browser could not be followed")
        state = None
        try:
            async with asyncio.timeout(limits.CAPTURE), self._capturing:
                state = await run_async(driver.engine.captured(is_final=is_final))
        except TimeoutError:
            where, reason = "the browser", f"it did not answer in {limits.CAPTURE:g} s"
            self._session.report(ProblemKind.CAPTURE_LIMITED, where, reason)
        except AdapterError:
            pass  # it is gone
        if driver.engine.mirror.has_read and not driver.engine.follower.has_followed:
            raise CdpError("no tab of the browser could be followed")
        state = state or driver.engine.keep_last_seen()
        if state is None:
            raise CdpError("the browser was gone before anything could be read from it")
        return state

    async def take(self, *, is_final: bool = False) -> None:
        """Assign the current state to the session."""
        try:
            await self.capture(is_final=is_final)
        except Exception as error:  # noqa: BLE001  (the stored state stays as it is)
            self._session.capture_failed(str(error) or type(error).__name__)

    def keep_last_seen(self) -> None:
        """Assign the state that was last seen to the session, without a call of the browser."""
        if self.driver is not None:
            self.driver.engine.keep_last_seen()

    async def rearm_session_storage(self) -> None:
        """Restore sessionStorage in the next tab once more, because a check has used it up."""
        if self.driver is None:
            return
        try:
            async with self._capturing:
                await run_async(self.driver.engine.rearm_session_storage())
        except (CdpError, TimeoutError) as error:
            self._session.report(ProblemKind.RESTORE_FAILED, "sessionStorage", f"it was not restored again: {error}")

    async def finish(self) -> None:
        """Capture a last time."""
        self._ending.set()
        for watcher in self._tasks[:1]:
            watcher.cancel()  # of a page that hangs, it takes longer to read than the last capture may
        if len(self._tasks) > 1:  # a checkpoint under way comes to its end: in a thread, it cannot be cancelled
            await asyncio.wait(self._tasks[1:], timeout=_CHECKPOINT_LIMIT)
        await self.take(is_final=True)

    async def release(self) -> None:
        """Release the browser, which goes on without us."""
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:  # also when this is cancelled
            if self.driver is not None:
                await self.driver.close()
