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
from session_reuse._browser.drivers.call_hooks import before, listen, run_all
from session_reuse._browser.flow import run_sync
from session_reuse._browser.options import AttachOptions, Settings
from session_reuse._browser.playwright_binding import PlaywrightBinding
from session_reuse._browser_session import require_open
from session_reuse._misuse import BlockingOnly
from session_reuse._problem import ProblemKind
from session_reuse.errors import LifecycleError, MissingExtraError
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
    return BoundContext(session, settings, browser=browser, given=options)


def attach_context(session: BrowserSession, context: BrowserContext, **options: Unpack[AttachOptions]) -> BoundContext:
    """Restore the session's state into a context that exists. It is captured at the end of the `with`, and left open.

    Arguments are those of `session_reuse.browsers.playwright.attach_context`.
    """
    return BoundContext(session, Settings(**options), context=context)


class BoundContext(BlockingOnly):
    """A context bound to a session, for `with`."""

    _opened_by = "open_context"
    _twin = "session_reuse.browsers.playwright"

    def __init__(
        self,
        session: BrowserSession,
        settings: Settings,
        *,
        browser: Browser | None = None,
        given: dict[str, Any] | None = None,
        context: BrowserContext | None = None,
    ) -> None:
        self._session = session
        self._settings = settings
        self._browser = browser
        self._given = given or {}
        self._attached = context
        self._binding: PlaywrightBinding | None = None
        self._driver: SyncPlaywrightDriver
        self._thread = threading.get_ident()
        self._undo: list[Callable[[], None]] = []
        self._is_final = False
        self._is_busy = False
        self._last_checkpoint = time.monotonic()

    def __enter__(self) -> BrowserContext:
        """Restore the state and start to follow the context."""
        if self._binding is not None:
            raise LifecycleError("a bound context can be entered once; open another")
        require_open(self._session)
        binding = self._open()
        if binding.must_verify and not self._verified(binding):
            self._session.start_fresh(Outcome.UNVERIFIED)
            self._release(binding)
            binding = self._open()
        self._undo.append(self._session.bind_capture(self._capture))
        self._undo.append(before(binding.context, "close", self._finalize))
        if binding.context.browser is not None:
            self._undo.append(before(binding.context.browser, "close", self._finalize))
        if self._settings.checkpoint_after is not None:
            self._undo.append(listen(binding.context, "requestfinished", self._tick))
        context: BrowserContext = binding.context
        return context

    def _open(self) -> PlaywrightBinding:
        self._driver = SyncPlaywrightDriver(self._session)
        is_new = self._attached is None
        binding = PlaywrightBinding(self._session, self._driver, self._settings, is_new_profile=is_new)
        self._binding = binding
        try:
            if self._attached is not None:
                run_sync(binding.attach(self._attached))
            else:
                run_sync(binding.open(self._browser, self._given))
        except BaseException:
            if self._attached is None and binding.context is not None:
                _quietly(binding.context.close)
            raise
        return binding

    def _verified(self, binding: PlaywrightBinding) -> bool:
        verify = self._settings.verify
        try:
            page = binding.context.new_page()
            is_good = bool(verify(page)) if verify else True
            if is_good:
                run_sync(binding.close_verified(page))
        except Exception as error:  # noqa: BLE001 - whatever the user's check raises means: not verified
            self._session.report(ProblemKind.VERIFY_FAILED, type(error).__name__)
            return False
        except BaseException:
            self._release(binding)
            raise
        return is_good

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Capture, give the session the state, and close the context if it was opened here."""
        binding = self._entered()
        if not self._is_final:
            binding.engine.keep_last_seen()
        try:
            self._finalize()
        finally:  # also when Ctrl-C ends the capture
            self._release(binding)

    def _release(self, binding: PlaywrightBinding) -> None:
        """Close a context of our own, and remove our scripts and hooks from another."""
        if self._attached is None:
            _quietly(binding.context.close)
        else:
            _quietly(lambda: run_sync(binding.release()))

    def _finalize(self, **_: Any) -> None:
        """Capture for the last time, at the agent's own `close` or at our exit."""
        run_all(self._undo)
        if self._is_final:
            return
        self._is_final = True
        binding = self._entered()
        try:
            self._session.storage_state = self._captured(binding, is_final=True)
        except (Error, TimeoutError):
            binding.engine.keep_last_seen()
            self._session.report(
                ProblemKind.CAPTURE_LIMITED, "the browser", "it did not answer; the state is the one last seen"
            )
        self._driver.unfollow()

    def _capture(self) -> StorageState:
        """Return the current state, or what was last seen in the midst of a call or from another thread."""
        binding = self._entered()
        if self._is_busy or threading.get_ident() != self._thread:
            return binding.engine.fitted(binding.engine.mirror.state())
        return self._captured(binding, is_final=False)

    def _captured(self, binding: PlaywrightBinding, *, is_final: bool) -> StorageState:
        self._is_busy = True
        try:
            return run_sync(binding.captured(is_final=is_final))
        finally:
            self._is_busy = False

    def _tick(self, _request: object) -> None:
        """Save when it is time to. It runs within one of the agent's own calls of Playwright."""
        now, after = time.monotonic(), self._settings.checkpoint_after
        if self._is_busy or after is None or now - self._last_checkpoint < after:
            return
        self._last_checkpoint = now
        binding = self._entered()
        self._is_busy = True
        try:
            self._driver.spawn(binding.engine.capture.refresh())
        finally:
            self._is_busy = False
        if binding.engine.is_dirty:
            save_checkpoint_blocking(self._session, binding.engine.keep_last_seen)

    def _entered(self) -> PlaywrightBinding:
        if self._binding is None:
            raise LifecycleError("a bound context is used in `with`")
        return self._binding


def _quietly(closing: Callable[[], Any]) -> None:
    try:
        closing()
    except Error:
        return  # it was closed before
