"""Whether what is stored of an origin has arrived in the browser. Must never take silence for a logout.

A page that has logged out says so: items that were there are removed, or were seen before. A document that holds nothing
of what is stored, and of which no more is known, was not filled: saving it as it is would throw the login away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from session_reuse.browsers.origins import OriginEntry, databases_of, items_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from session_reuse.browsers.indexeddb import Dump

SECTIONS: Final = ("localStorage", "sessionStorage", "databases")
"""What an origin may hold."""


class Restored:
    """What one origin was to get back, for as long as it is not known to have it.

    Args:
        entry: the origin's, of the state.
    """

    def __init__(self, entry: OriginEntry) -> None:
        stored = {section: dict(items_of(entry, section)) for section in SECTIONS[:2]}
        self._missing = {section: items for section, items in stored.items() if items}
        self._databases = {database.get("name") for database in databases_of(entry)}

    @property
    def is_in_doubt(self) -> bool:
        """Whether anything is still missing."""
        return bool(self._missing or self._databases)

    def is_missing(self, section: str) -> bool:
        """Return whether nothing has been seen of one of `SECTIONS`."""
        return bool(self._databases) if section == "databases" else section in self._missing

    def arrived(self, sections: Collection[str]) -> None:
        """Note that all that was stored of some sections is there."""
        for section in sections:
            self._missing.pop(section, None)
        if "databases" in sections:
            self._databases.clear()

    def saw(self, section: str, items: dict[str, str]) -> None:
        """Look at the items of a storage: one that is as it was stored has been restored."""
        if any(items.get(key) == value for key, value in self._missing.get(section, {}).items()):
            del self._missing[section]

    def saw_event(self, section: str, items: dict[str, str], method: str, params: dict[str, Any]) -> None:
        """Look at a `DOMStorage` event; an item that is removed has been there.

        Args:
            section: of which storage.
            items: that it was thought to hold before.
            method: of the event.
            params: of the event.
        """
        stored = self._missing.get(section)
        if stored is None:
            return
        if method == "DOMStorage.domStorageItemsCleared":
            has_been_there = not stored.keys().isdisjoint(items)
        elif method == "DOMStorage.domStorageItemRemoved":
            has_been_there = params["key"] in stored
        else:
            has_been_there = stored.get(params["key"]) == params["newValue"]
        if has_been_there:
            del self._missing[section]

    def saw_databases(self, dump: Dump) -> None:
        """Look at a copy of the databases: one that is there was restored, or was there before."""
        if not self._databases.isdisjoint(database["name"] for database in [*dump.plain, *dump.rich]):
            self._databases.clear()
