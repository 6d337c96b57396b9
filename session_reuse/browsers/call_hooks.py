"""Something to be done before a call of a Playwright object, in both APIs. Must never change what the call takes or gives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Before = Callable[[str], Any]
    """Gets the URL; returns the task of what it has begun, if any."""
    Undo = Callable[[], None]

PATIENCE: Final = 0.1
"""Seconds that a `goto` waits: a tab that is on its way already, or a frame in it, takes no script until it has arrived."""


def before_goto(page: Any, before: Before) -> None:
    """Have each `goto` of this page object begin something first, and wait for it, though not for long."""
    original = page.goto

    async def goto(url: str, **options: Any) -> Any:
        task = before(url)
        if task is not None:
            await asyncio.wait({task}, timeout=PATIENCE)
        return await original(url, **options)

    page.goto = goto


def before_goto_blocking(page: Any, before: Before) -> None:
    """Do the same for a synchronous page, once: nobody can stop to wait here, so it has to be blank still."""
    original = page.goto

    def goto(url: str, **options: Any) -> Any:
        vars(page).pop("goto", None)
        if page.url == "about:blank":
            before(url)
        return original(url, **options)

    page.goto = goto


def before_close(target: Any, hook: Callable[[], Awaitable[None]]) -> Undo:
    """Have `hook` awaited before `target.close()`, on this object only; return what takes that back."""

    def hooked(original: Callable[..., Awaitable[None]], hooks: list[Any]) -> Callable[..., Awaitable[None]]:
        async def close(*args: Any, **options: Any) -> None:
            for each in tuple(hooks):
                await each()
            await original(*args, **options)

        return close

    return _hook_close(target, hook, hooked)


def before_close_blocking(target: Any, hook: Callable[[], None]) -> Undo:
    """Do the same for a synchronous object."""

    def hooked(original: Callable[..., None], hooks: list[Any]) -> Callable[..., None]:
        def close(*args: Any, **options: Any) -> None:
            for each in tuple(hooks):
                each()
            original(*args, **options)

        return close

    return _hook_close(target, hook, hooked)


def _hook_close(target: Any, hook: Any, hooked: Callable[[Any, list[Any]], Any]) -> Undo:
    """Several may hook the same object: the last that takes its hook back takes ours away."""
    close = vars(target).get("close")
    if close is None:
        hooks: list[Any] = []
        close = hooked(target.close, hooks)
        close.hooks = hooks
        target.close = close
    close.hooks.append(hook)

    def undo() -> None:
        if hook in close.hooks:
            close.hooks.remove(hook)
        if not close.hooks:
            vars(target).pop("close", None)

    return undo
