"""Playwright's synchronous contexts: restored, followed, captured. Must never leave Playwright's thread or start one.

    with blocking.reusable_session("shop.example/alice") as session:
        with open_context(session, browser) as context:
            ...

There is no timer in this world: changes are saved while the agent works when the browser says something, a request
finished or a page opened, and `checkpoint_after` has passed since the last time.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from session_reuse._misuse import BlockingOnly
from session_reuse.browsers.binding import Binding, Options
from session_reuse.browsers.call_hooks import before_close_blocking, before_goto_blocking
from session_reuse.browsers.hidden_page import PageClient
from session_reuse.browsers.lazy_restore import SHIPPED_BYTES
from session_reuse.browsers.listeners import Listeners
from session_reuse.browsers.steps import Steps, run_blocking
from session_reuse.errors import ConfigurationError, LifecycleError, MissingExtraError

try:
    from playwright.sync_api import CDPSession, Error
except ImportError:
    raise MissingExtraError("playwright", "session_reuse.browsers.playwright_sync") from None

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from playwright.sync_api import Browser, BrowserContext, Page

    from session_reuse.session import BrowserSession
    from session_reuse.state.storage_state import StorageState

__all__ = ["BoundContext", "attach_context", "open_context"]

COMMAND_LIMIT: Final = 2.0
"""Seconds that one command of the debugging protocol may take: a page that hangs does not answer."""

_logger = logging.getLogger("session_reuse.browsers")


def open_context(
    session: BrowserSession,
    browser: Browser,
    *,
    verify: Callable[[Page], Any] | None = None,
    checkpoint_after: float | None = 2.0,
    indexed_db: bool = True,
    opfs: bool = False,
    credentials: bool = False,
    restore_environment: bool = False,
    **new_context_options: Any,
) -> BoundContext:
    """Open a context with the session's state; use it in `with`, at whose end it is captured and closed.

    Arguments and errors are those of `session_reuse.browsers.playwright.open_context`.
    """
    if "storage_state" in new_context_options:
        raise ConfigurationError("storage_state comes from the session: assign session.storage_state instead")
    options = Options(
        verify=verify,
        checkpoint_after=checkpoint_after,
        indexed_db=indexed_db,
        opfs=opfs,
        credentials=credentials,
        restore_environment=restore_environment,
    )
    return BoundContext(session, options, browser=browser, given=new_context_options)


def attach_context(
    session: BrowserSession,
    context: BrowserContext,
    *,
    checkpoint_after: float | None = 2.0,
    indexed_db: bool = True,
    opfs: bool = False,
    credentials: bool = False,
) -> BoundContext:
    """Bring the session's state into a context that exists; it is captured at the end of the `with`, and left open.

    Arguments are those of `session_reuse.browsers.playwright.attach_context`.
    """
    options = Options(checkpoint_after=checkpoint_after, indexed_db=indexed_db, opfs=opfs, credentials=credentials)
    return BoundContext(session, options, context=context)


class BoundContext(BlockingOnly):
    """A context bound to a session, for `with`."""

    _opened_by = "open_context"
    _twin = "session_reuse.browsers.playwright"

    def __init__(
        self,
        session: BrowserSession,
        options: Options,
        *,
        browser: Browser | None = None,
        given: dict[str, Any] | None = None,
        context: BrowserContext | None = None,
    ) -> None:
        self._session = session
        self._options = options
        self._browser = browser
        self._given = given or {}
        self._attached = context
        self._client = PageClient(
            (Error, TimeoutError),
            _send,
            self._spawn,
            lambda *_: None,
            before_goto_blocking,
            lambda script, _: script.close(),
            lambda result, hand_on: hand_on(result),
            lambda result: result,
            self._read_before_close,
            lambda *_: None,
            SHIPPED_BYTES,
        )
        self._binding: Binding | None = None
        self._thread = threading.get_ident()
        self._undo: list[Callable[[], None]] = []
        self._is_final = False
        self._is_busy = False
        self._last_checkpoint = time.monotonic()

    def __enter__(self) -> BrowserContext:
        """Restore the state and start to follow the context."""
        if self._binding is not None:
            raise LifecycleError("a bound context can be entered once; open another")
        self._session.require_open()
        binding = self._open()
        if binding.must_verify and not self._verified(binding):
            binding.start_fresh()
            _quietly(binding.context.close)
            binding = self._open()
        self._undo.append(self._session.bind_capture(self._capture))
        self._undo.append(before_close_blocking(binding.context, self._finalize))
        if binding.context.browser is not None:
            self._undo.append(before_close_blocking(binding.context.browser, self._finalize))
        if self._options.checkpoint_after is not None:
            ticks = Listeners()
            ticks.add(binding.context, "requestfinished", self._tick)
            self._undo.append(ticks.remove_all)
        context: BrowserContext = binding.context
        return context

    def _open(self) -> Binding:
        binding = Binding(self._session, self._client, self._options, fresh=self._attached is None)
        self._binding = binding
        try:
            if self._attached is not None:
                run_blocking(binding.attach(self._attached))
            else:
                run_blocking(binding.open(self._browser, self._given))
        except BaseException:
            if self._attached is None and binding.context is not None:
                _quietly(binding.context.close)
            raise
        return binding

    def _verified(self, binding: Binding) -> bool:
        verify = self._options.verify
        try:
            page = binding.context.new_page()
            is_good = bool(verify(page)) if verify else True
            if is_good:
                run_blocking(binding.close_verified(page))
        except Exception as error:  # noqa: BLE001 - whatever the user's check raises means: not verified
            _logger.debug("verify raised %s", type(error).__name__)
            return False
        return is_good

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Capture, give the session the state, and close the context if it was opened here."""
        binding = self._entered()
        if not self._is_final:
            binding.keep_last_seen()
        self._finalize()
        if self._attached is None:
            _quietly(binding.context.close)
        else:
            _quietly(lambda: run_blocking(binding.release()))

    def _finalize(self) -> None:
        """Capture for the last time; from the agent's own `close` as well as from our exit."""
        for undo in self._undo:
            undo()
        self._undo.clear()
        if self._is_final:
            return
        self._is_final = True
        try:
            self._session.storage_state = self._capture()
        except (Error, TimeoutError):
            self._entered().keep_last_seen()
            self._session.report("capture_limited", "the browser did not answer; the state is the one last seen")
        run_blocking(self._entered().end())

    def _capture(self) -> StorageState:
        """Return the current state; what was last seen, when asked in the midst of a call or from another thread."""
        binding = self._entered()
        if self._is_busy or threading.get_ident() != self._thread:
            return binding.mirror.state()
        self._is_busy = True
        try:
            return run_blocking(binding.captured())
        finally:
            self._is_busy = False

    def _tick(self, _request: Any) -> None:
        """Save when it is time to; runs within one of the agent's own calls of Playwright."""
        now, after = time.monotonic(), self._options.checkpoint_after
        if self._is_busy or after is None or now - self._last_checkpoint < after:
            return
        self._last_checkpoint = now
        self._spawn(self._refreshed())

    def _refreshed(self) -> Steps[None]:
        binding = self._entered()
        self._is_busy = True
        try:
            yield from binding.capture.refresh()
        finally:
            self._is_busy = False
        if binding.is_dirty:
            self._checkpoint(binding)

    def _checkpoint(self, binding: Binding) -> None:
        try:
            saving = self._session.checkpoint()
        except LifecycleError:
            saving = None
        if inspect.iscoroutine(saving):
            saving.close()  # an asynchronous session: nobody here can wait for it
        if not isinstance(saving, str):
            self._session.storage_state = binding.mirror.state()

    def _entered(self) -> Binding:
        if self._binding is None:
            raise LifecycleError("a bound context is used in `with`")
        return self._binding

    def _read_before_close(self, page: Page, read: Callable[[], Steps[None]]) -> Callable[[], None]:
        return before_close_blocking(page, lambda: self._spawn(read()))

    def _spawn(self, steps: Steps[Any]) -> None:
        try:
            run_blocking(steps)
        except Exception as error:  # noqa: BLE001 - following a page must never disturb the agent
            self._session.report("capture_limited", f"an event could not be followed: {type(error).__name__}")


def _send(cdp: Any, method: str, params: dict[str, Any]) -> Any:
    return cdp.send(method, params, **_time_limit())


@cache
def _time_limit() -> dict[str, float]:
    """Return the time limit of a command for Playwright versions that know one; others wait for a page that hangs."""
    return {"timeout": COMMAND_LIMIT * 1000} if "timeout" in inspect.signature(CDPSession.send).parameters else {}


def _quietly(closing: Callable[[], Any]) -> None:
    try:
        closing()
    except Error:
        return  # it was closed before
