"""`StorageMirror`: what a browser holds, fed by events and reads.

It starts from the restored state. Origins that were not visited are carried over, visited ones are replaced, and dropped when
they are empty. What is stored of an origin stays until it was seen in the browser (`progress.py`). The mirror stays readable when
the page, the context or the browser has ended.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from session_reuse._browser.environment import Environment, recorded
from session_reuse._browser.origins import (
    DATABASE_SECTIONS,
    Items,
    OriginEntry,
    databases_of,
    items_of,
    named,
    origin_of,
    origin_of_storage,
)
from session_reuse._browser.storage.progress import NOTHING, RestoreProgress
from session_reuse._browser.storage.web_storage import Reading, TabStorage, apply_event
from session_reuse._state.shapes import Cookie, StorageState
from session_reuse._state.storage_state import CLOCK_DOUBT, cookie_identity, playwright_cookie

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from session_reuse._browser.driver import Params
    from session_reuse._browser.storage.databases import Dump, Loss

REMOVALS: Final = ("DOMStorage.domStorageItemRemoved", "DOMStorage.domStorageItemsCleared")
STORAGE_EVENTS: Final = ("DOMStorage.domStorageItemAdded", "DOMStorage.domStorageItemUpdated", *REMOVALS)

_MIRRORED: Final = ("origin", "localStorage", "sessionStorage", *DATABASE_SECTIONS)


class CopyMark(NamedTuple):
    """Which databases of an origin have changed since they were copied.

    Attributes:
        number: grows with each change.
        names: of the databases; None means all of them.
    """

    number: int
    names: frozenset[str] | None


class StorageMirror:
    """What the browser holds, as far as it was seen. Its clock gives unix seconds.

    Attributes:
        version: grows with each change seen.
        unread: origins of which something may be unseen, with the version at that time. A read that began later clears it.
        dirty_databases: origins whose IndexedDB has changed since it was copied.
        environment: as seen in this run, or else as recorded.
        has_read: whether anything was read from the browser.
        source: how it was read, for the storage state.
    """

    def __init__(self, base: StorageState, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._rest: dict[str, Any] = {key: value for key, value in base.items() if key not in ("cookies", "origins")}
        self._base: dict[str, OriginEntry] = {
            origin_of(entry["origin"]) or entry["origin"]: cast("OriginEntry", entry) for entry in base["origins"]
        }
        self._progress = {origin: RestoreProgress(entry) for origin, entry in self._base.items()}
        self._cookies = _by_identity(base["cookies"])
        self._local: dict[str, dict[str, str]] = {}
        self._session: dict[str, TabStorage] = {}
        self._databases: dict[str, Dump] = {}
        self._files: dict[str, list[Any]] = {}
        self._readings: list[Reading] = []
        self.version = 0
        self.unread: dict[str, int] = {}
        self.dirty_databases: dict[str, CopyMark] = {}
        self.environment: Environment = recorded(base)
        self.has_read = False
        self.source = "mirror"

    @property
    def visited(self) -> frozenset[str]:
        """Origins of which anything was seen."""
        return frozenset({*self._local, *self._session, *self._databases, *self.unread})

    def progress(self, origin: str) -> RestoreProgress:
        """Return what of an origin is in the browser of what is stored."""
        return self._progress.get(origin, NOTHING)

    def mark_unread(self, origin: str) -> None:
        """Note that a document may have stored something that was not seen: that is worth a save."""
        self.version += 1
        self.unread[origin] = self.version

    def local_size(self, origin: str) -> int:
        """Return how many characters the localStorage of an origin is known to hold."""
        return sum(len(key) + len(value) for key, value in self._local.get(origin, {}).items())

    def begin_read(self, tab: Hashable, origin: str) -> Reading:
        """Announce that the web storage of an origin is being read in a tab."""
        reading = Reading(tab, origin, self.version)
        self._readings.append(reading)
        return reading

    def finish_read(self, reading: Reading, local: Items | None, session: Items | None) -> None:
        """Apply what was read, unless a reading that began later is done. None stands for a storage that could not be read."""
        began_before = self._readings[: self._readings.index(reading)]
        self._readings.remove(reading)
        if reading.is_outdated or (local is None and session is None):
            return
        for other in began_before:
            other.is_outdated |= (other.tab, other.origin) == (reading.tab, reading.origin)
        self.has_read = True
        if self.unread.get(reading.origin, 0) <= reading.version:
            self.unread.pop(reading.origin, None)
        if local is not None:
            items = reading.result(local, is_local=True)
            self.progress(reading.origin).saw("localStorage", items)
            self.version += items != self._local.get(reading.origin, self._stored(reading.origin, "localStorage"))
            self._local[reading.origin] = items
        if session is not None:
            items = reading.result(session, is_local=False)
            self.progress(reading.origin).saw("sessionStorage", items)
            self.version += self._tabs(reading.origin).read(reading.tab, items)

    def storage_event(self, tab: Hashable, method: str, params: Params) -> str | None:
        """Apply one of `STORAGE_EVENTS`. Return the origin that it is about."""
        storage_id = params.get("storageId") or {}
        origin = origin_of_storage(storage_id)
        if origin is None:
            return None
        self.has_read = True
        for reading in self._readings:
            if reading.tab == tab and reading.origin == origin:
                reading.events.append((method, params))
        if storage_id.get("isLocalStorage"):
            items = self._local.setdefault(origin, self._stored(origin, "localStorage"))
            self.progress(origin).saw_event("localStorage", items, _key_of(method, params))
            self.version += apply_event(items, method, params)
        else:
            self._session_event(tab, origin, method, params)
        return origin

    def _session_event(self, tab: Hashable, origin: str, method: str, params: Params) -> None:
        tabs = self._tabs(origin)
        key = _key_of(method, params)
        self.progress(origin).saw_event("sessionStorage", tabs.merged, key)
        if method in REMOVALS:
            self.version += tabs.remove(tab, key)
        else:
            self.version += tabs.read(tab, {**tabs.items_of(tab), params["key"]: params["newValue"]})

    def _stored(self, origin: str, section: str) -> dict[str, str]:
        return dict(items_of(self._base.get(origin, {}), section))

    def _tabs(self, origin: str) -> TabStorage:
        return self._session.setdefault(origin, TabStorage(self._stored(origin, "sessionStorage")))

    def tab_closed(self, tab: Hashable) -> None:
        """Note that a tab was closed."""
        for tabs in self._session.values():
            tabs.close(tab)

    def cookies_read(self, cookies: list[Cookie]) -> set[str]:
        """Replace the cookies by all those of the browser, in Playwright's form. Return the domains of those that are gone."""
        self.has_read = True
        before, now = self._cookies, _by_identity(cookies)
        # An expiry is no logout: the clock of this host may be ahead, and others may have a newer cookie.
        self._cookies = {
            key: each for key, each in {**before, **now}.items() if key in now or self._has_just_expired(each)
        }
        self.version += self._cookies != before
        return {str(before[key]["domain"]).lstrip(".") for key in before.keys() - self._cookies.keys()}

    def _has_just_expired(self, cookie: Cookie) -> bool:
        expires = playwright_cookie(cookie)["expires"]
        return expires > 0 and 0 <= self._clock() - expires < CLOCK_DOUBT

    def has_content(self, origin: str) -> bool:
        """Return whether the browser is known to hold localStorage or databases of an origin."""
        return bool(self._local.get(origin)) or (origin in self._databases and self.has_databases(origin))

    def has_databases(self, origin: str) -> bool:
        """Return whether the state holds databases of an origin."""
        dump = self._databases.get(origin)
        return bool(dump.databases if dump else databases_of(self._base.get(origin, {})))

    def databases_changed(self, origin: str, name: str | None = None) -> None:
        """Note that the copy of an origin's databases, or of the one that is named, is out of date.

        That is no sign that a database is there: changes are told while it is being filled, and a document that is left then
        takes it along (Chromium 156, 2026-11-26).
        """
        mark = self.dirty_databases.get(origin)
        names = frozenset() if mark is None else mark.names
        both = None if names is None or name is None else names | {name}
        self.version += 1
        self.dirty_databases[origin] = CopyMark(self.version, both)

    def database_filled(self, origin: str, name: str) -> None:
        """Note that a database is there as it is stored; the page may have changed it since."""
        self.progress(origin).saw("databases", [name])
        self.databases_changed(origin, name)

    def databases_read(self, origin: str, dump: Dump, mark: CopyMark) -> None:
        """Apply a copy of an origin's databases. The mark of before the copy was begun is cleared unless it is another now."""
        self.has_read = True
        if self.dirty_databases.get(origin) == mark:
            del self.dirty_databases[origin]
        self.progress(origin).saw_databases(dump)
        merged = dump.over(self._databases.get(origin), self._base.get(origin, {}))
        self.version += merged != self._databases.get(origin)
        self._databases[origin] = merged

    def files_read(self, files: dict[str, list[Any]]) -> None:
        """Replace the origin private file systems of the visited origins, in Playwright's form."""
        # Playwright leaves out origins without files, so a visited one that is missing has none any more.
        self._files = {**{origin: [] for origin in self.visited}, **files}

    def credentials_read(self, credentials: list[Any]) -> None:
        """Replace the WebAuthn credentials of the browser, in Playwright's form."""
        self._rest["credentials"] = credentials

    def session_storage(self, origin: str) -> dict[str, str]:
        """Return the sessionStorage of an origin as it would be saved."""
        if origin not in self._session:
            return self._stored(origin, "sessionStorage")
        return dict(self._session[origin].merged)

    def session_storages(self) -> dict[str, dict[str, str]]:
        """Return the sessionStorage of each visited origin that has any."""
        return {origin: items for origin in self.visited if (items := self.session_storage(origin))}

    def lost(self) -> list[Loss]:
        """Return what the copies of this run could not hold."""
        return [loss for dump in list(self._databases.values()) for loss in dump.lost]

    def state(self) -> StorageState:
        """Return the state to save: a new one, independent of later changes."""
        names = [*self._base, *sorted({*self.visited, *self._files} - self._base.keys())]
        entries = [self._entry(name) for name in names]
        kept = [entry for entry in entries if len(entry) > 2 or entry["localStorage"]]
        content = {"cookies": list(self._cookies.values()), "origins": kept, "session_reuse": self._block()}
        return cast("StorageState", {**self._rest, **content})

    def _entry(self, origin: str) -> OriginEntry:
        base = self._base.get(origin, {})
        entry: OriginEntry = {"origin": origin, "localStorage": base.get("localStorage", [])}
        if origin in self._local:
            stored, missing = self._stored(origin, "localStorage"), self.progress(origin).unconfirmed("localStorage")
            kept = {key: value for key, value in stored.items() if key in missing}
            entry["localStorage"] = named({**kept, **self._local[origin]})
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
        dump = self._databases.get(origin)
        if dump is None:
            return {section: list(base[section]) for section in DATABASE_SECTIONS if base.get(section)}
        missing = self.progress(origin).unconfirmed("databases")
        saved = [each for each in databases_of(base) if each.get("name") in missing]
        saved += [each for each in dump.databases if each["name"] not in missing]
        plain, rich = ([each for each in saved if form in each] for form in ("stores", "dump"))
        return {section: found for section, found in zip(DATABASE_SECTIONS, (plain, rich), strict=True) if found}

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


def _by_identity(cookies: list[Cookie]) -> dict[tuple[str, str, str, str, bool], Cookie]:
    return {cookie_identity(cookie): cookie for cookie in cookies}


def _key_of(method: str, params: Params) -> str | None:
    return None if method == "DOMStorage.domStorageItemsCleared" else params["key"]
