"""Playwright's asynchronous contexts: restored, followed, captured. Must never stop an agent for want of a capture.

async with reusable_session("shop.example/alice") as session:
    async with open_context(session, browser) as context:
        ...
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any, Final

from session_reuse._misuse import AsyncOnly
from session_reuse.browsers.binding import Binding, Options
from session_reuse.browsers.call_hooks import before_close, before_goto
from session_reuse.browsers.document_gate import has_hidden_pages
from session_reuse.browsers.hidden_page import PageClient
from session_reuse.browsers.steps import Steps, run
from session_reuse.errors import ConfigurationError, LifecycleError, MissingExtraError

try:
    from playwright.async_api import Error

    from session_reuse.browsers.playwright_hidden import HiddenPage
except ImportError:
    raise MissingExtraError("playwright", "session_reuse.browsers.playwright") from None

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from playwright.async_api import Browser, BrowserContext, Page

    from session_reuse.session import BrowserSession
    from session_reuse.state.storage_state import StorageState

__all__ = ["BoundContext", "attach_context", "open_context"]

COMMAND_LIMIT: Final = 2.0
"""Seconds that one command of the debugging protocol may take: a page that hangs does not answer."""
CLOSE_LIMIT: Final = 1.0
"""Seconds that the closing of a page may wait until it has been read."""
CAPTURE_LIMIT: Final = 5.0
"""Seconds that the capture at exit may take; after that, what was seen so far is kept."""
CONTEXT_LIMIT: Final = 15.0
"""Seconds that the closing of a context may take; a browser that hangs would hold its agent for ever."""
VERIFY_LIMIT: Final = 30.0
SHIPPED_BYTES: Final = 128 * 1024
"""States with more than this are filled on demand.

The script of the origin that an agent asks for first travels in any case. All 500 KB of 50 origins took the first page 26 ms,
the gate and the one script take it 15 (measured 2026-11-23).
"""

_logger = logging.getLogger("session_reuse.browsers")
_background: set[asyncio.Future[Any]] = set()
"""What outlives a cancelled exit, or a call that nobody waits for any longer: the loop itself keeps no strong reference."""


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
    """Open a context with the session's state; use it in `async with`, at whose end it is captured and closed.

    Args:
        session: whose state is restored, and which gets what was captured.
        browser: any browser of Playwright; with others than Chromium, storage is read at save time only.
        verify: called with a page of the context when a state was restored; when it returns False or raises, the agent
            starts with a clean context and `session.outcome` is `unverified`. See `session_reuse.browsers.checks`.
        checkpoint_after: seconds after which changes are saved while the agent works; None saves at exit only.
        indexed_db: whether IndexedDB is restored and captured.
        opfs: whether origin private file systems are too; Playwright visits each origin for it.
        credentials: whether WebAuthn credentials are too.
        restore_environment: whether the context gets the recorded user agent, locale, timezone and viewport.
        new_context_options: for `browser.new_context`.

    Raises:
        ConfigurationError: `storage_state` is among the options; the session brings it.
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
    """Bring the session's state into a context that exists, such as a persistent one or one of `connect_over_cdp`.

    Nothing that the context holds is removed. Cookies and storage keys of the state replace those of the same name;
    an origin that is open in a page is filled only if its storage is empty, and what else is stored of it stays stored. At
    the end of the `async with` the context is captured and left open.

    Args:
        session: whose state is restored, and which gets what was captured.
        context: of any browser of Playwright.
        checkpoint_after: seconds after which changes are saved while the agent works; None saves at exit only.
        indexed_db: whether IndexedDB is restored and captured; databases that exist are never touched.
        opfs: whether origin private file systems are captured.
        credentials: whether WebAuthn credentials are captured.
    """
    options = Options(checkpoint_after=checkpoint_after, indexed_db=indexed_db, opfs=opfs, credentials=credentials)
    return BoundContext(session, options, context=context)


class BoundContext(AsyncOnly):
    """A context bound to a session, for `async with`."""

    _opened_by = "open_context"
    _twin = "session_reuse.browsers.playwright_sync"

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
            self._later,
            before_goto,
            _take_out,
            _to_its_end,
            _briefly,
            self._read_before_close,
            _hidden_page,
            SHIPPED_BYTES,
        )
        self._binding: Binding | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._checkpoints: asyncio.Task[None] | None = None
        self._undo: list[Callable[[], None]] = []
        self._capturing = asyncio.Lock()
        self._final: asyncio.Future[Any] | None = None

    async def __aenter__(self) -> BrowserContext:
        """Restore the state and start to follow the context."""
        if self._binding is not None:
            raise LifecycleError("a bound context can be entered once; open another")
        self._session.require_open()
        binding = await self._open()
        if binding.must_verify and not await self._verified(binding):
            binding.start_fresh()
            await self._let_go(binding)
            binding = await self._open()
        self._undo.append(self._session.bind_capture(self._capture))
        self._undo.append(before_close(binding.context, self._finalize))
        if binding.context.browser is not None:
            self._undo.append(before_close(binding.context.browser, self._finalize))
        if self._options.checkpoint_after is not None:
            self._checkpoints = asyncio.create_task(self._checkpoint_regularly(self._options.checkpoint_after))
        context: BrowserContext = binding.context
        return context

    async def _open(self) -> Binding:
        binding = Binding(self._session, self._client, self._options, fresh=self._attached is None)
        self._binding = binding
        attached = self._attached
        steps = binding.open(self._browser, self._given) if attached is None else binding.attach(attached)
        opening = asyncio.create_task(run(steps))
        try:
            await asyncio.shield(opening)
        except BaseException:
            await _is_done(self._undone(opening, binding), COMMAND_LIMIT)
            raise
        return binding

    async def _undone(self, opening: asyncio.Task[None], binding: Binding) -> None:
        """Undo what a cancelled or failed start has begun: the browser would keep what it is asked for already."""
        await asyncio.wait({opening})
        if binding.context is not None:
            await self._let_go(binding)

    async def _verified(self, binding: Binding) -> bool:
        verify = self._options.verify
        try:
            async with asyncio.timeout(VERIFY_LIMIT):
                page = await binding.context.new_page()
                answer = verify(page) if verify else True
                is_good = bool(await answer if inspect.isawaitable(answer) else answer)
                if is_good:
                    await run(binding.close_verified(page))
                return is_good
        except Exception as error:  # noqa: BLE001 - whatever the user's check raises means: not verified
            _logger.debug("verify raised %s", type(error).__name__)
            return False
        except BaseException:
            await _is_done(self._let_go(binding), COMMAND_LIMIT)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Capture, give the session the state, and close the context if it was opened here.

        Whatever is cancelled here, the session has what was seen so far, and the rest is done in the background.
        """
        binding, captured = self._entered(), self._captured_finally()
        await asyncio.shield(_in_background(self._finish(binding, captured)))

    async def _finish(self, binding: Binding, captured: asyncio.Future[Any]) -> None:
        await captured
        await self._let_go(binding)

    async def _let_go(self, binding: Binding) -> None:
        """Close a context of our own, and take what is ours out of another."""
        if self._attached is not None:
            await run(binding.release())
        elif not await _is_done(binding.context.close(), CONTEXT_LIMIT):
            self._session.report("context_left_open", f"the browser did not close it in {CONTEXT_LIMIT:g} s")

    async def _finalize(self) -> None:
        """Capture for the last time before the agent's own `close`; if that is cancelled, our exit waits for it."""
        await asyncio.shield(self._captured_finally())

    def _captured_finally(self) -> asyncio.Future[Any]:
        """Return the last capture, begun by who comes first; the session has what was seen before it at once."""
        if self._final is None:
            self._entered().keep_last_seen()
            self._final = _in_background(self._capture_finally())
        return self._final

    async def _capture_finally(self) -> None:
        if self._checkpoints:
            self._checkpoints.cancel()
        for undo in self._undo:
            undo()
        self._undo.clear()
        try:
            async with asyncio.timeout(CAPTURE_LIMIT):
                self._session.storage_state = await self._capture()
        except (Error, TimeoutError):
            self._entered().keep_last_seen()
            self._session.report(
                "capture_limited", "the browser did not answer in time; the state is the one last seen"
            )
        finally:
            await run(self._entered().end())
            for task in self._tasks - {asyncio.current_task()}:
                task.cancel()

    async def _capture(self) -> StorageState:
        async with self._capturing:
            return await run(self._entered().captured())

    async def _checkpoint_regularly(self, seconds: float) -> None:
        binding = self._entered()
        while not binding.watch.is_gone:
            await asyncio.sleep(seconds)
            async with self._capturing:
                await run(binding.capture.refresh())
            if binding.is_dirty:
                await self._checkpoint(binding)

    async def _checkpoint(self, binding: Binding) -> None:
        try:
            await self._session.checkpoint()
        except LifecycleError:
            self._session.storage_state = await self._capture()  # a session without a store: kept in memory
        except Exception as error:  # noqa: BLE001 - the agent works on; the state is saved at exit
            binding.session.report("checkpoint_failed", type(error).__name__)

    def _entered(self) -> Binding:
        if self._binding is None:
            raise LifecycleError("a bound context is used in `async with`")
        return self._binding

    def _spawn(self, steps: Steps[Any]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._guarded(steps))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _later(self, seconds: float, steps: Callable[[], Steps[Any]]) -> None:
        asyncio.get_running_loop().call_later(seconds, lambda: self._spawn(steps()))

    async def _guarded(self, steps: Steps[Any]) -> None:
        try:
            await run(steps)
        except Exception as error:  # noqa: BLE001 - following a page must never disturb the agent
            self._session.report("capture_limited", f"an event could not be followed: {type(error).__name__}")

    def _read_before_close(self, page: Page, read: Callable[[], Steps[None]]) -> Callable[[], None]:
        async def hook() -> None:
            await asyncio.wait({self._spawn(read())}, timeout=CLOSE_LIMIT)

        return before_close(page, hook)


async def _send(cdp: Any, method: str, params: dict[str, Any]) -> Any:
    async with asyncio.timeout(COMMAND_LIMIT):
        return await cdp.send(method, params)


async def _hidden_page(browser: Any, context_id: str) -> HiddenPage | None:
    return await HiddenPage.open(browser, context_id) if has_hidden_pages(browser.version) else None


async def _take_out(script: Any, tabs: int) -> None:
    """Take an init script out of all tabs.

    A call of Playwright goes from tab to tab, and waits for one that is on its way to a slow site. Another goes past it.
    """
    await _briefly(asyncio.gather(*(script.close() for _ in range(max(1, tabs)))))


def _to_its_end(call: Awaitable[Any], hand_on: Callable[[Any], None]) -> Awaitable[Any]:
    def ended(task: asyncio.Future[Any]) -> None:
        if not task.cancelled() and task.exception() is None:
            hand_on(task.result())

    task = _in_background(call)
    task.add_done_callback(ended)
    return asyncio.shield(task)


async def _briefly(letting_go: Awaitable[Any]) -> None:
    """Wait for something of ours to be let go, though not for long; it may have been gone before."""
    await _is_done(letting_go, COMMAND_LIMIT)


async def _is_done(letting_go: Awaitable[Any], limit: float) -> bool:
    done, _ = await asyncio.wait({_in_background(letting_go)}, timeout=limit)
    return bool(done)


def _in_background(work: Awaitable[Any]) -> asyncio.Future[Any]:
    """Have something done to its end, whoever is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    _background.add(task)
    task.add_done_callback(_retire)
    return task


def _retire(task: asyncio.Future[Any]) -> None:
    _background.discard(task)
    if not task.cancelled():
        task.exception()
