"""`BrowserSession`: what an agent holds between enter and exit.

It keeps the state and the agent's wishes about it. Its backend reads and writes the store. Neither shows a value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from session_reuse._problem import Problem, ProblemKind
from session_reuse._state import document
from session_reuse._state.shapes import Document, StorageState
from session_reuse._state.storage_state import empty_storage_state, to_playwright, validate_storage_state
from session_reuse.errors import InvalidStateError, LifecycleError
from session_reuse.outcome import Outcome, SaveOutcome

if TYPE_CHECKING:
    from playwright.async_api import StorageState as PlaywrightState

Capture = Callable[[], "StorageState | Awaitable[StorageState]"]
Verdict = Callable[["BrowserSession"], "bool | Awaitable[bool]"]


class SessionBackend(Protocol):
    """What reads and writes the store for a session."""

    async def checkpoint(self, session: BrowserSession) -> SaveOutcome:
        """Save now."""

    async def settled(self) -> SaveOutcome | None:
        """Wait until the last save has come to its end."""

    async def invalidate(self, session: BrowserSession, reason: str) -> None:
        """Delete the stored state for everyone."""

    def export(self, session: BrowserSession) -> bytes:
        """Return the stored form."""


class BrowserSession:
    """One agent's session: cookies, storage and notes, and how it came by them.

    Args:
        fingerprint: name of the identity, such as `"shop.example/alice"`.
        agent_id: name of the agent that uses it.
        storage_state: Playwright's storage state or a superset of it; empty if not given.
        data: the agent's own notes, JSON values by name.

    Attributes:
        outcome: what entering found.
        stale: whether it comes from this process's own copy, because the store was away.
        save_outcome: what the last save did; None before the first.
        problems: what could not be restored or captured in full.
        allowed_domains: the hosts whose cookies and storage it holds; None for all.
        was_left: whether the `with` of this session has ended.
        anew: whether state or notes were assigned since the restore, and may say the same as before in another order.
    """

    __slots__ = (
        "__weakref__", "_data", "_storage_state", "agent_id", "allowed_domains", "anew", "capture_reason", "captures", "cooldown", "discarded",
        "fingerprint", "keeper", "outcome", "problems", "save_outcome", "stale", "verdict", "was_left",
    )  # fmt: skip

    def __init__(
        self,
        fingerprint: str,
        agent_id: str | None = None,
        *,
        storage_state: Mapping[str, object] | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self.agent_id = agent_id
        self.outcome = Outcome.MISSING
        self.allowed_domains: tuple[str, ...] | None = None
        self.save_outcome: SaveOutcome | None = None
        self.problems: list[Problem] = []
        self.stale = False
        self.capture_reason: str | None = None
        self.keeper: SessionBackend | None = None
        self.captures: list[Capture] = []
        self.discarded = False
        self.cooldown = 0.0
        self.was_left = False
        self.anew = False
        self.verdict: tuple[bool, str] | None = None
        self._storage_state = empty_storage_state()
        self._data: dict[str, Any] = {}
        if storage_state is not None:
            self.storage_state = storage_state
        if data is not None:
            self.data = data

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
            InvalidStateError: on assigning something that is not a storage state; the old one stays.
        """
        return self._storage_state

    @storage_state.setter
    def storage_state(self, value: Mapping[str, object]) -> None:
        self._storage_state = validate_storage_state(value)
        self.capture_reason = None
        self.anew = True

    def to_playwright(self) -> PlaywrightState:
        """Return the part of the storage state that `new_context(storage_state=...)` of Playwright accepts."""
        return to_playwright(self._storage_state)

    @property
    def data(self) -> dict[str, Any]:
        """The agent's own notes: JSON values by name.

        Raises:
            InvalidStateError: on assigning something else; the old notes stay.
        """
        return self._data

    @data.setter
    def data(self, value: dict[str, Any]) -> None:
        if not isinstance(value, dict):
            raise InvalidStateError(f"data must be a dict, not {type(value).__name__}")
        document.check_json(value, "data")
        self._data = value
        self.anew = True

    def fill(self, found: Document) -> None:
        """Take over a stored document, which was checked when it was opened."""
        self._storage_state, self._data = found["storage_state"], found["data"]
        self.anew = False

    async def checkpoint(self) -> SaveOutcome:
        """Save now and go on. Never raises for trouble of the store."""
        self.require_open()
        return await self._open_keeper().checkpoint(self)

    async def settled(self) -> SaveOutcome | None:
        """Wait until the last save has come to its end, and return what became of it.

        A save that is PENDING is written when the store is back (`saved`, `merged`, `unchanged`), refused (`stale`,
        `skipped`), or given up (`lost`). None before the first save.
        """
        return self.save_outcome if self.keeper is None else await self.keeper.settled()

    def discard(self) -> None:
        """Leave without saving, whatever happens from here on."""
        self.discarded = True

    async def invalidate(self, reason: str = "") -> None:
        """Delete the stored state for everyone, and refuse late saves of all who hold it now.

        Args:
            reason: for the log; at most a sentence, without secrets.

        Raises:
            StoreError: the store could not be told; the stored state may still be there.
        """
        await self._open_keeper().invalidate(self, reason)
        self.discard()

    def mark_good(self) -> None:
        """Say that the login worked: it lowers the error score that all agents share, at the next save."""
        self.verdict = (True, "")

    def mark_bad(self, reason: str = "", *, cooldown: float = 0.0) -> None:
        """Say that the login is broken: this state is not saved, and the shared error score rises at exit.

        Args:
            reason: for the log; at most a sentence, without secrets.
            cooldown: seconds for which its pool does not hand it out.
        """
        self.verdict = (False, reason)
        self.cooldown = cooldown

    @property
    def marked_bad(self) -> bool:
        """Whether the agent has said that the login is broken."""
        return self.verdict is not None and not self.verdict[0]

    def _open_keeper(self) -> SessionBackend:
        if self.keeper is None:
            raise LifecycleError("this session is not open: use it inside `async with reusable_session(...)`")
        return self.keeper

    def require_open(self) -> None:
        """Raise if the session was left: what is opened now would be captured and never saved; for adapters.

        Raises:
            LifecycleError: the `with` of this session has ended.
        """
        if self.was_left:
            raise LifecycleError(f"{self.fingerprint!r} was left before: use it inside `with reusable_session(...)`")

    def bind_capture(self, capture: Capture) -> Callable[[], None]:
        """Have `capture` asked for the current storage state before each save; for adapters.

        Args:
            capture: returns a storage state, or an awaitable of one. When it raises, the stored state stays.

        Returns:
            A function that takes the binding back.

        Raises:
            LifecycleError: the `with` of this session has ended.
        """
        self.require_open()
        self.captures.append(capture)

        def unbind() -> None:
            if capture in self.captures:
                self.captures.remove(capture)

        return unbind

    def capture_failed(self, reason: str) -> None:
        """Say that the state could not be read from the browser, so that the stored one is kept; for adapters."""
        self.capture_reason = reason
        self.report("capture_failed", reason)

    def report(self, kind: ProblemKind | str, where: str, reason: str = "") -> None:
        """Note something that could not be restored or captured in full; for adapters.

        Args:
            kind: one of `ProblemKind`, or its value.
            where: a cookie's name and domain, an origin, a setting. Never a value.
            reason: why, for people.

        Raises:
            ValueError: `kind` is none of them.
        """
        problem = Problem(ProblemKind(kind), where, reason)
        if problem not in self.problems:
            self.problems.append(problem)

    def start_fresh(self, outcome: Outcome) -> None:
        """Drop the restored state and say why; for adapters whose own check did not accept it."""
        self.outcome = outcome
        self._storage_state = empty_storage_state()
        self._data = {}

    def export(self) -> bytes:
        """Return the stored form of this session: what stands in Redis, byte for byte readable by `import_`."""
        from session_reuse._stored_form import exported

        return exported(self) if self.keeper is None else self.keeper.export(self)

    @classmethod
    def import_(cls, data: bytes) -> BrowserSession:
        """Read a stored form, encrypted ones with the keys in `SESSION_REUSE_ENCRYPTION_KEYS`.

        Raises:
            CorruptStateError: damaged, foreign, or not readable with the configured keys.
        """
        from session_reuse._stored_form import imported

        return imported(data)

    def __repr__(self) -> str:
        """Show what it is and how it came, never what is in it."""
        agent = f" agent_id={self.agent_id!r}" if self.agent_id else ""
        cookies, origins = len(self._storage_state["cookies"]), len(self._storage_state["origins"])
        return f"<BrowserSession {self.fingerprint!r}{agent} {self.outcome} cookies={cookies} origins={origins}>"
