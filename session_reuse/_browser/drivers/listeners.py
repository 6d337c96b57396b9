"""Listeners on Playwright's objects, to be removed together: none outlives us on an object that does."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Listeners:
    """What was added, and where."""

    def __init__(self) -> None:
        self._added: dict[Any, list[tuple[str, Callable[[Any], None]]]] = {}

    def add(self, target: Any, event: str, handler: Callable[[Any], None]) -> None:
        """Call a handler for each event.

        Args:
            target: a page or a context.
            event: its name.
            handler: any function, a bound method too.
        """

        def listener(subject: object) -> None:  # a function of its own: Playwright keeps its wrapper on it
            handler(subject)

        target.on(event, listener)
        self._added.setdefault(target, []).append((event, listener))

    def forget(self, target: Any) -> None:
        """Remove those of one object."""
        for event, listener in self._added.pop(target, ()):
            with contextlib.suppress(RuntimeError):  # of the event loop: the synchronous Playwright was stopped
                target.remove_listener(event, listener)

    def remove_all(self) -> None:
        """Remove all of them."""
        for target in list(self._added):
            self.forget(target)
