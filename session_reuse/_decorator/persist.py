"""`persist_session`: a function that runs inside a session."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, Unpack, overload

from session_reuse._api import reusable_session
from session_reuse._decorator.naming import (
    Name,
    NameFrom,
    SessionParameter,
    described,
    is_coroutine_function,
    is_generator_function,
    is_session,
)
from session_reuse._misuse import check_manager
from session_reuse._session.options import SessionOptions, check_options
from session_reuse.errors import ConfigurationError, LifecycleError

if TYPE_CHECKING:
    from session_reuse import blocking
    from session_reuse._manager import SessionManager

_UNFINISHED: Final = (Generator, AsyncGenerator, AbstractContextManager, AbstractAsyncContextManager)
P = ParamSpec("P")
T = TypeVar("T")


class PersistOptions(SessionOptions, total=False):
    """The options of `persist_session`."""

    manager: SessionManager | blocking.SessionManager | None


class persist_session:  # noqa: N801  (used like a function)
    """Run a function inside a `reusable_session`, with the same options.

    The session is passed in the parameter annotated `BrowserSession`, or named `session`, if there is one. Give the
    parameter the default `injected()`: then type checkers accept calls without it. Callers and frameworks do not see
    it. Works on coroutine functions, on plain functions (through `session_reuse.blocking`) and on methods.

    Args:
        fingerprint: a template over the function's arguments, such as `"shop.example/{account}"`, or a function of
            the same arguments. None stands for the last one of the agent. A value in a template must not be None or
            empty. `/`, `%` and the separators of fields are percent-encoded in a value, so that two calls share a
            session only if they have the same values.
        agent_id: a template or a function, as above.

    Raises:
        ConfigurationError: the template does not fit the function, or the function cannot run inside a session.
    """

    def __init__(self, fingerprint: Name = None, agent_id: Name = None, **options: Unpack[PersistOptions]) -> None:
        if _is_to_be_wrapped(fingerprint):
            raise _without_parentheses(fingerprint)
        self._fingerprint = fingerprint
        self._agent_id = agent_id
        self._options: dict[str, Any] = {**options}
        if isinstance(domains := options.get("allowed_domains"), Iterator):  # the first call would use it up
            self._options["allowed_domains"] = tuple(domains)
        check_manager(options.get("manager"))
        check_options(self._options.keys() - {"manager"})  # else an unknown one is an error in the first call only

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Callable[P, T]: ...
    def __call__(self, function: Any = None, /, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Wrap the function."""
        if args or kwargs or not (callable(function) or isinstance(function, staticmethod | classmethod)):
            raise _without_parentheses(self._fingerprint)
        if inspect.isclass(function):
            raise ConfigurationError(
                f"persist_session is for functions, and {function.__qualname__} is a class: write it over the method"
                " that uses the session"
            )
        parameter = SessionParameter(function)
        names = [NameFrom(name, function, parameter) for name in (self._fingerprint, self._agent_id)]
        is_async = is_coroutine_function(function)
        from session_reuse import _manager, blocking

        check_manager(self._options.get("manager"), (_manager if is_async else blocking).SessionManager)
        if is_async:
            persisted = _asynchronous(parameter, names, self._options)
        else:
            persisted = _blocking(function, parameter, names, self._options)
        persisted = wraps(function)(persisted)
        parameter.show_on(persisted)
        return persisted


def _asynchronous(parameter: SessionParameter, names: list[NameFrom], options: dict[str, Any]) -> Callable[..., Any]:
    async def persisted(*args: Any, **kwargs: Any) -> Any:
        async with reusable_session(*(name(args, kwargs) for name in names), **options) as session:
            return await parameter.call(args, kwargs, session)

    return persisted


def _blocking(
    function: Callable[..., object], parameter: SessionParameter, names: list[NameFrom], options: dict[str, Any]
) -> Callable[..., Any]:
    def persisted(*args: Any, **kwargs: Any) -> Any:
        from session_reuse import blocking
        from session_reuse._background import inside_a_task

        if inside_a_task():  # the store would be waited for with the loop of the application blocked
            raise LifecycleError(
                f"{described(function)} is a plain function and was called inside a running event loop, which it would"
                " hold up: make it `async def`, or call it by asyncio.to_thread"
            )
        with blocking.reusable_session(*(name(args, kwargs) for name in names), **options) as session:
            result = parameter.call(args, kwargs, session)
            _refuse_unfinished(result, function)
            return result

    return persisted


def _refuse_unfinished(result: object, function: Callable[..., object]) -> None:
    """Raise for a coroutine, or for the generator below `contextmanager`: it would run after its session was saved."""
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()  # else Python warns of a coroutine that was never awaited
        raise ConfigurationError(
            f"{described(function)} is a plain function that returned something to be awaited, which would run after"
            " its session was saved: make it `async def`, and put persist_session next to it, below other decorators"
        )
    # Another decorator may have run the generator to its end, such as one that returns a list.
    if isinstance(result, _UNFINISHED) and is_generator_function(inspect.unwrap(function)):
        raise ConfigurationError(
            f"{described(function)} is a generator below another decorator, and would run after its session was saved:"
            " use reusable_session inside of it"
        )


def _is_to_be_wrapped(name: Name) -> bool:
    """Return whether a fingerprint is the function below a `@persist_session` without parentheses."""
    if isinstance(name, staticmethod | classmethod):
        return True
    if not callable(name):
        return False
    if is_coroutine_function(name) or is_generator_function(name):
        return True
    if not inspect.isfunction(name):
        return False
    return any(is_session(each.annotation, name) for each in inspect.signature(name).parameters.values())


def _without_parentheses(function: object) -> ConfigurationError:
    over = f" over {described(function)}" if callable(function) else ""
    return ConfigurationError(
        f'persist_session needs to know whose session: write @persist_session("shop.example/{{account}}"){over},'
        " a template over the arguments"
    )
