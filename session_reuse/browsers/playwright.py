"""Playwright's asynchronous contexts: restored, followed, captured.

async with reusable_session("shop.example/alice") as session:
    async with open_context(session, browser) as context:
        ...
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Unpack

from session_reuse._browser import limits
from session_reuse._browser.checkpoints import save_checkpoint
from session_reuse._browser.drivers.call_hooks import before, run_all
from session_reuse._browser.drivers.tasks import finished, in_background, is_done
from session_reuse._browser.flow import run_async
from session_reuse._browser.options import AttachOptions, Settings
from session_reuse._browser.playwright_binding import PlaywrightBinding
from session_reuse._browser_session import require_open
from session_reuse._misuse import AsyncOnly
from session_reuse._problem import ProblemKind
from session_reuse.errors import LifecycleError, MissingExtraError
from session_reuse.outcome import Outcome

try:
    from playwright.async_api import Error

    from session_reuse._browser.drivers.playwright_async import AsyncPlaywrightDriver
except ImportError:
    raise MissingExtraError("playwright", "session_reuse.browsers.playwright") from None

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from playwright.async_api import Browser, BrowserContext, Page

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
    """Open a context with the session's state. Use it in `async with`, at whose end it is captured and closed.

    Args:
        session: whose state is restored, and which gets what was captured.
        browser: any browser of Playwright. With others than Chromium, storage is read at save time only.
        verify: called with a page of the context when a state was restored. When it returns False or raises, the agent
            starts with a clean context and `session.outcome` is `unverified`. See `session_reuse.browsers.checks`.
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
        ConfigurationError: `storage_state` is among the options. The session brings it.
    """
    settings = Settings.taken_from(options, verify)
    return BoundContext(session, settings, browser=browser, given=options)


def attach_context(session: BrowserSession, context: BrowserContext, **options: Unpack[AttachOptions]) -> BoundContext:
    """Restore the session's state into a context that exists, such as a persistent one or one of `connect_over_cdp`.

    Nothing that the context holds is removed. Cookies and storage keys of the state replace those of the same name.
    An origin that is open in a page is filled only if its storage is empty, and what else is stored of it stays stored. At
    the end of the `async with` the context is captured and left open.

    Args:
        session: whose state is restored, and which gets what was captured.
        context: of any browser of Playwright.
        options: those of `open_context` that a context which exists can take. Databases that exist are never touched.
    """
    return BoundContext(session, Settings(**options), context=context)


class BoundContext(AsyncOnly):
    """A context bound to a session, for `async with`."""

    _opened_by = "open_context"
    _twin = "session_reuse.browsers.playwright_sync"

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
        self._driver: AsyncPlaywrightDriver
        self._checkpoints: asyncio.Task[None] | None = None
        self._undo: list[Callable[[], None]] = []
        self._capturing = asyncio.Lock()
        self._final: asyncio.Future[Any] | None = None

    async def __aenter__(self) -> BrowserContext:
        """Restore the state and start to follow the context."""
        if self._binding is not None:
            raise LifecycleError("a bound context can be entered once; open another")
        require_open(self._session)
        binding = await self._open()
        if binding.must_verify and not await self._verified(binding):
            self._session.start_fresh(Outcome.UNVERIFIED)
            await self._release(binding)
            binding = await self._open()
        self._undo.append(self._session.bind_capture(self._capture))
        self._undo.append(before(binding.context, "close", self._finalize))
        if binding.context.browser is not None:
            self._undo.append(before(binding.context.browser, "close", self._finalize))
        if self._settings.checkpoint_after is not None:
            self._checkpoints = asyncio.create_task(self._checkpoint_regularly(self._settings.checkpoint_after))
        context: BrowserContext = binding.context
        return context

    async def _open(self) -> PlaywrightBinding:
        self._driver = AsyncPlaywrightDriver(self._session)
        is_new = self._attached is None
        binding = PlaywrightBinding(self._session, self._driver, self._settings, is_new_profile=is_new)
        self._binding = binding
        attached = self._attached
        flow = binding.open(self._browser, self._given) if attached is None else binding.attach(attached)
        opening = asyncio.create_task(run_async(flow))
        try:
            await asyncio.shield(opening)
        except BaseException:
            await is_done(self._undone(opening, binding), limits.UNDO)
            raise
        return binding

    async def _undone(self, opening: asyncio.Task[None], binding: PlaywrightBinding) -> None:
        """Undo what a cancelled or failed start has begun: the browser would keep what it is asked for already."""
        await asyncio.wait({opening})
        if binding.context is not None:
            await self._release(binding)

    async def _verified(self, binding: PlaywrightBinding) -> bool:
        verify = self._settings.verify
        try:
            async with asyncio.timeout(limits.VERIFY):
                page = await binding.context.new_page()
                answer = verify(page) if verify else True
                is_good = bool(await answer if inspect.isawaitable(answer) else answer)
                if is_good:
                    await run_async(binding.close_verified(page))
                return is_good
        except Exception as error:  # noqa: BLE001 - whatever the user's check raises means: not verified
            self._session.report(ProblemKind.VERIFY_FAILED, type(error).__name__)
            return False
        except BaseException:
            await is_done(self._release(binding), limits.UNDO)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Capture, give the session the state, and close the context if it was opened here.

        Whatever is cancelled here, the session has what was seen so far, and the rest is done in the background.
        """
        binding, captured = self._entered(), self._captured_finally()
        await finished(self._finish(binding, captured))

    async def _finish(self, binding: PlaywrightBinding, captured: asyncio.Future[Any]) -> None:
        await captured
        await self._release(binding)

    async def _release(self, binding: PlaywrightBinding) -> None:
        """Close a context of our own, and remove our scripts and hooks from another."""
        if self._attached is not None:
            await run_async(binding.release())
        elif not await is_done(binding.context.close(), limits.CONTEXT):
            self._session.report(
                ProblemKind.CONTEXT_LEFT_OPEN, "the context", f"the browser did not close it in {limits.CONTEXT:g} s"
            )

    async def _finalize(self, **_: Any) -> None:
        """Capture for the last time before the agent's own `close`. If that is cancelled, our exit waits for it."""
        await asyncio.shield(self._captured_finally())

    def _captured_finally(self) -> asyncio.Future[Any]:
        """Return the last capture, begun by whichever exit comes first. The session has what was seen before it at once."""
        if self._final is None:
            self._entered().engine.keep_last_seen()
            self._final = in_background(self._capture_finally())
        return self._final

    async def _capture_finally(self) -> None:
        if self._checkpoints:
            self._checkpoints.cancel()
        run_all(self._undo)
        binding = self._entered()
        try:
            async with asyncio.timeout(limits.CAPTURE), self._capturing:
                self._session.storage_state = await run_async(binding.captured(is_final=True))
        except (Error, TimeoutError):
            binding.engine.keep_last_seen()
            self._session.report(
                ProblemKind.CAPTURE_LIMITED, "the browser", "it did not answer in time; the state is the one last seen"
            )
        finally:
            self._driver.unfollow()
            self._driver.cancel_tasks()

    async def _capture(self) -> StorageState:
        async with self._capturing:
            return await run_async(self._entered().captured())

    async def _checkpoint_regularly(self, seconds: float) -> None:
        binding = self._entered()
        while not self._driver.is_gone:
            await asyncio.sleep(seconds)
            async with self._capturing:
                await run_async(binding.engine.capture.refresh())
            if binding.engine.is_dirty:
                await save_checkpoint(self._session, self._keep)

    async def _keep(self) -> None:
        self._session.storage_state = await self._capture()

    def _entered(self) -> PlaywrightBinding:
        if self._binding is None:
            raise LifecycleError("a bound context is used in `async with`")
        return self._binding
