"""The sessionStorage of one origin in several tabs, of which a storage state keeps one. Must never do I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


class TabStorage:
    """What each tab holds, ordered by the last change."""

    def __init__(self) -> None:
        self._items: dict[Hashable, dict[str, str]] = {}
        self._closed: set[Hashable] = set()

    @property
    def is_known(self) -> bool:
        """True once any tab was read or changed."""
        return bool(self._items)

    def changing(self, tab: Hashable, default: dict[str, str]) -> dict[str, str]:
        """Return the items of a tab for a change, moved to the front.

        Args:
            tab: the tab that changes.
            default: what the first tab of the origin starts from; any other starts empty.
        """
        start = {} if self._items else dict(default)
        self._items[tab] = self._items.pop(tab, start)
        return self._items[tab]

    def read(self, tab: Hashable, items: dict[str, str]) -> bool:
        """Take over what a tab holds in full; return whether that is news.

        A further tab that is empty when first seen says nothing: tabs do not share their sessionStorage.
        """
        known = self._items.get(tab)
        if items == known or (known is None and not items and self._items):
            return False
        self._items.pop(tab, None)
        self._items[tab] = items
        return True

    def close(self, tab: Hashable) -> None:
        """Note that a tab is gone: what it held counts until another tab changes something."""
        if tab in self._items:
            self._closed.add(tab)

    def current(self) -> dict[str, str]:
        """Return what the tab of the last change holds, or if it was emptied, what another open tab holds."""
        newest = True
        for tab in reversed(self._items):
            if self._items[tab] and (newest or tab not in self._closed):
                return self._items[tab]
            newest = False
        return {}
