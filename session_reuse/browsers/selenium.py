"""Selenium 4 drivers for Chromium and Edge: restored, followed, captured.

    with session_reuse.blocking.reusable_session("shop.example/alice") as session:
        with open_driver(session) as driver:
            ...

WebDriver sees the cookies of the current site and the storage of the current tab only. So the browser is restored and
followed over its own DevTools endpoint, from a background thread, whatever the driver is doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Unpack

from session_reuse._browser import limits
from session_reuse._browser.checkpoints import save_checkpoint_blocking
from session_reuse._browser.devtools_browser import DevToolsBrowser
from session_reuse._browser.drivers.call_hooks import before
from session_reuse._browser.drivers.connection import CdpError
from session_reuse._browser.drivers.thread import LoopThread, open_websocket, websocket_url
from session_reuse._browser.options import EngineOptions, Settings
from session_reuse._problem import ProblemKind
from session_reuse.errors import AdapterError, MissingExtraError

try:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options

    from session_reuse.browsers._selenium_options import chromedriver, default_options, starts_empty
except ImportError:
    raise MissingExtraError("selenium", "session_reuse.browsers.selenium") from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver.remote.webdriver import WebDriver

    from session_reuse._browser_session import BrowserSession
    from session_reuse._state.storage_state import StorageState

__all__ = ["attach_driver", "open_driver"]


_logger = logging.getLogger("session_reuse.browsers")


@contextmanager
def open_driver(
    session: BrowserSession,
    driver: Options | Callable[[], WebDriver] | None = None,
    **options: Unpack[EngineOptions],
) -> Iterator[WebDriver]:
    """Open a driver with the session's state. At the end it is captured and quit.

    Args:
        session: whose state is restored, and which gets what was captured.
        driver: options for `selenium.webdriver.Chrome`, or a function that makes a driver. Without, a Chromium is
            looked for, and started headless where there is no display.
        options: those of `session_reuse.browsers.playwright.open_context` that are for all clients. A checkpoint while the
            agent works needs a blocking session.

    Raises:
        AdapterError: there is no Chromium, or the driver is not one of Chromium.
    """
    session.require_open()
    start = default_options() if driver is None else driver
    opened = webdriver.Chrome(start, chromedriver()) if isinstance(start, Options) else start()
    is_own = isinstance(start, Options) and starts_empty(start)
    try:
        with _bound(session, opened, Settings(**options), is_own=is_own):
            yield opened
    finally:
        opened.quit()


@contextmanager
def attach_driver(session: BrowserSession, driver: WebDriver, **options: Unpack[EngineOptions]) -> Iterator[WebDriver]:
    """Restore the session's state into the browser of a driver. At the end it is captured and left open.

    Nothing that the browser holds is removed. An origin that is open in a tab is filled only where its storage is empty.

    Args:
        session: whose state is restored, and which gets what was captured.
        driver: of Chromium or Edge, local or remote. It may quit itself.
        options: those of `session_reuse.browsers.playwright.open_context` that are for all clients. A checkpoint while the
            agent works needs a blocking session.

    Raises:
        AdapterError: the driver is not one of Chromium.
    """
    with _bound(session, driver, Settings(**options), is_own=False):
        yield driver


@contextmanager
def _bound(session: BrowserSession, driver: WebDriver, settings: Settings, *, is_own: bool) -> Iterator[None]:
    endpoint = _endpoint(driver)
    attachment = _Attachment(session, driver, settings)
    attachment.start(endpoint, is_own=is_own)
    try:
        yield
    finally:
        attachment.finish()


class _Attachment:
    """What is bound between one session and one driver."""

    def __init__(self, session: BrowserSession, driver: WebDriver, settings: Settings) -> None:
        self._session = session
        self._driver = driver
        self._settings = settings
        self._thread: LoopThread | None = None
        self._browser: DevToolsBrowser | None = None
        self._saving = threading.Lock()
        self._unbind = session.bind_capture(self._capture)
        self._unwrap = [before(driver, "quit", self.finish), before(driver, "close", self._take_last)]

    def start(self, endpoint: str, *, is_own: bool) -> None:
        """Restore, and follow the browser. When that fails, the agent starts without, and a problem is reported."""
        self._thread = LoopThread()
        try:
            window = self._driver.current_window_handle  # ChromeDriver names windows by the id of their target
            self._browser = self._thread.run(self._opened(endpoint, window, is_own=is_own), limits.START)
        except Exception as error:  # noqa: BLE001  (whatever it is, the agent starts)
            name = type(error).__name__
            self._session.report(ProblemKind.RESTORE_FAILED, "selenium", f"{name} while connecting")
            _logger.warning("no connection of our own to the driver's browser: %s", name)

    async def _opened(self, endpoint: str, window: str, *, is_own: bool) -> DevToolsBrowser:
        changed = asyncio.Event()
        socket = await open_websocket(await asyncio.to_thread(websocket_url, endpoint))
        browser = DevToolsBrowser(
            socket, self._session, self._settings, is_own=is_own, of_target=window, on_change=changed.set
        )
        try:
            await browser.start()
        except BaseException:
            await browser.close()
            raise
        if self._settings.checkpoint_after is not None:
            self._checkpoints = asyncio.create_task(
                self._checkpoint_regularly(changed, self._settings.checkpoint_after)
            )
        return browser

    async def _checkpoint_regularly(self, changed: asyncio.Event, seconds: float) -> None:
        while True:
            await changed.wait()
            await asyncio.sleep(seconds)
            changed.clear()
            await asyncio.to_thread(self._checkpoint)

    def _checkpoint(self) -> None:
        """Save, from a thread that may wait. An asynchronous session is kept in memory."""
        with self._saving:
            if self._thread is not None:
                save_checkpoint_blocking(self._session, self._take)

    def _capture(self, *, is_final: bool = False) -> StorageState:
        if self._thread is None or self._browser is None:
            raise CdpError("the browser could not be followed")
        try:
            return self._thread.run(self._browser.capture(is_final=is_final), limits.START)
        except TimeoutError:
            raise CdpError("the browser did not answer") from None

    def _take_last(self) -> None:
        """Capture as for the last time: a driver that closes its only window ends the browser."""
        self._take(is_final=len(self._driver.window_handles) == 1)

    def _take(self, *, is_final: bool = False) -> None:
        try:
            self._session.storage_state = self._capture(is_final=is_final)
        except Exception as error:  # noqa: BLE001  (the stored state stays as it is)
            self._session.capture_failed(f"selenium: {error}")

    def finish(self) -> None:
        """Capture for the last time, before the driver quits or at the end of the `with`."""
        with self._saving:
            if self._thread is None:
                return
            self._take(is_final=True)
            self._unbind()
            for unwrap in self._unwrap:
                unwrap()
            browser, thread, self._browser, self._thread = self._browser, self._thread, None, None
        with contextlib.suppress(TimeoutError):
            if browser is not None:
                thread.run(browser.close(), limits.OPEN)
        thread.stop()


def _endpoint(driver: WebDriver) -> str:
    """Return where the browser of a driver has its DevTools: a websocket of a grid, or a host and port."""
    capabilities: dict[str, Any] = driver.capabilities
    grid = capabilities.get("se:cdp")
    local = capabilities.get("goog:chromeOptions") or capabilities.get("ms:edgeOptions") or {}
    endpoint = grid or local.get("debuggerAddress")
    if not isinstance(endpoint, str):
        raise AdapterError(f"{capabilities.get('browserName')} has no DevTools: use a driver of Chromium or Edge")
    return endpoint
