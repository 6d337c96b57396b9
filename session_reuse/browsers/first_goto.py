"""Something to be done around the first `goto` of a page, in both APIs. Must never change what `goto` takes or returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from session_reuse.browsers.steps import Steps, run, run_blocking

if TYPE_CHECKING:
    from collections.abc import Callable

    Before = Callable[[str], Steps[Any]]
    After = Callable[[Any], Steps[None]]
    """Gets what `Before` has returned."""


def around_first_goto(page: Any, before: Before, after: After) -> None:
    """Have this page object's next `goto`, and no later one, run a procedure before, and another when it was successful."""
    original = page.goto

    async def goto(url: str, **options: Any) -> Any:
        vars(page).pop("goto", None)
        noted = await run(before(url))
        response = await original(url, **options)
        await run(after(noted))
        return response

    page.goto = goto


def around_first_goto_blocking(page: Any, before: Before, after: After) -> None:
    """Do the same for a synchronous page."""
    original = page.goto

    def goto(url: str, **options: Any) -> Any:
        vars(page).pop("goto", None)
        noted = run_blocking(before(url))
        response = original(url, **options)
        run_blocking(after(noted))
        return response

    page.goto = goto
