"""Storage events, readings of a storage while they arrive, and the sessionStorage of several tabs."""

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


class TabStorage:
    """The sessionStorage of one origin in several tabs, merged key by key: a storage state keeps one."""

    def __init__(self, stored: dict[str, str]) -> None:
        self._merged = dict(stored)
        self._replaced: dict[str, str] = {}
        self._tabs: dict[Hashable, dict[str, str]] = {}

    @property
    def merged(self) -> dict[str, str]:
        """The items to store."""
        return self._merged

    def items_of(self, tab: Hashable) -> dict[str, str]:
        """Return what a tab is known to hold."""
        return self._tabs.get(tab, {})

    def read(self, tab: Hashable, items: dict[str, str]) -> bool:
        """Replace what a tab is known to hold. Return whether that changes the state to save."""
        known = self._tabs.get(tab, {})
        before = dict(self._merged)
        # Tabs do not share their sessionStorage, so only a tab that had a key can have removed it.
        for key in known.keys() - items.keys():
            self._merged.pop(key, None)
        for key, value in items.items() - known.items():
            # A popup starts with a copy of what its opener had. The opener may have gone on before the popup is read.
            if key not in known and value == self._replaced.get(key):
                continue
            if self._merged.get(key, value) != value:
                self._replaced[key] = self._merged[key]
            self._merged[key] = value
        self._tabs[tab] = dict(items)
        return self._merged != before

    def remove(self, tab: Hashable, key: str | None) -> bool:
        """Note that a tab has removed a key, or None for all: it was there, though it may not have been seen."""
        own, before = self.items_of(tab), len(self._merged)
        others = {each for other, items in self._tabs.items() if other != tab for each in items}
        gone = (self._merged.keys() - others) | own.keys() if key is None else {key}  # what only other tabs hold stays
        self._merged = {each: value for each, value in self._merged.items() if each not in gone}
        self._tabs[tab] = {each: value for each, value in own.items() if each not in gone}
        return len(self._merged) != before

    def close(self, tab: Hashable) -> None:
        """Forget a tab that was closed. What it has stored stays."""
        self._tabs.pop(tab, None)
