"""Something to be done before a page's `goto`, in both APIs. Must never change what `goto` takes or returns."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    Before = Callable[[str], Any]
    """Gets the URL; returns the task of what it has begun, if any."""

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
