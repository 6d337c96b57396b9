"""Whether what is stored of an origin has arrived in the browser.

Empty storage does not prove a logout: the restore may have failed. So what is stored of an origin is kept until it has been
seen in the browser. A page that logs out removes items that were seen before, or reports their removal.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from session_reuse._browser.origins import OriginEntry, databases_of, items_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from session_reuse._browser.storage.databases import Dump

SECTIONS: Final = ("localStorage", "sessionStorage", "databases")
"""What an origin may hold."""
WEB_STORAGES: Final = frozenset(SECTIONS[:2])


class RestoreProgress:
    """What one origin is to get back, until it is confirmed."""

    def __init__(self, entry: OriginEntry) -> None:
        self._unconfirmed: dict[str, set[str]] = {
            **{section: {key for key, _ in items_of(entry, section)} for section in SECTIONS[:2]},
            "databases": {str(database.get("name")) for database in databases_of(entry)},
        }
        self._empty = {str(each.get("name")) for each in databases_of(entry) if not _holds_records(each)}
        self._stored = {section: frozenset(keys) for section, keys in self._unconfirmed.items()}

    @property
    def is_unconfirmed(self) -> bool:
        """Whether anything is still unconfirmed."""
        return any(self._unconfirmed.values())

    def unconfirmed(self, section: str) -> set[str]:
        """Return the keys, or names of databases, of one of `SECTIONS` that were not seen in the browser yet."""
        return self._unconfirmed[section]

    def unseen_sections(self) -> set[str]:
        """Return the sections of which nothing was seen, though something is stored."""
        return {section for section, keys in self._stored.items() if keys and self._unconfirmed[section] == keys}

    def confirm(self, sections: Collection[str] = SECTIONS) -> None:
        """Note that all that was stored of some sections is in the browser."""
        for section in sections:
            self._unconfirmed[section].clear()

    def saw(self, section: str, names: Iterable[str]) -> None:
        """Note keys, or names of databases, that are in the browser: their content is the page's own from now on."""
        self._unconfirmed[section].difference_update(names)

    def saw_event(self, section: str, known: Collection[str], key: str | None) -> None:
        """Apply a `DOMStorage` event about a key, which was there then, or None: a storage of known keys was cleared."""
        if key is not None:
            self.saw(section, [key])
        # A page that clears its storage first thing, before it was filled, has not logged out.
        elif not self._stored[section].isdisjoint(known):
            self.confirm([section])

    def saw_databases(self, dump: Dump) -> None:
        """Apply a copy of the databases."""
        if not self._unconfirmed["databases"]:
            return
        # An empty database may be the page's own attempt at a new one, made before the restore.
        self.saw(
            "databases",
            [each["name"] for each in dump.databases if _holds_records(each) or each["name"] in self._empty],
        )


NOTHING: Final = RestoreProgress({})
"""Of an origin of which nothing is stored."""


def _holds_records(database: dict[str, Any]) -> bool:
    try:
        stores = json.loads(database["dump"]) if "dump" in database else database["stores"]
    except RecursionError:  # only a value is nested so deeply
        return True
    return any(store.get("records") for store in stores)
