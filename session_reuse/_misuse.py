"""Errors with a remedy for mistakes that Python reports without one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from functools import wraps
from typing import TYPE_CHECKING, ClassVar, NoReturn, ParamSpec, TypeVar

from session_reuse._settings.url import SCHEMES
from session_reuse.errors import ConfigurationError, LifecycleError

P = ParamSpec("P")
T = TypeVar("T")


class AsyncOnly:
    """Base of asynchronous context managers: `with` and `await` raise an error that names `async with`."""

    _twin: ClassVar[str] = "session_reuse.blocking"

    if not TYPE_CHECKING:  # a type checker has to go on reporting `with` and `await` as errors

        def __enter__(self) -> NoReturn:
            name = _name(self)
            raise LifecycleError(f"write `async with {name}(...)`. Synchronous code uses {self._twin}.{name}")

        def __exit__(self, *_: object) -> None: ...

        def __await__(self) -> NoReturn:
            name = _name(self)
            raise LifecycleError(f"write `async with {name}(...)`, not `await {name}(...)`")


class BlockingOnly:
    """Base of synchronous context managers: `async with` raises an error that names `with`."""

    _twin: ClassVar[str] = "session_reuse"

    if not TYPE_CHECKING:

        async def __aenter__(self) -> NoReturn:
            name = _name(self)
            raise LifecycleError(f"write `with {name}(...)`. Asynchronous code uses {self._twin}.{name}")

        async def __aexit__(self, *_: object) -> None: ...


def _name(manager: object) -> str:
    return getattr(manager, "_opened_by", type(manager).__name__)


class _AsyncContext(contextlib._AsyncGeneratorContextManager[T], AsyncOnly):  # noqa: SLF001  (no public base is there)
    _opened_by: str

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            raise LifecycleError(f"write `async with {self._opened_by}(...)`")


def asynccontextmanager(
    function: Callable[P, AsyncIterator[T]],
) -> Callable[P, contextlib.AbstractAsyncContextManager[T]]:
    """Return what `contextlib.asynccontextmanager` returns, with the errors of `AsyncOnly`."""

    @wraps(function)
    def opened(*args: P.args, **kwargs: P.kwargs) -> contextlib.AbstractAsyncContextManager[T]:
        context: _AsyncContext[T] = _AsyncContext(function, args, kwargs)  # type: ignore[arg-type]
        context._opened_by = function.__name__  # noqa: SLF001  (made here)
        return context

    return opened


def check_manager(manager: object, kind: type | None = None) -> None:
    """Raise unless an argument is a manager.

    Args:
        manager: the argument `manager=`.
        kind: the class that it must have. None accepts the asynchronous and the blocking class.

    Raises:
        ConfigurationError: it is something else. The message names the expected class.
    """
    if manager is None or (kind is not None and isinstance(manager, kind)):
        return
    if kind is None and hasattr(manager, "restore") and not isinstance(manager, type):
        return
    module = kind.__module__.removesuffix("._manager") if kind is not None else "session_reuse"
    given = f"the class {manager.__qualname__}" if isinstance(manager, type) else type_of(manager)
    hint = ": write manager=SessionManager(url)" if isinstance(manager, str) else ""
    raise ConfigurationError(f"manager= takes a {module}.SessionManager object, not {given}{hint}")


def check_names(fingerprint: object, agent_id: object) -> None:
    """Raise for a manager, a client or the URL of a store in the place of a name.

    Raises:
        ConfigurationError: one of them is.
    """
    for name, given in (("fingerprint", fingerprint), ("agent_id", agent_id)):
        if isinstance(given, str):
            shown = "the URL of a store" if "://" in given and given.partition("://")[0] in SCHEMES else ""
        else:
            shown = f"a {type_of(given)}" if hasattr(given, "restore") or hasattr(given, "connection_pool") else ""
        if shown:
            raise ConfigurationError(
                f"{name} is {shown}: write reusable_session(fingerprint, agent_id, manager=SessionManager(...))"
            )


def type_of(given: object) -> str:
    """Return the name of an argument's type, as an error shows it."""
    return f"{type(given).__module__}.{type(given).__qualname__}".removeprefix("builtins.")
