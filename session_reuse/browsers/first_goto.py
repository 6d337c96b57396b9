"""Something to be done before the first `goto` of a page, in both APIs. Must never change what `goto` takes or returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from session_reuse.browsers.steps import Steps, run, run_blocking

if TYPE_CHECKING:
    from collections.abc import Callable

    Before = Callable[[str], Steps[None]]


def before_first_goto(page: Any, before: Before) -> None:
    """Have this page object's next `goto`, and no later one, run a procedure with its URL before it starts."""
    original = page.goto

    async def goto(url: str, **options: Any) -> Any:
        vars(page).pop("goto", None)
        await run(before(url))
        return await original(url, **options)

    page.goto = goto


def before_first_goto_blocking(page: Any, before: Before) -> None:
    """Do the same for a synchronous page."""
    original = page.goto

    def goto(url: str, **options: Any) -> Any:
        vars(page).pop("goto", None)
        run_blocking(before(url))
        return original(url, **options)

    page.goto = goto
