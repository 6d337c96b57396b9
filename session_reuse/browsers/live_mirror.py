"""A mirror of what a browser holds, fed by what adapters see. Must never do I/O, and never forget what it cannot see.

It starts from the restored state. Origins that were not visited are carried over, visited ones replaced, and dropped
when they are empty. But a document in which nothing of what was stored has ever been seen may not have got it (the network
failed, the disk was full, another agent's page was open): what is in it is added to what is stored, and replaces nothing
else. It stays readable when the page, the context or the browser is gone.

An adapter calls `arrived` when it knows that an origin has got what was stored, `committed` for each document of a main frame, `begin_read`/`finish_read` around reading a storage,
`storage_event` for each `DOMStorage` event, `cookies_read` and `databases_read` for what it has polled.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from session_reuse.browsers.environment import Environment, recorded
from session_reuse.browsers.origins import (
    DATABASE_SECTIONS,
    Items,
    OriginEntry,
    databases_of,
    items_of,
    named,
    origin_of,
    origin_of_storage,
)
from session_reuse.browsers.readings import Reading, apply_event
from session_reuse.browsers.restored import SECTIONS, Restored
from session_reuse.browsers.tab_storage import TabStorage
from session_reuse.state.storage_state import StorageState, cookie_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable

    from session_reuse.browsers.indexeddb import Dump, Loss

STORAGE_EVENTS: Final = (
    "DOMStorage.domStorageItemAdded",
    "DOMStorage.domStorageItemUpdated",
    "DOMStorage.domStorageItemRemoved",
    "DOMStorage.domStorageItemsCleared",
)
DATABASE_EVENTS: Final = ("Storage.indexedDBContentUpdated", "Storage.indexedDBListUpdated")

_MIRRORED: Final = ("origin", "localStorage", "sessionStorage", *DATABASE_SECTIONS)


class LiveMirror:
    """What the browser holds, as far as it was seen.

    Args:
        base: the state that was restored into the browser.
        clock: unix seconds.

    Attributes:
        version: grows with each change seen.
        unread: origins that were visited and could not be read since.
        dirty_databases: origins whose IndexedDB has changed since it was copied.
        environment: as seen in this run, or else as recorded.
        has_read: whether anything was read from the browser.
        source: how it was read, for the storage state.
    """

    def __init__(self, base: StorageState, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._rest = {key: value for key, value in base.items() if key not in ("cookies", "origins")}
        self._base = {origin_of(entry["origin"]) or entry["origin"]: entry for entry in base["origins"]}
        self._restored = {origin: Restored(entry) for origin, entry in self._base.items()}
        self._cookies: list[dict[str, Any]] = list(base["cookies"])
        self._local: dict[str, dict[str, str]] = {}
        self._session: dict[str, TabStorage] = {}
        self._databases: dict[str, Dump] = {}
        self._files: dict[str, list[Any]] = {}
        self._readings: list[Reading] = []
        self.version = 0
        self.unread: set[str] = set()
        self.dirty_databases: set[str] = set()
        self.environment: Environment = recorded(base)
        self.has_read = False
        self.source = "mirror"

    @property
    def visited(self) -> frozenset[str]:
        """Origins of which anything was seen."""
        return frozenset({*self._local, *self._session, *self._databases, *self.unread})

    def arrived(self, origin: str, sections: Collection[str] = SECTIONS) -> None:
        """Note that an origin is known to have got what was stored of some of its `SECTIONS`."""
        if origin in self._restored:
            self._restored[origin].arrived(sections)

    def is_in_doubt(self, origin: str) -> bool:
        """Return whether nothing of what is stored of an origin has been seen in the browser yet."""
        return origin in self._restored and self._restored[origin].is_in_doubt

    def committed(self, origin: str) -> None:
        """Note that a document of this origin has started in a main frame."""
        self.unread.add(origin)

    def left_untold(self, origin: str) -> None:
        """Note that a document has gone without telling what it had stored at the end: that is worth a save."""
        self.unread.add(origin)
        self.version += 1

    def begin_read(self, tab: Hashable, origin: str) -> Reading:
        """Announce that the web storage of an origin is being read in a tab."""
        reading = Reading(tab, origin)
        self._readings.append(reading)
        return reading

    def finish_read(self, reading: Reading, local: Items | None, session: Items | None) -> None:
        """Take over what was read, unless a reading that began later is done; None for a storage that could not be."""
        began_before = self._readings[: self._readings.index(reading)]
        self._readings.remove(reading)
        if reading.is_outdated or (local is None and session is None):
            return
        for other in began_before:
            other.is_outdated |= (other.tab, other.origin) == (reading.tab, reading.origin)
        self.has_read = True
        self.unread.discard(reading.origin)
        if local is not None:
            self._local_read(reading, local)
        if session is not None:
            items = reading.result(session, is_local=False)
            self._seen(reading.origin, "sessionStorage", items)
            self.version += self._tabs(reading.origin).read(reading.tab, items)

    def _local_read(self, reading: Reading, local: Items) -> None:
        items = reading.result(local, is_local=True)
        self._seen(reading.origin, "localStorage", items)
        self.version += items != self._local.get(reading.origin, self._stored(reading.origin, "localStorage"))
        self._local[reading.origin] = items

    def storage_event(self, tab: Hashable, method: str, params: dict[str, Any]) -> None:
        """Apply one of `STORAGE_EVENTS`."""
        storage_id = params.get("storageId") or {}
        origin = origin_of_storage(storage_id)
        if origin is None:
            return
        self.has_read = True
        for reading in self._readings:
            if reading.tab == tab and reading.origin == origin:
                reading.events.append((method, params))
        section = "localStorage" if storage_id.get("isLocalStorage") else "sessionStorage"
        items = self._changing(tab, origin, section)
        if origin in self._restored:
            self._restored[origin].saw_event(section, items, method, params)
        self.version += apply_event(items, method, params)

    def _changing(self, tab: Hashable, origin: str, section: str) -> dict[str, str]:
        stored = self._stored(origin, section)
        return (
            self._local.setdefault(origin, stored)
            if section == "localStorage"
            else self._tabs(origin).changing(tab, stored)
        )

    def _seen(self, origin: str, section: str, items: dict[str, str]) -> None:
        if origin in self._restored:
            self._restored[origin].saw(section, items)

    def _stored(self, origin: str, section: str) -> dict[str, str]:
        return dict(items_of(self._base.get(origin, {}), section))

    def _tabs(self, origin: str) -> TabStorage:
        return self._session.setdefault(origin, TabStorage())

    def tab_closed(self, tab: Hashable) -> None:
        """Note that a tab is gone."""
        for tabs in self._session.values():
            tabs.close(tab)

    def cookies_read(self, cookies: list[dict[str, Any]]) -> None:
        """Take over all cookies of the browser, in Playwright's form."""
        self.has_read = True
        self.version += _by_identity(cookies) != _by_identity(self._cookies)
        self._cookies = cookies

    def has_databases(self, origin: str) -> bool:
        """Return whether the state holds databases of an origin."""
        return bool(databases_of(self._base.get(origin, {})))

    def databases_changed(self, origin: str) -> None:
        """Note that the copy of an origin's databases is out of date."""
        self.dirty_databases.add(origin)
        self.version += 1

    def databases_read(self, origin: str, dump: Dump) -> None:
        """Take over a copy of an origin's databases."""
        self.has_read = True
        if origin in self._restored:
            self._restored[origin].saw_databases(dump)
        self.version += dump != self._databases.get(origin)
        self._databases[origin] = dump

    def files_read(self, files: dict[str, list[Any]]) -> None:
        """Take over the origin private file systems of the visited origins, in Playwright's form."""
        self._files = {**{origin: [] for origin in self.visited}, **files}

    def credentials_read(self, credentials: list[Any]) -> None:
        """Take over the WebAuthn credentials of the browser, in Playwright's form."""
        self._rest["credentials"] = credentials

    def session_storage(self, origin: str) -> dict[str, str]:
        """Return the sessionStorage of an origin as it would be saved."""
        tabs = self._session.get(origin)
        if not tabs or not tabs.is_known:
            return self._stored(origin, "sessionStorage")
        return self._with_stored(origin, "sessionStorage", tabs.current())

    def _with_stored(self, origin: str, section: str, items: dict[str, str]) -> dict[str, str]:
        """Return what is to be saved of a storage that was seen to hold these items."""
        missing = self._missing(origin, section)
        kept = {key: value for key, value in self._stored(origin, section).items() if key in missing}
        return {**kept, **items}

    def _missing(self, origin: str, section: str) -> set[str]:
        return self._restored[origin].missing(section) if origin in self._restored else set()

    def lost(self) -> list[Loss]:
        """Return what the copies of this run could not hold."""
        return [loss for dump in self._databases.values() for loss in dump.lost]

    def state(self) -> StorageState:
        """Return what is to be saved: a new state, independent of later changes."""
        names = [*self._base, *sorted({*self.visited, *self._files} - self._base.keys())]
        entries = (self._entry(name) for name in names)
        kept = [entry for entry in entries if len(entry) > 2 or entry["localStorage"]]
        return {**self._rest, "cookies": list(self._cookies), "origins": kept, "session_reuse": self._block()}

    def _entry(self, origin: str) -> OriginEntry:
        base = self._base.get(origin, {})
        entry: OriginEntry = {"origin": origin, "localStorage": base.get("localStorage", [])}
        if origin in self._local:
            entry["localStorage"] = named(self._with_stored(origin, "localStorage", self._local[origin]))
        if session := self.session_storage(origin):
            entry["sessionStorage"] = named(session)
        entry |= self._saved_databases(origin, base)
        entry |= {key: value for key, value in base.items() if key not in _MIRRORED}
        if not self._files.get(origin, entry.get("opfs")):
            entry.pop("opfs", None)
        elif origin in self._files:
            entry["opfs"] = self._files[origin]
        return entry

    def _saved_databases(self, origin: str, base: OriginEntry) -> OriginEntry:
        stored = {section: list(base.get(section) or ()) for section in DATABASE_SECTIONS}
        dump = self._databases.get(origin)
        if dump is not None:
            there = {"indexedDB": dump.plain, "indexedDBRich": dump.rich}
            missing = self._missing(origin, "databases")
            for section, databases in there.items():
                kept = [each for each in stored[section] if each.get("name") in missing]
                stored[section] = [*kept, *(each for each in databases if each["name"] not in missing)]
        return {section: databases for section, databases in stored.items() if databases}

    def _block(self) -> dict[str, Any]:
        block = self._rest.get("session_reuse") or {}
        before = [loss for loss in block.get("lost") or () if isinstance(loss, dict)]
        lost = [loss for loss in before if loss.get("origin") not in self._databases]
        lost += [loss._asdict() for loss in self.lost()]
        return {
            **block,
            "v": 1,
            "captured_at": round(self._clock(), 3),
            "source": self.source,
            "complete": not lost and not self.unread,
            "lost": lost,
            "environment": self.environment,
        }


def _by_identity(cookies: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    return {cookie_identity(cookie): cookie for cookie in cookies}
