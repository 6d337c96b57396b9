"""The sessionStorage of one origin in several tabs, merged key by key: a storage state keeps one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


class TabStorage:
    """What is to be stored, and what each tab holds."""

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
