"""`BrowserSession`: what an agent holds between enter and exit.

It keeps the state and the agent's wishes about it. Its backend reads and writes the store. Neither shows a value.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from session_reuse._misuse import type_of
from session_reuse._problem import Problem, ProblemKind
from session_reuse._settings.values import Seconds, seconds
from session_reuse._state import document
from session_reuse._state.shapes import Document, StorageState
from session_reuse._state.storage_state import empty_storage_state, to_playwright, validate_storage_state
from session_reuse._state.trim import trim
from session_reuse.errors import AdapterError, ConfigurationError, InvalidStateError, LifecycleError
from session_reuse.outcome import Outcome, SaveOutcome

if TYPE_CHECKING:
    from playwright.async_api import StorageState as PlaywrightState

_LONGEST_COOLDOWN = 10 * 365 * 86400.0
_LONGEST_REPORT = 500
Capture = Callable[[], "StorageState | Awaitable[StorageState]"]
Verdict = Callable[["BrowserSession"], "bool | Awaitable[bool]"]


class SessionBackend(Protocol):
    """What reads and writes the store for a session.

    Attributes:
        process: the process that it works in.
        loop: the event loop that it works in.
    """

    process: int
    loop: asyncio.AbstractEventLoop

    async def checkpoint(self, session: BrowserSession) -> SaveOutcome:
        """Save now."""

    async def settled(self) -> SaveOutcome | None:
        """Wait for the final outcome of the last save."""

    async def invalidate(self, reason: str) -> None:
        """Delete the stored state for everyone."""

    async def one_time_code(self) -> str:
        """Return the one-time code of this moment."""

    def export(self, session: BrowserSession) -> bytes:
        """Return the stored form."""


@dataclass(slots=True)
class Wiring:
    """What ties a session to its manager and its browser.

    Attributes:
        backend: reads and writes the store; None before the session is entered.
        captures: functions that return the state of the browser.
        captured: the storage state that an adapter has assigned last, compared by identity.
        reported: the problems that were reported.
        capture_reason: why the browser could not be read; None when it was.
        discarded: whether nothing is saved any more.
        was_left: whether the `with` of the session has ended.
        maybe_reordered: whether state or notes were assigned since the restore, perhaps the same in another order.
        health_mark: whether the login works, and why, until that is counted.
        cooldown: seconds for which its pool does not hand it out.
        max_bytes: of the document as JSON that its manager stores.
    """

    backend: SessionBackend | None = None
    captures: list[Capture] = field(default_factory=list)
    captured: StorageState | None = None
    reported: set[Problem] = field(default_factory=set)
    capture_reason: str | None = None
    discarded: bool = False
    was_left: bool = False
    maybe_reordered: bool = False
    health_mark: tuple[bool, str] | None = None
    cooldown: float = 0.0
    max_bytes: int = 8 * 1024 * 1024

    @property
    def marked_bad(self) -> bool:
        """Whether the agent has marked the login as broken."""
        return self.health_mark is not None and not self.health_mark[0]


def wiring_of(session: BrowserSession) -> Wiring:
    """Return the wiring of a session: for this package, and for tests."""
    return session._wiring  # noqa: SLF001  (the one way to it)


def fill(session: BrowserSession, found: Document) -> None:
    """Take over a stored document, which was checked when it was opened."""
    session._storage_state, session._data = found["storage_state"], found["data"]  # noqa: SLF001
    wiring_of(session).maybe_reordered = False


def assign_captured(session: BrowserSession, state: StorageState, stored: StorageState) -> StorageState:
    """Assign and return what an adapter has captured. Another one that captures later merges its own state with it.

    Args:
        session: of the adapter.
        state: what it has captured, with entries of its own. The largest values are removed if it is too large to be saved.
        stored: what was restored.
    """
    wiring = wiring_of(session)
    notes = 0
    with suppress(InvalidStateError):  # the save raises it
        notes = len(document.dump(session.data).data)
    # Notes that fill the limit on their own are no fault of a site.
    room = max(wiring.max_bytes - notes - 1024, wiring.max_bytes // 8)
    for where in trim(state, stored, min(room, wiring.max_bytes * 7 // 8)):
        session.report(ProblemKind.TOO_LARGE, where, "the largest values were left out")
    session.storage_state = wiring.captured = state
    return state


def report_not_opened(session: BrowserSession, given: StorageState, reason: str) -> None:
    """Report a browser of which nothing was seen, so that its exit does not store an empty session.

    A state that an earlier browser, or the agent, has assigned before is saved all the same.

    Args:
        session: of the browser.
        given: its storage state at the beginning of the failed start, compared by identity.
        reason: why.
    """
    if session.storage_state is not given or not wiring_of(session).maybe_reordered:
        session.capture_failed(reason)


def check_raised(session: BrowserSession, error: BaseException) -> bool:
    """Report that a check of a restored login has raised. Return whether it could not tell, so that the login stays."""
    is_unclear = isinstance(error, AdapterError)
    session.report(ProblemKind.VERIFY_FAILED, type(error).__name__, str(error) if is_unclear else "")
    return is_unclear


def is_inherited(backend: SessionBackend) -> bool:
    """Return whether this is a forked child: the connections, the lease and the browser belong to its parent."""
    return backend.process != os.getpid()


def backend_of(session: BrowserSession) -> SessionBackend | None:
    """Return what reads and writes the store for a session, None for one that was not entered.

    Raises:
        ConfigurationError: the argument is no session.
    """
    if not isinstance(session, BrowserSession):
        raise ConfigurationError(
            f"save() takes a BrowserSession, not {type_of(session)}: the one of restore(...),"
            " BrowserSession(fingerprint, storage_state=...), or for stored bytes BrowserSession.import_(...)"
        )
    return wiring_of(session).backend


def require_open(session: BrowserSession) -> None:
    """Raise if the session was left: a browser opened now would be captured and never saved. For adapters.

    Raises:
        ConfigurationError: the argument is no session.
        LifecycleError: the `with` of this session has ended, or this is a child that was forked inside it.
    """
    if not isinstance(session, BrowserSession):
        raise ConfigurationError(f"the first argument must be the session of reusable_session, not {type_of(session)}")
    wiring = wiring_of(session)
    if wiring.backend is not None:
        session._open_backend()  # noqa: SLF001  (of this module)
    if wiring.was_left:
        raise LifecycleError(f"{session.fingerprint!r} was left before: use it inside `with reusable_session(...)`")


class BrowserSession:
    """One agent's session: cookies, storage and notes, and how it came by them.

    Args:
        fingerprint: name of the login, such as `"shop.example/alice"`.
        agent_id: name of the agent that uses it.
        storage_state: Playwright's storage state or a superset of it. Empty if not given.
        data: the agent's own notes, JSON values by name.

    Attributes:
        outcome: what entering found.
        stale: whether it comes from this process's own copy, because the store was away.
        save_outcome: what the last save did; None before the first.
        problems: what could not be restored or captured in full.
        allowed_domains: the hosts whose cookies and storage it holds; None for all.
    """

    __slots__ = (
        "__weakref__", "_data", "_fingerprint", "_storage_state", "_wiring", "agent_id", "allowed_domains", "outcome", "problems",
        "save_outcome", "stale",
    )  # fmt: skip

    def __init__(
        self,
        fingerprint: str,
        agent_id: str | None = None,
        *,
        storage_state: Mapping[str, object] | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        self._fingerprint = fingerprint
        self.agent_id = agent_id
        self.outcome = Outcome.MISSING
        self.allowed_domains: tuple[str, ...] | None = None
        self.save_outcome: SaveOutcome | None = None
        self.problems: list[Problem] = []
        self.stale = False
        self._wiring = Wiring()
        self._storage_state = empty_storage_state()
        self._data: dict[str, Any] = {}
        if storage_state is not None:
            self.storage_state = storage_state
        if data is not None:
            self.data = data

    def __getstate__(self) -> object:
        """Return what is copied or pickled: of a session that was not entered, and without its clients.

        Raises:
            TypeError: the session was entered. Its copy would be saved in its place.
        """
        wiring = self._wiring
        if wiring.backend is not None:
            remedy = "pass session.export(), and read it with BrowserSession.import_(...)"
            raise TypeError(f"{self.fingerprint!r} was entered, and cannot be copied or pickled: {remedy}")
        _, slots = cast("tuple[None, dict[str, object]]", super().__getstate__())
        return None, {**slots, "_wiring": replace(wiring, captures=[])}

    @property
    def fingerprint(self) -> str:
        """Name of the login. It is that of the enter to the end: under another name, two logins would be mixed."""
        return self._fingerprint

    @property
    def reused(self) -> bool:
        """True when a stored state was restored."""
        return self.outcome is Outcome.REUSED

    @property
    def degraded(self) -> bool:
        """True when the store, not the data, is the reason for a fresh session."""
        return self.outcome.degraded

    @property
    def storage_state(self) -> StorageState:
        """Cookies and origins: Playwright's storage state and more. Change it in place or assign a new one.

        Raises:
            InvalidStateError: on assigning something that is not a storage state. The old one stays.
        """
        return self._storage_state

    @storage_state.setter
    def storage_state(self, value: Mapping[str, object]) -> None:
        self._storage_state = validate_storage_state(value)
        self._wiring.capture_reason = None
        self._wiring.maybe_reordered = True

    def to_playwright(self) -> PlaywrightState:
        """Return the part of the storage state that `new_context(storage_state=...)` of Playwright accepts."""
        return to_playwright(self._storage_state)

    @property
    def data(self) -> dict[str, Any]:
        """The agent's own notes: JSON values by name.

        Raises:
            InvalidStateError: on assigning something else. The old notes stay.
        """
        return self._data

    @data.setter
    def data(self, value: dict[str, Any]) -> None:
        if not isinstance(value, dict):
            raise InvalidStateError(f"data must be a dict, not {type(value).__name__}")
        document.check_json(value, "data")
        self._data = value
        self._wiring.maybe_reordered = True

    async def checkpoint(self) -> SaveOutcome:
        """Save now and go on. Never raises for trouble of the store."""
        require_open(self)
        return await self._backend_here().checkpoint(self)

    async def settled(self) -> SaveOutcome | None:
        """Wait for the final outcome of the last save, and return it.

        A save that is PENDING is written when the store is back (`saved`, `merged`, `unchanged`), refused (`stale`,
        `skipped`), or given up (`lost`). None before the first save.
        """
        backend = self._wiring.backend
        return self.save_outcome if backend is None or is_inherited(backend) else await self._backend_here().settled()

    def discard(self) -> None:
        """Save nothing from now on, also at exit."""
        self._wiring.discarded = True

    async def invalidate(self, reason: str = "") -> None:
        """Delete the stored state for everyone, and refuse late saves of all who hold it now.

        Args:
            reason: for the log. At most a sentence, without secrets.

        Raises:
            StoreError: the store did not answer. The stored state may still be there.
        """
        await self._backend_here().invalidate(reason)
        self.discard()

    async def one_time_code(self) -> str:
        """Return the time-based one-time code of this moment, from the secret that `session-reuse totp set` has stored.

        The clock of the server counts. A code that ends within 3 seconds is waited out.

        Raises:
            ConfigurationError: no secret or no `encryption_keys`, or the session was entered with `save="never"`.
            MissingExtraError: the extra `totp` is not installed.
            CorruptStateError: the stored secret cannot be opened with the configured keys.
            StoreError: the store is away.
        """
        require_open(self)
        return await self._backend_here().one_time_code()

    def mark_good(self) -> None:
        """Mark the login as working: the next save lowers the error score that all agents share.

        Raises:
            LifecycleError: the `with` of this session has ended.
        """
        require_open(self)
        self._wiring.health_mark = (True, "")
        self._wiring.cooldown = 0.0

    def mark_bad(self, reason: str = "", *, cooldown: Seconds = 0.0) -> None:
        """Mark the login as broken: this state is not saved, and the shared error score rises at exit.

        Args:
            reason: for the log. At most a sentence, without secrets.
            cooldown: how long its pool does not hand it out, in seconds or as a timedelta. Ten years at most. Without effect on a
                session that was entered by its fingerprint.

        Raises:
            ConfigurationError: `cooldown` is not a duration.
            LifecycleError: the `with` of this session has ended.
        """
        require_open(self)
        pause = seconds("cooldown", cooldown, may_be_zero=True, most=math.inf)
        self._wiring.health_mark = (False, reason)
        self._wiring.cooldown = min(pause, _LONGEST_COOLDOWN)

    def _open_backend(self) -> SessionBackend:
        backend = self._wiring.backend
        if backend is None:
            raise LifecycleError("this session is not open: use it inside `async with reusable_session(...)`")
        if is_inherited(backend):
            raise LifecycleError(f"{self.fingerprint!r} was entered in the parent process: enter it again in this one")
        return backend

    def _backend_here(self) -> SessionBackend:
        """Return the backend, for what waits in its event loop: in another one, the wait would not end."""
        backend = self._open_backend()
        if backend.loop is not asyncio.get_running_loop() and not backend.loop.is_closed():
            raise LifecycleError(f"{self.fingerprint!r} was entered in another event loop: await this in that one")
        return backend

    def bind_capture(self, capture: Capture) -> Callable[[], None]:
        """Call `capture` for the current storage state before each save. For adapters.

        Args:
            capture: returns a storage state, or an awaitable of one. When it raises, the stored state stays.

        Returns:
            A function that takes the binding back.

        Raises:
            LifecycleError: the `with` of this session has ended.
        """
        require_open(self)
        self._wiring.captures.append(capture)

        def unbind() -> None:
            if capture in self._wiring.captures:
                self._wiring.captures.remove(capture)

        return unbind

    def capture_failed(self, reason: str) -> None:
        """Report that the state could not be read from the browser, so that the stored one is kept. For adapters."""
        self._wiring.capture_reason = reason
        self.report(ProblemKind.CAPTURE_FAILED, reason)

    def report(self, kind: ProblemKind | str, where: str, reason: str = "") -> None:
        """Note something that could not be restored or captured in full. For adapters.

        Args:
            kind: one of `ProblemKind`, or its value.
            where: a cookie's name and domain, an origin, a setting. Never a value.
            reason: why, for people.

        Raises:
            ValueError: `kind` is none of them.
        """
        # A site chooses the names of what it stores.
        problem = Problem(ProblemKind(kind), where[:_LONGEST_REPORT], reason[:_LONGEST_REPORT])
        if problem not in self._wiring.reported:
            self._wiring.reported.add(problem)
            self.problems.append(problem)

    def start_fresh(self, outcome: Outcome) -> None:
        """Drop the restored state and say why. For adapters whose own check did not accept it."""
        self.outcome = outcome
        self._storage_state = empty_storage_state()
        self._data = {}

    def export(self) -> bytes:
        """Return the stored form of this session: what stands in Redis, byte for byte readable by `import_`."""
        from session_reuse._stored_form import encode_session

        return encode_session(self) if self._wiring.backend is None else self._wiring.backend.export(self)

    @classmethod
    def import_(cls, data: bytes) -> Self:
        """Read a stored form, encrypted ones with the keys in `SESSION_REUSE_ENCRYPTION_KEYS`.

        Raises:
            CorruptStateError: damaged, foreign, or not readable with the configured keys.
        """
        from session_reuse._stored_form import decode_session

        return decode_session(cls, data)

    def __repr__(self) -> str:
        """Show its names, outcome and sizes, never a value."""
        agent = f" agent_id={self.agent_id!r}" if self.agent_id else ""
        cookies, origins = len(self._storage_state["cookies"]), len(self._storage_state["origins"])
        return f"<BrowserSession {self.fingerprint!r}{agent} {self.outcome} cookies={cookies} origins={origins}>"
