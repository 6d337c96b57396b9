"""Something to be done before a call of a Playwright object, in both APIs. What the call takes and gives stays the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Undo = Callable[[], None]


_TURNS: Final = 6
"""Turns of the event loop until the commands of a flow that has just begun are sent."""


def before_goto(page: Any, begin: Callable[[str], Awaitable[None]]) -> Undo:
    """Have something begun before each `goto` of this page object, ahead of its own command; return what takes that back."""

    def hooked(original: Callable[..., Awaitable[Any]], hooks: list[Any]) -> Callable[..., Awaitable[Any]]:
        async def goto(url: str, **options: Any) -> Any:
            for each in tuple(hooks):
                await each(url)
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            return await original(url, **options)

        return goto

    return _hook(page, "goto", begin, hooked)


def before_goto_blocking(page: Any, hook: Callable[[str], None]) -> Undo:
    """Do the same for a synchronous page."""

    def hooked(original: Callable[..., Any], hooks: list[Any]) -> Callable[..., Any]:
        def goto(url: str, **options: Any) -> Any:
            for each in tuple(hooks):
                each(url)
            return original(url, **options)

        return goto

    return _hook(page, "goto", hook, hooked)


def before_close(target: Any, hook: Callable[[], Awaitable[None]]) -> Undo:
    """Have `hook` awaited before `target.close()`, on this object only; return what takes that back."""

    def hooked(original: Callable[..., Awaitable[None]], hooks: list[Any]) -> Callable[..., Awaitable[None]]:
        async def close(*args: Any, **options: Any) -> None:
            for each in tuple(hooks):
                await each()
            await original(*args, **options)

        return close

    return _hook(target, "close", hook, hooked)


def before_close_blocking(target: Any, hook: Callable[[], None]) -> Undo:
    """Do the same for a synchronous object."""

    def hooked(original: Callable[..., None], hooks: list[Any]) -> Callable[..., None]:
        def close(*args: Any, **options: Any) -> None:
            for each in tuple(hooks):
                each()
            original(*args, **options)

        return close

    return _hook(target, "close", hook, hooked)


def _hook(target: Any, name: str, hook: Any, hooked: Callable[[Any, list[Any]], Any]) -> Undo:
    """Several may hook the same object: the last that takes its hook back removes ours."""
    method = vars(target).get(name)
    if method is None or not hasattr(method, "session_reuse_hooks"):
        hooks: list[Any] = []
        method = hooked(getattr(target, name), hooks)
        method.session_reuse_hooks = hooks
        setattr(target, name, method)
    method.session_reuse_hooks.append(hook)

    def undo() -> None:
        if hook in method.session_reuse_hooks:
            method.session_reuse_hooks.remove(hook)
        if not method.session_reuse_hooks and vars(target).get(name) is method:
            delattr(target, name)

    return undo
