"""Playwright's synchronous contexts: restored, followed, captured.

    with blocking.reusable_session("shop.example/alice") as session:
        with open_context(session, browser) as context:
            ...

There is no timer in this world: changes are saved while the agent works when the browser reports something, a request
finished or a page opened, and `checkpoint_after` has passed since the last time.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Unpack

from session_reuse._browser.checkpoints import save_checkpoint_blocking
from session_reuse._browser.drivers.call_hooks import listen, run_all
from session_reuse._browser.flow import run_sync
from session_reuse._browser.options import AttachOptions, Settings
from session_reuse._browser.playwright_binding import PlaywrightBinding
from session_reuse._misuse import BlockingOnly
from session_reuse._problem import ProblemKind
from session_reuse.errors import AdapterError, MissingExtraError
from session_reuse.outcome import Outcome

try:
    from playwright.sync_api import Error

    from session_reuse._browser.drivers.playwright_sync import SyncPlaywrightDriver
except ImportError:
    raise MissingExtraError("playwright", "session_reuse.browsers.playwright_sync") from None

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from playwright.sync_api import Browser, BrowserContext, Page

    from session_reuse._browser_session import BrowserSession
    from session_reuse._state.storage_state import StorageState

__all__ = ["BoundContext", "attach_context", "open_context"]


def open_context(
    session: BrowserSession,
    browser: Browser,
    *,
    verify: Callable[[Page], Any] | None = None,
    **options: Any,
) -> BoundContext:
    """Open a context with the session's state. Use it in `with`, at whose end it is captured and closed.

    Arguments and errors are those of `session_reuse.browsers.playwright.open_context`.
    """
    settings = Settings.taken_from(options, verify)
    return BoundContext(PlaywrightBinding(session, settings, browser=browser, given=options))


def attach_context(session: BrowserSession, context: BrowserContext, **options: Unpack[AttachOptions]) -> BoundContext:
    """Restore the session's state into a context that exists. It is captured at the end of the `with`, and left open.

    Arguments are those of `session_reuse.browsers.playwright.attach_context`.
    """
    return BoundContext(PlaywrightBinding(session, Settings(**options), context=context))


class BoundContext(BlockingOnly):
    """A context bound to a session, for `with`."""

    _opened_by = "open_context"
    _twin = "session_reuse.browsers.playwright"

    def __init__(self, binding: PlaywrightBinding) -> None:
        self._binding = binding
        self._session = binding.session
        self._driver: SyncPlaywrightDriver
        self._thread = threading.get_ident()
        self._is_final = False
        self._is_busy = False
        self._last_checkpoint = time.monotonic()

    def __enter__(self) -> BrowserContext:
        """Restore the state and start to follow the context."""
        binding = self._binding
        binding.enter()
        self._open()
        if binding.must_verify and not self._verified():
            self._session.start_fresh(Outcome.UNVERIFIED)
            run_sync(binding.release())
            self._open()
        binding.hook(self._capture, self._finalize)
        if binding.settings.checkpoint_after is not None:
            binding.undo.append(listen(binding.context, "requestfinished", self._tick))
        context: BrowserContext = binding.context
        return context

    def _open(self) -> None:
        self._driver = SyncPlaywrightDriver(self._session)
        try:
            run_sync(self._binding.open(self._driver))
        except BaseException:
            if self._binding.context is not None:
                run_sync(self._binding.release())
            raise

    def _verified(self) -> bool:
        try:
            return run_sync(self._binding.verified())
        except Exception as error:  # noqa: BLE001 - whatever the user's check raises means: not verified
            self._session.report(ProblemKind.VERIFY_FAILED, type(error).__name__)
            return False
        except BaseException:
            run_sync(self._binding.release())
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Capture, give the session the state, and close the context if it was opened here."""
        if not self._is_final:
            self._binding.engine.keep_last_seen()
        try:
            self._finalize()
        finally:  # also when Ctrl-C ends the capture
            run_sync(self._binding.release())

    def _finalize(self, **_: Any) -> None:
        """Capture for the last time, at the agent's own `close` or at our exit."""
        run_all(self._binding.undo)
        if self._is_final:
            return
        self._is_final = True
        try:
            self._captured(is_final=True)
        except (Error, TimeoutError, AdapterError) as failure:
            self._binding.report_not_captured(failure)
        self._driver.unfollow()

    def _capture(self) -> StorageState:
        """Return the current state, or what was last seen in the midst of a call or from another thread."""
        if self._is_busy or threading.get_ident() != self._thread:
            engine = self._binding.engine
            return engine.fitted(engine.mirror.state())
        return self._captured(is_final=False)

    def _captured(self, *, is_final: bool) -> StorageState:
        self._is_busy = True
        try:
            return run_sync(self._binding.captured(is_final=is_final))
        finally:
            self._is_busy = False

    def _tick(self, _request: object) -> None:
        """Save when it is time to. It runs within one of the agent's own calls of Playwright."""
        now, after, engine = time.monotonic(), self._binding.settings.checkpoint_after, self._binding.engine
        if self._is_busy or after is None or now - self._last_checkpoint < after:
            return
        self._last_checkpoint = now
        self._is_busy = True
        try:
            self._driver.spawn(engine.capture.refresh())
        finally:
            self._is_busy = False
        if engine.is_dirty:
            save_checkpoint_blocking(self._session, engine.keep_last_seen)
