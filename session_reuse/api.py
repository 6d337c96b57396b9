"""The whole SDK for most users: enter -> restore -> body -> save -> exit. Must fit on one screen and stay that way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from session_reuse.default_manager import default_manager
from session_reuse.errors import AlreadyEnteredError, InvalidStateError, StoreError
from session_reuse.lifecycle.options import OnBusy, Seconds, VisitOptions
from session_reuse.lifecycle.visit import Visit
from session_reuse.manager import SessionManager
from session_reuse.naming import Name, NameFrom, session_parameter
from session_reuse.session import BrowserSession, Verdict

P = ParamSpec("P")
T = TypeVar("T")


class reusable_session:  # noqa: N801  (used like a function)
    """Restore a browser session on entry and save it on exit.

    Args:
        fingerprint: name of the identity, 1 to 512 bytes; None for the one this agent used last.
        agent_id: name of the agent, for the affinity.
        manager: where to keep it; the event loop's own, made from the environment, if not given.
        exclusive: let no other exclusive agent use the session meanwhile.
        wait: seconds to wait for a busy exclusive session.
        on_busy: `"fresh"` starts fresh and does not save, `"raise"` raises `SessionBusyError`.
        verify: function of the session, plain or async: whether the restored login still works. Asked again before
            the final save; a state that does not pass is not stored.
        save_on_error: whether to save when the body raised or was cancelled.
        max_age: retire a session this many seconds after its first save.
        max_uses: retire a session after so many reuses.
        strict: raise trouble of the store instead of starting fresh.

    Raises:
        InvalidFingerprintError: fingerprint or agent_id is empty, too long, or not a string.
        AlreadyEnteredError: the object was entered before.
    """

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
        self._names = (fingerprint, agent_id)
        self._manager = manager
        self._options: dict[str, Any] = {
            "exclusive": exclusive, "wait": wait, "on_busy": on_busy, "verify": verify,
            "save_on_error": save_on_error, "max_age": max_age, "max_uses": max_uses, "strict": strict,
        }  # fmt: skip
        self._visit: Visit | None = None
        self._entered = False

    async def __aenter__(self) -> BrowserSession:
        """Restore; never takes longer than the restore budget, whatever the store does."""
        if self._entered:
            raise AlreadyEnteredError("a reusable_session(...) is entered once: make a new one for each `async with`")
        self._entered = True
        manager = self._manager if self._manager is not None else await default_manager()
        options = VisitOptions.build(manager.config, **self._options)
        session, self._visit = await manager.open(*self._names, options)
        return session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Save: a cancelled body is saved too, and the body's own error always comes out."""
        visit, self._visit = self._visit, None
        if visit is None:
            return
        try:
            await visit.leave(failed=error is not None)
        except (InvalidStateError, StoreError):
            if error is None:
                raise


Function = Callable[P, T]


class persist_session:  # noqa: N801  (used like a function)
    """Run a function inside a `reusable_session`; options as there.

    Args:
        fingerprint: a template over the function's arguments, such as `"shop.example/{account}"`, or a function of
            the same arguments; None for the agent's last one.
        agent_id: likewise.

    The session is passed in the parameter annotated `BrowserSession`, or named `session`, if there is one; give it a
    default such as None if type checkers are to accept calls without it. Works on coroutine functions, on plain
    functions (through `session_reuse.blocking`) and on methods.
    """

    def __init__(
        self,
        fingerprint: Name = None,
        agent_id: Name = None,
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
        self._names = (fingerprint, agent_id)
        self._options: dict[str, Any] = {
            "manager": manager, "exclusive": exclusive, "wait": wait, "on_busy": on_busy, "verify": verify,
            "save_on_error": save_on_error, "max_age": max_age, "max_uses": max_uses, "strict": strict,
        }  # fmt: skip

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, function: Callable[P, T]) -> Callable[P, T]: ...
    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the function."""
        parameter = session_parameter(function)
        fingerprint, agent_id = (NameFrom(name, function, parameter) for name in self._names)
        if not inspect.iscoroutinefunction(function):
            from session_reuse.blocking import wrapped

            return wrapped(function, parameter, fingerprint, agent_id, self._options)

        @wraps(function)
        async def persisted(*args: Any, **kwargs: Any) -> Any:
            names = fingerprint(args, kwargs), agent_id(args, kwargs)
            async with reusable_session(*names, **self._options) as session:
                return await function(*args, **(kwargs if parameter is None else {**kwargs, parameter: session}))

        return persisted
