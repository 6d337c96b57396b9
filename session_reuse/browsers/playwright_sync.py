"""Playwright's synchronous contexts: restored, followed, captured.

    with blocking.reusable_session("shop.example/alice") as session:
        with open_context(session, browser) as context:
            ...

There is no timer in this world: changes are saved while the agent works when the browser reports something, a request
finished or a page opened, and `checkpoint_after` has passed since the last time.
"""

from __future__ import annotations

import inspect
import threading
import time
from typing import TYPE_CHECKING, Any, Unpack

from session_reuse._browser import limits
from session_reuse._browser.checkpoints import save_checkpoint_blocking
from session_reuse._browser.drivers.call_hooks import listen, run_all
from session_reuse._browser.flow import Flow, run_sync
from session_reuse._browser.options import AttachOptions, Settings
from session_reuse._browser.playwright_binding import PlaywrightBinding
from session_reuse._misuse import BlockingOnly
from session_reuse.errors import ConfigurationError, MissingExtraError

try:
    from session_reuse._browser.drivers.playwright_sync import SyncPlaywrightDriver
except ImportError:
    raise MissingExtraError("playwright", "session_reuse.browsers.playwright_sync") from None

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from playwright.sync_api import Browser, BrowserContext, Page

    from session_reuse._browser_session import BrowserSession
    from session_reuse._state.storage_state import StorageState

__all__ = ["attach_context", "open_context"]


def open_context(
    session: BrowserSession,
    browser: Browser,
    *,
    verify: Callable[[Page], object] | None = None,
    **options: Any,
) -> AbstractContextManager[BrowserContext]:
    """Open a context with the session's state. Use it in `with`, at whose end it is captured and closed.

    Arguments and errors are those of `session_reuse.browsers.playwright.open_context`.
    """
    return _BoundContext(session, Settings.taken_from(options, verify), browser=browser, given=options)


def attach_context(
    session: BrowserSession, context: BrowserContext, **options: Unpack[AttachOptions]
) -> AbstractContextManager[BrowserContext]:
    """Restore the session's state into a context that exists. It is captured at the end of the `with`, and left open.

    Arguments are those of `session_reuse.browsers.playwright.attach_context`.
    """
    return _BoundContext(session, Settings.build(options), context=context)


class _BoundContext(PlaywrightBinding, BlockingOnly):
    """A context bound to a session, for `with`."""

    _opened_by = "open_context"
    _twin = "session_reuse.browsers.playwright"

    def __init__(self, session: BrowserSession, settings: Settings, **of: Any) -> None:
        super().__init__(session, settings, **of)
        self._thread = threading.get_ident()
        self._is_final = False
        self._is_busy = False
        self._last_checkpoint = time.monotonic()

    def _require_usable(self) -> None:
        for given, method in ((self._browser, "new_context"), (self._attached, "add_cookies")):
            if inspect.iscoroutinefunction(getattr(given, method, None)):
                raise ConfigurationError(f"the {type(given).__name__} is an asynchronous one: use {self._twin}")
        super()._require_usable()

    def __enter__(self) -> BrowserContext:
        """Restore the state and start to follow the context."""
        context: BrowserContext = run_sync(self.enter())
        if self.settings.checkpoint_after is not None:
            self.undo.append(listen(context, "requestfinished", self._tick))
        return context

    def _open(self) -> None:
        try:
            run_sync(self.open(SyncPlaywrightDriver(self.session)))
        except BaseException:
            if self.context is not None:
                run_sync(self.release())
            raise

    def _run(self, flow: Flow[object], limit: float | None) -> Any:  # noqa: ARG002 - this API has no timers
        return run_sync(flow)

    def __exit__(self, *_: object) -> None:
        """Capture, give the session the state, and close the context if it was opened here."""
        try:
            self._finalize()
        finally:  # also when Ctrl-C ends the capture
            run_sync(self.release())

    def _finalize(self, **_: object) -> None:
        """Capture for the last time, at the agent's own `close` or at our exit."""
        if self._is_final:
            self._wait_for_capture()
            return
        self._is_final = True
        self.engine.keep_last_seen()
        try:
            self._capture_now(is_final=True)
        except Exception as failure:  # noqa: BLE001  (whatever it is, the agent has done its work)
            self.report_not_captured(failure)
        finally:  # not before: a handler may close the context meanwhile
            run_all(self.undo)
        self.driver.unfollow()

    def _wait_for_capture(self) -> None:
        """Wait for the last capture, which is under way in another greenlet: a handler may close the context meanwhile.

        It goes on during calls only.
        """
        deadline = time.monotonic() + limits.CAPTURE
        while self._is_busy and time.monotonic() < deadline:
            self.driver.best_effort(self.context.cookies)

    def _capture(self) -> StorageState:
        """Return the current state, or what was last seen in the midst of a call or from another thread."""
        if self._is_busy or threading.get_ident() != self._thread:
            return self.engine.fitted(self.engine.mirror.state())
        return self._capture_now(is_final=False)

    def _capture_now(self, *, is_final: bool) -> StorageState:
        self._is_busy = True
        try:
            return run_sync(self.captured(is_final=is_final))
        finally:
            self._is_busy = False

    def _tick(self, _request: object) -> None:
        """Save when it is time to. It runs within one of the agent's own calls of Playwright."""
        now, after = time.monotonic(), self.settings.checkpoint_after
        if self._is_busy or after is None or now - self._last_checkpoint < after:
            return
        self._last_checkpoint = now
        self._is_busy = True
        try:
            self.driver.spawn(self.engine.refresh())
        finally:
            self._is_busy = False
        if self.engine.is_dirty:
            save_checkpoint_blocking(self.session, self.engine.keep_last_seen)
