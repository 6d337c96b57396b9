"""The same names for synchronous code, over one background event loop. Must never run a caller's code on that loop.

Captures and `verify` run in the caller's own thread, as synchronous Playwright and Selenium demand; only the store is
spoken to from the background loop. Safe to use from many threads at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from session_reuse._decorator import persist_session
from session_reuse._misuse import BlockingOnly, check_manager, check_names
from session_reuse.default_manager import default_manager
from session_reuse.errors import AlreadyEnteredError, InvalidStateError, LifecycleError, StoreError
from session_reuse.lifecycle.options import OnBusy, Seconds, VisitOptions
from session_reuse.lifecycle.visit import Visit
from session_reuse.manager import SessionManager as AsyncSessionManager
from session_reuse.outcome import Outcome, SaveOutcome
from session_reuse.session import BrowserSession as AsyncBrowserSession
from session_reuse.session import Capture, Verdict
from session_reuse.summaries import ManagerStats, SessionSummary

T = TypeVar("T")

__all__ = ["BrowserSession", "SessionManager", "persist_session", "reusable_session"]


class _BackgroundLoop:
    """One event loop in a daemon thread, started when first used and anew after a fork."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work on the loop and wait for it here.

        An interrupt of the wait cancels the work, as it would in asynchronous code.
        """
        if inside_a_task():
            work.close()
            raise LifecycleError("inside a running event loop: use session_reuse, not session_reuse.blocking")
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                concurrent.futures.wait([future], timeout=1.0)
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._guard:
            if self._loop is None or self._process != os.getpid():
                self._loop, self._process = asyncio.new_event_loop(), os.getpid()
                threading.Thread(target=self._loop.run_forever, name="session_reuse", daemon=True).start()
                threading._register_atexit(self._end)  # type: ignore[attr-defined]  # noqa: SLF001  (before pools close)
            return self._loop

    def _end(self) -> None:
        """Close the default manager while threads can still be started: waiting saves get their last chance."""
        loop = self._loop
        if loop is not None and self._process == os.getpid() and loop.is_running():
            asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result(timeout=10)
            loop.call_soon_threadsafe(loop.stop)


def inside_a_task() -> bool:
    """Return whether this is a coroutine; synchronous Playwright runs a loop in this thread, but no task of it."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


_background = _BackgroundLoop()


class BrowserSession(AsyncBrowserSession):
    """As `session_reuse.BrowserSession`, with methods that block."""

    __slots__ = ("thread_captures",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.thread_captures: list[Capture] = []

    def checkpoint(self) -> SaveOutcome:  # type: ignore[override]  # the blocking twin
        """Save now and go on. Never raises for trouble of the store."""
        self.capture_here()
        return _background.run(super().checkpoint())

    def invalidate(self, reason: str = "") -> None:  # type: ignore[override]  # the blocking twin
        """Delete the stored state for everyone, and refuse late saves of all who hold it now."""
        _background.run(super().invalidate(reason))

    def bind_capture(self, capture: Capture) -> Callable[[], None]:
        """Have `capture` asked for the current storage state before each save, in the thread that saves."""
        self.thread_captures.append(capture)

        def unbind() -> None:
            if capture in self.thread_captures:
                self.thread_captures.remove(capture)

        return unbind

    def capture_here(self) -> None:
        """Ask the adapters for the current state in this thread."""
        for capture in [] if self.discarded else list(self.thread_captures):
            try:
                state: Any = capture()
                self.storage_state = state
            except Exception as error:  # noqa: BLE001  (whatever an adapter raises, the stored state must stay)
                self.capture_failed(type(error).__name__)


class SessionManager(BlockingOnly):
    """As `session_reuse.SessionManager`, with methods that block; arguments as there."""

    def __init__(self, url_or_client: Any = None, **config: Any) -> None:
        self.asynchronous = AsyncSessionManager(url_or_client, **config)

    def __enter__(self) -> Self:
        """Make ready."""
        _background.run(self.asynchronous.services())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Bring waiting saves through within `close_timeout`, and close what is ours."""
        _background.run(self.asynchronous.aclose())

    def restore(self, fingerprint: str, agent_id: str | None = None) -> BrowserSession | None:
        """Return the stored session, or None: nothing there, nothing usable, or the store is away."""
        options = VisitOptions.build(self.asynchronous.config)
        session, _ = _background.run(self.asynchronous.open(fingerprint, agent_id, options, BrowserSession))
        return session if session.reused else None  # type: ignore[return-value]  # of the class asked for

    def save(self, session: AsyncBrowserSession) -> SaveOutcome:
        """Save a session, one from `restore` or one made by hand."""
        if isinstance(session, BrowserSession):
            session.capture_here()
        return _background.run(self.asynchronous.save(session))

    def evict(self, fingerprint: str, reason: str = "") -> bool:
        """Delete a stored session for everyone; return whether there was one."""
        return _background.run(self.asynchronous.evict(fingerprint, reason))

    def affinity(self, agent_id: str) -> str | None:
        """Return the fingerprint that this agent used last."""
        return _background.run(self.asynchronous.affinity(agent_id))

    def sessions(self) -> Iterator[SessionSummary]:
        """Yield a summary of each stored session."""
        listing = self.asynchronous.sessions()
        while (summary := _background.run(_next_or_none(listing))) is not None:
            yield summary

    def stats(self) -> ManagerStats:
        """Return what this process has done so far."""
        return self.asynchronous.stats()


async def _next_or_none(listing: Any) -> SessionSummary | None:
    found: SessionSummary | None = await anext(listing, None)
    return found


class reusable_session(BlockingOnly):  # noqa: N801  (used like a function)
    """As `session_reuse.reusable_session`, for `with`; `manager` is one of this module's."""

    def __init__(
        self,
        fingerprint: str | None = None,
        agent_id: str | None = None,
        *,
        manager: SessionManager | None = None,
        exclusive: bool = False,
        wait: Seconds = 0.0,
        on_busy: OnBusy = "fresh",
        verify: Verdict | None = None,
        save_on_error: bool = True,
        max_age: Seconds | None = None,
        max_uses: int | None = None,
        strict: bool = False,
    ) -> None:
        check_names(fingerprint, agent_id)
        check_manager(manager, SessionManager)
        self._names = (fingerprint, agent_id)
        self._manager = manager
        self._verify = verify
        self._options: dict[str, Any] = {
            "exclusive": exclusive, "wait": wait, "on_busy": on_busy, "save_on_error": save_on_error,
            "max_age": max_age, "max_uses": max_uses, "strict": strict,
        }  # fmt: skip
        self._session: BrowserSession | None = None
        self._visit: Visit | None = None
        self._entered = False

    def __enter__(self) -> BrowserSession:
        """Restore; never takes longer than the restore budget, whatever the store does."""
        if self._entered:
            raise AlreadyEnteredError("a reusable_session(...) is entered once: make a new one for each `with`")
        session = _background.run(self._open())
        self._entered = True
        self._session = session
        if session.reused and not self._verified(session):
            session.start_fresh(Outcome.UNVERIFIED)
        return session

    async def _open(self) -> BrowserSession:
        manager = await default_manager() if self._manager is None else self._manager.asynchronous
        options = VisitOptions.build(manager.config, **self._options)
        session, self._visit = await manager.open(*self._names, options, BrowserSession)
        assert isinstance(session, BrowserSession)  # noqa: S101  (the class asked for)
        return session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Save; the body's own error always comes out."""
        session, visit = self._session, self._visit
        if session is None or visit is None:
            return
        session.capture_here()
        if not self._verified(session):
            session.discard()
        try:
            _background.run(visit.leave(failed=error is not None))
        except (InvalidStateError, StoreError):
            if error is None:
                raise

    def _verified(self, session: BrowserSession) -> bool:
        if self._verify is None:
            return True
        try:
            verdict = self._verify(session)
            return bool(_background.run(_awaited(verdict)) if inspect.isawaitable(verdict) else verdict)
        except Exception as error:  # noqa: BLE001  (by contract: raising means not verified)
            session.report("verify_failed", type(error).__name__)
            return False


async def _awaited(verdict: Any) -> Any:
    return await verdict
