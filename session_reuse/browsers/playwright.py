"""Playwright's asynchronous contexts: restored, followed, captured.

async with reusable_session("shop.example/alice") as session:
    async with open_context(session, browser) as context:
        ...
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Unpack

from session_reuse._browser import limits
from session_reuse._browser.checkpoints import save_checkpoint
from session_reuse._browser.drivers.call_hooks import run_all
from session_reuse._browser.drivers.tasks import finished, in_background, is_done
from session_reuse._browser.flow import Flow, run_async
from session_reuse._browser.options import AttachOptions, Settings
from session_reuse._browser.playwright_binding import PlaywrightBinding
from session_reuse._misuse import AsyncOnly
from session_reuse.errors import MissingExtraError

try:
    from session_reuse._browser.drivers.playwright_async import AsyncPlaywrightDriver
except ImportError:
    raise MissingExtraError("playwright", "session_reuse.browsers.playwright") from None

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from playwright.async_api import Browser, BrowserContext, Page

    from session_reuse._browser_session import BrowserSession
    from session_reuse._state.storage_state import StorageState

__all__ = ["attach_context", "open_context"]


def open_context(
    session: BrowserSession,
    browser: Browser,
    *,
    verify: Callable[[Page], object] | None = None,
    **options: Any,
) -> AbstractAsyncContextManager[BrowserContext]:
    """Open a context with the session's state. Use it in `async with`, at whose end it is captured and closed.

    Args:
        session: whose state is restored, and which gets what was captured.
        browser: any browser of Playwright. With others than Chromium, storage is read at save time only.
        verify: called with a page of the context when a state was restored. When it returns False or raises, the agent
            starts with a clean context and `session.outcome` is `unverified`. With `AdapterError` it could not tell, and
            the state stays. See `session_reuse.browsers.checks`.
        checkpoint_after: seconds after which changes are saved while the agent works; None saves at exit only.
        indexed_db: whether IndexedDB is restored and captured.
        opfs: whether origin private file systems are too; Playwright visits each origin for it.
        credentials: whether WebAuthn credentials are too.
        restore_environment: whether the context gets the recorded user agent, locale, timezone and viewport.
        preload_limit: characters of JSON that an init script restores. The largest origins beyond it are filled before the
            agent starts.
        database_limit: largest copy of the databases of one origin, in characters of JSON.
        options: all others are for `browser.new_context`.

    Raises:
        ConfigurationError: an option is wrong, or `storage_state` is among the options. The session brings it.
    """
    return _BoundContext(session, Settings.taken_from(options, verify), browser=browser, given=options)


def attach_context(
    session: BrowserSession, context: BrowserContext, **options: Unpack[AttachOptions]
) -> AbstractAsyncContextManager[BrowserContext]:
    """Restore the session's state into a context that exists, such as a persistent one or one of `connect_over_cdp`.

    Nothing that the context holds is removed. Cookies and storage keys of the state replace those of the same name.
    An origin that is open in a page is filled only if its storage is empty, and what else is stored of it stays stored. At
    the end of the `async with` the context is captured and left open.

    Args:
        session: whose state is restored, and which gets what was captured.
        context: of any browser of Playwright.
        options: those of `open_context` that a context which exists can take. Databases that exist are never touched.

    Raises:
        LifecycleError: the session of another login is in the context, and they share a part.
    """
    return _BoundContext(session, Settings.build(options), context=context)


class _BoundContext(PlaywrightBinding, AsyncOnly):
    """A context bound to a session, for `async with`."""

    _opened_by = "open_context"
    _twin = "session_reuse.browsers.playwright_sync"
    driver: AsyncPlaywrightDriver

    def __init__(self, session: BrowserSession, settings: Settings, **of: Any) -> None:
        super().__init__(session, settings, **of)
        self._checkpoints: asyncio.Task[None] | None = None
        self._capturing = asyncio.Lock()
        self._final: asyncio.Future[Any] | None = None

    async def __aenter__(self) -> BrowserContext:
        """Restore the state and start to follow the context."""
        context: BrowserContext = await run_async(self.enter())
        if self.settings.checkpoint_after is not None:
            self._checkpoints = asyncio.create_task(self._checkpoint_regularly(self.settings.checkpoint_after))
        return context

    async def _open(self) -> None:
        opening = asyncio.create_task(run_async(self.open(AsyncPlaywrightDriver(self.session))))
        try:
            await asyncio.shield(opening)
        except BaseException:
            await is_done(self._undone(opening), limits.UNDO)
            raise

    async def _undone(self, opening: asyncio.Task[None]) -> None:
        """Undo what a cancelled or failed start has begun: the browser would keep what it is asked for already."""
        await asyncio.wait({opening})
        if self.context is not None:
            await run_async(self.release())

    async def _run(self, flow: Flow[object], limit: float | None) -> Any:
        async with asyncio.timeout(limit):
            return await run_async(flow)

    async def __aexit__(self, *_: object) -> None:
        """Capture, give the session the state, and close the context if it was opened here.

        Whatever is cancelled here, the session has what was seen so far, and the rest is done in the background.
        """
        await finished(self._finish(self._captured_finally()))

    async def _finish(self, captured: asyncio.Future[Any]) -> None:
        await captured
        await run_async(self.release())

    async def _finalize(self, **_: object) -> None:
        """Capture for the last time before the agent's own `close`. If that is cancelled, our exit waits for it."""
        await asyncio.shield(self._captured_finally())

    def _captured_finally(self) -> asyncio.Future[Any]:
        """Return the last capture, begun by whichever exit comes first. The session has what was seen before it at once."""
        if self._final is None:
            self.engine.keep_last_seen()
            self._final = in_background(self._capture_finally())
        return self._final

    async def _capture_finally(self) -> None:
        if self._checkpoints:
            self._checkpoints.cancel()
        try:
            async with asyncio.timeout(limits.CAPTURE), self._capturing:
                await run_async(self.captured(is_final=True))
        except Exception as failure:  # noqa: BLE001  (whatever it is, the agent has done its work)
            self.report_not_captured(failure)
        finally:
            run_all(self.undo)  # not before: another task may close the context meanwhile
            self.driver.unfollow()
            self.driver.cancel_tasks()

    async def _capture(self) -> StorageState:
        async with self._capturing:
            return await run_async(self.captured())

    async def _checkpoint_regularly(self, seconds: float) -> None:
        while not self.driver.is_gone:
            await asyncio.sleep(seconds)
            async with self._capturing:
                await self.driver.spawn(self.engine.refresh())
            if self.engine.is_dirty:
                await save_checkpoint(self.session, self._capture)
