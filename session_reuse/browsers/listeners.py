"""Listeners on Playwright's objects, to be taken back together. Must never leave one on an object that outlives us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Listeners:
    """What was added, and where."""

    def __init__(self) -> None:
        self._added: list[tuple[Any, str, Callable[[Any], None]]] = []

    def add(self, target: Any, event: str, handler: Callable[[Any], None]) -> None:
        """Have a handler called with what an event brings.

        Args:
            target: a page or a context.
            event: its name.
            handler: any function, a bound method too.
        """

        def listener(subject: Any) -> None:  # a function of its own: Playwright keeps its wrapper on it
            handler(subject)

        target.on(event, listener)
        self._added.append((target, event, listener))

    def remove_all(self) -> None:
        """Take all of them back."""
        added, self._added = self._added, []
        for target, event, listener in added:
            target.remove_listener(event, listener)
