"""Whether what is stored of an origin has arrived in the browser. Must never take silence for a logout.

A page that has logged out says so: items that were there are removed, or were seen before. A document that holds nothing
of what is stored, and of which no more is known, was not filled: saving it as it is would throw the login away.
"""

from __future__ import annotations

import json
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
        self._missing: dict[str, set[str]] = {
            **{section: {key for key, _ in items_of(entry, section)} for section in SECTIONS[:2]},
            "databases": {str(database.get("name")) for database in databases_of(entry)},
        }
        self._stored = {section: frozenset(keys) for section, keys in self._missing.items()}

    @property
    def is_in_doubt(self) -> bool:
        """Whether anything is still missing."""
        return any(self._missing.values())

    def missing(self, section: str) -> set[str]:
        """Return the keys, or names of databases, of one of `SECTIONS` that nobody has seen in the browser."""
        return self._missing[section]

    def arrived(self, sections: Collection[str]) -> None:
        """Note that all that was stored of some sections is there."""
        for section in sections:
            self._missing[section].clear()

    def saw(self, section: str, items: dict[str, str]) -> None:
        """Look at the items of a storage; whatever their values, they are the page's own from now on."""
        self._missing[section].difference_update(items)

    def saw_event(self, section: str, items: dict[str, str], method: str, params: dict[str, Any]) -> None:
        """Look at a `DOMStorage` event; an item that is removed has been there.

        Args:
            section: of which storage.
            items: that it was thought to hold before.
            method: of the event.
            params: of the event.
        """
        missing = self._missing[section]
        if method != "DOMStorage.domStorageItemsCleared":
            missing.discard(params["key"])
        elif not self._stored[section].isdisjoint(items):
            missing.clear()

    def saw_databases(self, dump: Dump) -> None:
        """Look at a copy of the databases; one that holds nothing may be the page's own attempt at a new one."""
        missing = self._missing["databases"]
        here = [each for each in [*dump.plain, *dump.rich] if each["name"] in missing]
        missing -= {each["name"] for each in here if _holds_records(each)}


def _holds_records(database: dict[str, Any]) -> bool:
    stores = json.loads(database["dump"]) if "dump" in database else database["stores"]
    return any(store.get("records") for store in stores)
