"""The same names for synchronous code, safe for many threads at once.

One event loop in the background speaks to the store. Captures and `verify` run in the caller's own thread, as synchronous
Playwright and Selenium demand.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial, update_wrapper
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack
from weakref import ref

from session_reuse._background import background, inside_a_task
from session_reuse._browser_session import BrowserSession as AsyncBrowserSession
from session_reuse._browser_session import Capture, check_raised, is_inherited, require_open
from session_reuse._decorator.persist import persist_session
from session_reuse._default_manager import default_manager
from session_reuse._logins.pool import Pool as AsyncPool
from session_reuse._manager import SessionManager as AsyncSessionManager
from session_reuse._manager import runtime_of
from session_reuse._misuse import BlockingOnly, check_manager, check_names
from session_reuse._session.exit import allows_save
from session_reuse._session.options import SessionOptions, check_options
from session_reuse._session.scope import SessionScope
from session_reuse._store.interface import SessionUse
from session_reuse._store.redis.connect import StoreOrClient
from session_reuse._summaries import ManagerStats, SessionSummary
from session_reuse._telemetry import Event, log
from session_reuse.config import ConfigOptions
from session_reuse.errors import AlreadyEnteredError, StoreError, StoreUnavailableError
from session_reuse.outcome import Outcome, SaveOutcome

__all__ = ["BrowserSession", "SessionManager", "persist_session", "reusable_session"]


class BrowserSession(AsyncBrowserSession):
    """As `session_reuse.BrowserSession`, with methods that block."""

    __slots__ = ("_is_unreachable", "_thread_captures")

    def __init__(
        self,
        fingerprint: str,
        agent_id: str | None = None,
        *,
        storage_state: Mapping[str, object] | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(fingerprint, agent_id, storage_state=storage_state, data=data)
        self._thread_captures: list[Capture] = []
        self._is_unreachable = False

    def checkpoint(self) -> SaveOutcome:  # type: ignore[override]  # the blocking twin
        """Save now and go on. Never raises for trouble of the store."""
        require_open(self)
        self._capture_here()
        return self._lose() if self._is_unreachable else background.run(super().checkpoint())

    def settled(self) -> SaveOutcome | None:  # type: ignore[override]  # the blocking twin
        """Wait for the final outcome of the last save, and return it."""
        return self.save_outcome if self._is_unreachable else background.run(super().settled())

    def _lose(self) -> SaveOutcome:
        """Report that the session cannot be saved: the interpreter is ending."""
        log.error(Event.SAVE_LOST, fingerprint=self.fingerprint, why="the interpreter is ending")
        self.save_outcome = SaveOutcome.LOST
        return SaveOutcome.LOST

    def one_time_code(self) -> str:  # type: ignore[override]  # the blocking twin
        """Return the time-based one-time code of this moment, from the secret that was stored for the session."""
        return background.run(super().one_time_code())

    def invalidate(self, reason: str = "") -> None:  # type: ignore[override]  # the blocking twin
        """Delete the stored state for everyone, and refuse late saves of all who hold it now."""
        background.run(super().invalidate(reason))

    def bind_capture(self, capture: Capture) -> Callable[[], None]:
        """Call `capture` for the current storage state before each save, in the thread that saves."""
        require_open(self)
        self._thread_captures.append(capture)

        def unbind() -> None:
            if capture in self._thread_captures:
                self._thread_captures.remove(capture)

        return unbind

    def _capture_here(self) -> None:
        """Call the adapters for the current state in this thread."""
        for capture in [] if self._wiring.discarded else list(self._thread_captures):
            try:
                state: Any = capture()
                self.storage_state = state
            except BaseException as error:
                self.capture_failed(type(error).__name__)  # so that the stored state stays
                if not isinstance(error, Exception):
                    raise


P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[Any, P], Coroutine[None, None, T]],
) -> Callable[Concatenate[SessionManager | Pool, P], T]:
    """Return the blocking twin of a method of an asynchronous object."""

    def run(self: SessionManager | Pool, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return background.run(method(self._asynchronous, *args, **kwargs))

    update_wrapper(run, method)
    return run


class Pool:
    """As `SessionManager.pool` of `session_reuse`, with methods that block."""

    def __init__(self, asynchronous: AsyncPool) -> None:
        self._asynchronous = asynchronous

    add = _blocking(AsyncPool.add)
    remove = _blocking(AsyncPool.remove)
    members = _blocking(AsyncPool.members)


class SessionManager(BlockingOnly):
    """As `session_reuse.SessionManager`, with methods that block. Arguments as there."""

    def __init__(self, store: StoreOrClient | str | None = None, **config: Unpack[ConfigOptions]) -> None:
        self._asynchronous = AsyncSessionManager(store, **config)
        self._asynchronous.session_class = BrowserSession
        self.config = self._asynchronous.config
        background.managers.add(self._asynchronous)

    def __enter__(self) -> Self:
        """Make ready."""
        background.run(runtime_of(self._asynchronous))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    close = _blocking(AsyncSessionManager.aclose)
    evict = _blocking(AsyncSessionManager.evict)
    affinity = _blocking(AsyncSessionManager.affinity)
    keep_alive = _blocking(AsyncSessionManager.keep_alive)
    cleanup = _blocking(AsyncSessionManager.cleanup)
    cleanup_once = _blocking(AsyncSessionManager.cleanup_once)
    set_totp_secret = _blocking(AsyncSessionManager.set_totp_secret)

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._asynchronous.closed

    def pool(self, name: str) -> Pool:
        """Return a pool of identities, to add, remove and list members."""
        return Pool(self._asynchronous.pool(name))

    def restore(self, fingerprint: str, agent_id: str | None = None) -> BrowserSession | None:
        """Return the stored session, or None: nothing there, nothing usable, or the store is away."""
        session = background.run(self._asynchronous.restore(fingerprint, agent_id))
        assert session is None or isinstance(session, BrowserSession)  # noqa: S101  (the class of the manager's sessions)
        return session

    def save(self, session: AsyncBrowserSession) -> SaveOutcome:
        """Save a session, one from `restore` or one made by hand."""
        if isinstance(session, BrowserSession):
            session._capture_here()
        return background.run(self._asynchronous.save(session))

    def sessions(self, pattern: str = "*", *, cookies: bool = False) -> Iterator[SessionSummary]:
        """Yield a summary of each stored session. With `cookies`, with the expiry of its login cookies."""
        return _each(self._asynchronous.sessions(pattern, cookies=cookies))

    def history(self, fingerprint: str | None = None) -> Iterator[SessionUse]:
        """Yield the uses that the audit holds, the latest first."""
        return _each(self._asynchronous.history(fingerprint))

    def stats(self) -> ManagerStats:
        """Return what this process has done so far."""
        return self._asynchronous.stats()


def _each(listing: AsyncIterator[T]) -> Iterator[T]:
    while (found := background.run(_next_or_none(listing))) is not None:
        yield found


async def _next_or_none(listing: AsyncIterator[T]) -> T | None:
    return await anext(listing, None)


class reusable_session(BlockingOnly):  # noqa: N801  (used like a function)
    """As `session_reuse.reusable_session`, for `with`. `manager` is one of this module's."""

    def __init__(
        self,
        fingerprint: str | None = None,
        agent_id: str | None = None,
        *,
        manager: SessionManager | None = None,
        **options: Unpack[SessionOptions],
    ) -> None:
        check_names(fingerprint, agent_id)
        check_manager(manager, SessionManager)
        check_options(options)
        self._names = (fingerprint, agent_id)
        self._manager = manager
        self._verify_timeout = 0.0
        self._is_strict = bool(options.get("strict"))
        self._verify = options.get("verify")
        if callable(self._verify):
            options["verify"] = _asked_here
        self._options = options
        self._session: BrowserSession | None = None
        self._scope: SessionScope | None = None
        self._reference: ref[object] | None = None
        self._entered = self._is_abandoned = False

    def __enter__(self) -> BrowserSession:
        """Restore. Never takes longer than the restore budget, also when the store hangs."""
        if self._entered:
            raise AlreadyEnteredError("a reusable_session(...) is entered once: make a new one for each `with`")
        self._entered = True
        try:
            session = self._restored()
            if self._scope is not None:
                left_behind = partial(_left_behind, session, self._scope, self._verify is not None)
                self._reference = ref(self, left_behind)
                background.open_sessions.add(self._reference)
            return session  # noqa: TRY300  (an interrupt may come after the line before)
        except BaseException:
            self._abandon()
            raise

    def _restored(self) -> BrowserSession:
        try:
            session = background.run(self._open())
        except StoreUnavailableError as error:
            if self._is_strict:
                raise
            return self._unreachable(error)
        if session.reused and not self._verified(session):
            session.start_fresh(Outcome.UNVERIFIED)
        if self._scope is not None and self._verify is not None:
            with suppress(StoreUnavailableError):  # the interpreter is ending
                background.run(_counted(self._scope))
        return session

    async def _open(self) -> BrowserSession:
        manager = await default_manager() if self._manager is None else self._manager._asynchronous
        manager.session_class = BrowserSession
        self._verify_timeout = manager.config.verify_timeout
        options = replace(manager._resolved(self._options), counted_later=self._verify is not None)
        self._is_strict = options.strict
        session, scope = await manager._open(*self._names, options)
        assert isinstance(session, BrowserSession)  # noqa: S101  (the class asked for)
        await scope.enter()
        self._session, self._scope = session, scope
        if self._is_abandoned:  # by an interrupt that came before the wait for this
            session.discard()
            await self._left(failed=True)
        return session

    def _unreachable(self, error: StoreUnavailableError) -> BrowserSession:
        """Return a session that was restored from nothing and is not saved: the interpreter is ending."""
        fingerprint, agent_id = self._names
        session = BrowserSession(fingerprint or self._options.get("pool") or f"agent/{agent_id}", agent_id)
        session.outcome = Outcome.UNAVAILABLE
        session._is_unreachable = True
        self._session = session
        log.warning(Event.DEGRADED, operation="restore", fingerprint=session.fingerprint, error=str(error))
        return session

    def _abandon(self) -> None:
        """Close without saving: the session is not used."""
        self._forget()
        self._is_abandoned = True
        if self._session is not None and self._scope is not None:
            self._session.discard()
            background.run(self._left(failed=True))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Save. The body's own error always comes out."""
        try:
            self._exit(failed=error is not None)
        except BaseException:
            self._forget()
            if self._scope is not None and self._session is not None:  # an interrupt came before the save was begun
                self._leave(self._session, failed=True)
            raise

    def _forget(self) -> None:
        """Note that `__exit__` has been called, or never will be."""
        if self._reference is not None:
            background.open_sessions.discard(self._reference)
            self._reference = None  # else it would still call

    def _exit(self, *, failed: bool) -> None:
        self._forget()
        session, kept = self._session, self._verify is None
        if session is None:
            return
        if self._scope is not None and is_inherited(self._scope):  # nor is the browser captured, or `verify` called
            background.run(self._left(failed=failed))
            return
        if failed and not self._options.get("save_on_error", True):
            session.discard()
        try:
            session._capture_here()
            kept = allows_save(session._wiring, session.outcome) and self._verified(session, at_exit=True)
        finally:  # also when Ctrl-C interrupts the capture: what can be saved is saved, and the lease is released
            if not kept:
                session.discard()
            self._leave(session, failed=failed)

    def _leave(self, session: BrowserSession, *, failed: bool) -> None:
        if self._scope is None:
            session._lose()
            return
        if inside_a_task() or background.is_here():
            # The garbage collector closes a generator with a `with` in any thread. A wait would hold up the loop, or never end.
            background.start(self._left(failed=failed))
            return
        try:
            background.run(self._left(failed=failed))
        except StoreError:
            if not self._is_strict:  # the store was not asked: the interpreter is ending
                session._lose()
            elif not failed:
                raise

    async def _left(self, *, failed: bool) -> None:
        """Leave, once: an interrupt does not show whether the first request for it came through."""
        scope, self._scope = self._scope, None
        if scope is not None:
            await scope.leave(failed=failed)

    def _verified(self, session: BrowserSession, *, at_exit: bool = False) -> bool:
        if self._verify is None:
            return True
        if self._scope is None:  # nothing of it was restored, and nothing is saved
            return False
        try:
            verdict = self._verify(session)
            if inspect.isawaitable(verdict):
                verdict = background.run(_awaited(verdict, self._verify_timeout))
            return bool(verdict)
        except Exception as error:  # noqa: BLE001  (by contract: raising means not verified)
            return check_raised(session, error) and not at_exit


def _left_behind(session: BrowserSession, scope: SessionScope, is_checked: bool, reference: ref[object]) -> None:
    """Leave a session whose `__exit__` an interrupt has met before its first line, where nothing can catch it.

    A weak reference calls this. `__del__` would be called at each exit, and an interrupt that meets it there is lost.
    """
    background.open_sessions.discard(reference)
    if is_checked:  # nobody vouches for the login
        session.discard()
    if not (is_inherited(scope) or sys.is_finalizing()):
        background.start(scope.leave(failed=True))


def _asked_here(_session: AsyncBrowserSession) -> bool:
    """Accept: the hook itself is called in the caller's thread. A login that it has accepted is vouched for."""
    return True


async def _counted(scope: SessionScope) -> None:
    scope.count()


async def _awaited(verdict: Awaitable[T], limit: float) -> T:
    async with asyncio.timeout(limit):
        return await verdict
