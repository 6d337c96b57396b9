"""Storage events, and readings of a storage while they arrive."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from session_reuse._browser.driver import Params
    from session_reuse._browser.origins import Items


@dataclass(slots=True, eq=False)
class Reading:
    """A reading of the web storage of one origin that is under way.

    Attributes:
        tab: where it is read.
        origin: whose storage it is.
        version: of the mirror when it began.
        events: what has arrived since: events that may be newer than the answer.
        is_outdated: a reading that began later is done.
    """

    tab: Hashable
    origin: str
    version: int
    events: list[tuple[str, Params]] = field(default_factory=list)
    is_outdated: bool = False

    def result(self, items: Items, *, is_local: bool) -> dict[str, str]:
        """Return the items of the answer with the events applied once more: those already in it change nothing."""
        current = {key: value for key, value in items}  # noqa: C416 - lists of two, not tuples
        for method, params in self.events:
            if bool(params["storageId"].get("isLocalStorage")) is is_local:
                apply_event(current, method, params)
        return current


def apply_event(items: dict[str, str], method: str, params: Params) -> bool:
    """Apply a `DOMStorage` event to the items of a storage. Return whether it changed anything."""
    if method == "DOMStorage.domStorageItemsCleared":
        changed = bool(items)
        items.clear()
    elif method == "DOMStorage.domStorageItemRemoved":
        changed = items.pop(params["key"], None) is not None
    else:
        changed = items.get(params["key"]) != params["newValue"]
        items[params["key"]] = params["newValue"]
    return changed
