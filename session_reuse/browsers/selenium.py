"""Selenium 4 drivers for Chromium and Edge: restored, followed, captured.

    with session_reuse.blocking.reusable_session("shop.example/alice") as session:
        with open_driver(session) as driver:
            ...

WebDriver sees the cookies of the current site and the storage of the current tab only. So the browser is restored and
followed over its own DevTools endpoint, from a background thread, while the driver works.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any, Final, Unpack

from session_reuse._browser import limits
from session_reuse._browser.drivers.call_hooks import before, run_all
from session_reuse._browser.drivers.connection import CdpError
from session_reuse._browser.drivers.thread import LoopThread
from session_reuse._browser.options import EngineOptions, Settings
from session_reuse._browser_session import require_open
from session_reuse.browsers._attachment import Attachment
from session_reuse.browsers._chromium_process import has_display
from session_reuse.browsers._devtools_address import Address
from session_reuse.browsers.chromium import find_chromium, launch_arguments
from session_reuse.errors import AdapterError, LifecycleError, MissingExtraError

try:
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from urllib3.exceptions import HTTPError
except ImportError:
    raise MissingExtraError("selenium", "session_reuse.browsers.selenium") from None

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from selenium.webdriver.remote.webdriver import WebDriver

    from session_reuse._browser_session import BrowserSession
    from session_reuse._state.storage_state import StorageState

__all__ = ["attach_driver", "default_options", "open_driver"]

_OWN_DATA: Final = ("--user-data-dir", "user-data-dir")


@contextlib.contextmanager
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
    require_open(session)
    start = default_options() if driver is None else driver
    opened = webdriver.Chrome(start, chromedriver()) if isinstance(start, Options) else start()
    is_own = isinstance(start, Options) and _starts_empty(start)
    try:
        with _bound(session, opened, Settings.build(options), is_own=is_own):
            yield opened
    finally:
        with contextlib.suppress(WebDriverException, HTTPError, OSError):  # it was gone before
            opened.quit()


@contextlib.contextmanager
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
        LifecycleError: the session of another login is in the browser, and they share a part.
    """
    require_open(session)
    with _bound(session, driver, Settings.build(options), is_own=False):
        yield driver


def default_options() -> Options:
    """Return options for a Chromium that is found on this machine. Headless where there is no display.

    Raises:
        AdapterError: there is none. The message says how to get one.
    """
    options = Options()
    options.binary_location = find_chromium()
    for argument in launch_arguments():
        options.add_argument(argument)
    if not has_display():
        options.add_argument("--headless=new")
    return options


def chromedriver() -> Service | None:
    """Return a service for the chromedriver on PATH. Without one, Selenium's own manager looks for it."""
    path = shutil.which("chromedriver")
    return Service(executable_path=path) if path else None


def _starts_empty(options: Options) -> bool:
    """Return whether the browser to come starts without any storage."""
    attaches = options.debugger_address or options.experimental_options.get("debuggerAddress")
    return not (attaches or any(argument.startswith(_OWN_DATA) for argument in options.arguments))


@contextlib.contextmanager
def _bound(session: BrowserSession, driver: WebDriver, settings: Settings, *, is_own: bool) -> Iterator[None]:
    binding = _Binding(session, driver, settings, is_own=is_own)
    try:
        binding.start()
        yield
    finally:
        binding.finish()


class _Binding:
    """One session bound to one driver. It works in a separate thread, while the driver does anything."""

    def __init__(self, session: BrowserSession, driver: WebDriver, settings: Settings, *, is_own: bool) -> None:
        self._session = session
        self._driver = driver
        address = _address(driver, is_own=is_own)
        self._attachment = Attachment(session, settings, address, of_target=_window(driver), in_thread=True)
        self._thread = LoopThread()
        self._undo = [
            session.bind_capture(self._capture),
            before(driver, "quit", self.finish),
            before(driver, "close", self._take_last),
        ]

    def start(self) -> None:
        """Restore, and follow the browser. When that fails, the agent starts without, and a problem is reported.

        Raises:
            LifecycleError: the session of another login is in the browser.
        """
        try:
            # After a time-out of its own, it closes what it has opened.
            self._thread.run(self._attachment.start(), limits.START + limits.OPEN)
        except LifecycleError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is, the agent starts)
            self._attachment.report_failure("selenium", error)

    def _capture(self) -> StorageState:
        return self._thread.run(self._attachment.capture(), limits.START + limits.OPEN)

    def _take_last(self) -> None:
        """Capture as for the last time: a driver that closes its only window ends the browser."""
        self._end(self._attachment.take(is_final=len(self._driver.window_handles) == 1))

    def _end(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            self._thread.run(work, limits.START + limits.OPEN)
        except CdpError as error:
            self._session.capture_failed(f"selenium: {error}")

    def finish(self) -> None:
        """Capture for the last time, before the driver quits or at the end of the `with`."""
        if self._thread.is_stopped:
            return
        self._attachment.keep_last_seen()
        try:
            self._end(self._attachment.finish())
        finally:  # also when Ctrl-C ends the capture
            run_all(self._undo)
            try:
                self._end(self._attachment.release())
            finally:
                self._thread.stop()


def _window(driver: WebDriver) -> str | None:
    """Return the current window, or None of a driver that is dead. ChromeDriver names windows by the id of their target."""
    try:
        return driver.current_window_handle
    except Exception:  # noqa: BLE001  (of Selenium or urllib3: a dead driver is reported when it is connected to)
        return None


def _address(driver: WebDriver, *, is_own: bool) -> Address:
    """Return where the browser of a driver has its DevTools: a websocket of a grid, or a host and port."""
    capabilities: dict[str, Any] = driver.capabilities
    grid = capabilities.get("se:cdp")
    local = capabilities.get("goog:chromeOptions") or capabilities.get("ms:edgeOptions") or {}
    endpoint = grid or local.get("debuggerAddress")
    if not isinstance(endpoint, str):
        raise AdapterError(f"{capabilities.get('browserName')} has no DevTools: use a driver of Chromium or Edge")
    return Address.of(endpoint, is_own=is_own)
