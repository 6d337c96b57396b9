"""What of a state is restored by init script, and the two scripts that do it.

The data of all origins travels in one script, the code in another. The data is large and never changes. The code is small, and
is replaced when an origin has got what is stored of it, so that a page that clears its storage is not filled again. The data
script hands over what belongs to its own document, in a property that the code script removes before a page can see it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from session_reuse._browser import javascript
from session_reuse._browser.origins import Items, OriginEntry, databases_of, items_of, origin_of, site_of
from session_reuse._browser.storage.progress import WEB_STORAGES

PRELOAD_LIMIT: Final = 512 * 1024
"""Characters of JSON that the script with the data of all origins may hold.

With 0.5 MB of 200 origins a first page takes 1.07 of one without any, with 2 MB 1.41 (measured 2026-11-25).
"""


@dataclass(frozen=True)
class OriginPayload:
    """What one origin gets back."""

    origin: str
    local: Items
    session: Items
    databases: list[dict[str, Any]]

    @property
    def sections(self) -> set[str]:
        """What there is to restore: `localStorage`, `sessionStorage`, `databases`."""
        contents = {"localStorage": self.local, "sessionStorage": self.session, "databases": self.databases}
        return {section for section, content in contents.items() if content}

    @property
    def parts(self) -> set[str]:
        """The same with each database on its own: one that was seen is filled no more, whatever the others do."""
        return self.sections - {"databases"} | {part_of(str(each.get("name"))) for each in self.databases}

    @cached_property
    def literal(self) -> str:
        """A JavaScript expression for `restore.js`."""
        # As text, because a key named `__proto__` is special in an object literal.
        databases = javascript.json_text(self.databases) if self.databases else ""
        content = {"l": self.local, "s": self.session, "d": databases, "site": site_of(self.origin)}
        return javascript.json_text(content)


def part_of(database: str) -> str:
    """Return how receipts name a database."""
    return f"database {database}"


def payloads_of(entries: list[OriginEntry], *, indexed_db: bool = True) -> tuple[list[OriginPayload], list[str]]:
    """Return what the stored origins get back, and the names of those that are not web origins."""
    payloads, unusable = [], []
    for entry in entries:
        origin = origin_of(entry["origin"])
        if origin is None:
            unusable.append(entry["origin"])
            continue
        databases = databases_of(entry) if indexed_db else []
        payload = OriginPayload(origin, items_of(entry, "localStorage"), items_of(entry, "sessionStorage"), databases)
        if payload.sections:
            payloads.append(payload)
    return payloads, unusable


def plan_restore(
    payloads: list[OriginPayload], limit: int = PRELOAD_LIMIT
) -> tuple[list[OriginPayload], list[OriginPayload]]:
    """Decide how each origin is restored.

    Return those that are preloaded by the script that travels to each document: small ones, as many as fit in `limit` characters
    of JSON. The others are restored before the agent starts, on a page that it does not see.
    """
    preloaded, early, total = [], [], 0
    for payload in sorted(payloads, key=lambda each: len(each.literal)):
        size = len(payload.literal)
        total += size
        # A visit takes some 70 ms, so many small origins are preloaded beyond the limit, too.
        if total <= limit or (size <= limit // 8 and total <= 8 * limit):
            preloaded.append(payload)
            continue
        # Another page cannot fill a sessionStorage, so that part is preloaded in any case.
        if payload.session:
            preloaded.append(OriginPayload(payload.origin, [], payload.session, []))
        if payload.local or payload.databases:
            early.append(OriginPayload(payload.origin, payload.local, [], payload.databases))
    return preloaded, early


@dataclass
class RestoreScripts:
    """The two init scripts of one context.

    Args:
        payloads: of the origins to restore.
        overwrites: whether a stored value replaces that of a key which is there already.

    Attributes:
        has_changed: whether the code script is out of date, when it is registered.
        done: origin -> parts that are filled no more.
        started: origins of which a document has started with something to fill, or that were filled before.
        name: of the property with the data. The receipts of documents begin with it.
    """

    payloads: list[OriginPayload]
    overwrites: bool = field(default=False, kw_only=True)
    has_changed: bool = False
    done: dict[str, set[str]] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Choose the name under which the data reaches the code, and receipts reach us."""
        # Random, so that no page can send a receipt of its own.
        self.name = f"_{secrets.token_hex(8)}"
        self._parts: dict[str, set[str]] = {}
        for payload in self.payloads:
            self._parts.setdefault(payload.origin, set()).update(payload.parts)

    @property
    def pending(self) -> frozenset[str]:
        """Origins that are still to be restored, in part or as a whole."""
        return frozenset(origin for origin in self._parts if self.sections(origin))

    def sections(self, origin: str) -> set[str]:
        """Return what the scripts restore of an origin in its next document, each database on its own."""
        return self._parts.get(origin, set()) - self.done.get(origin, set())

    def delivered(self, origin: str) -> None:
        """Note that a document of an origin has run the scripts."""
        had = self.sections(origin)
        if had:
            self.started.add(origin)
        # Databases are filled until they are confirmed: the first document may be left before they are done.
        self.finish(origin, had & WEB_STORAGES)

    def finish(self, origin: str, parts: set[str]) -> None:
        """Fill some parts of an origin no more."""
        if parts & self.sections(origin):
            self.done.setdefault(origin, set()).update(parts)
            self.has_changed = True

    @property
    def data_source(self) -> str:
        """The script that hands a document what is stored of its origin, if that is still to be restored."""
        cases: dict[str, list[str]] = {}
        pending = self.pending
        for payload in self.payloads:
            if payload.origin in pending:
                cases.setdefault(payload.origin, []).append(payload.literal)
        # Functions keep V8 from building what belongs to other origins. `self` knows the origin of an `about:blank`, too.
        body = ",".join(f"{javascript.literal(each)}:()=>[{','.join(parts)}]" for each, parts in cases.items())
        # The loader of databases, 8 KB, stands here: the code is replaced at the first visit of each origin.
        load = javascript.source("indexeddb_load") if any(each.databases for each in self.payloads) else "null"
        # Playwright's `clock` replaces `performance` after this script, and ahead of a code script that is replaced later (1.65).
        entry = "performance.getEntriesByType('navigation')[0]"
        value = f"(payloads=>payloads&&{{payloads,load:{load},entry:{entry}}})(({{{body}}})[self.origin]?.())"
        return f"Object.defineProperty(self,{javascript.literal(self.name)},{{value:{value},configurable:true}})"

    def code_source(self) -> str:
        """The script that fills the storage of a document, as of now."""
        done = {origin: sorted(parts) for origin, parts in self.done.items() if parts}
        arguments = [javascript.literal(each) for each in (self.name, self.overwrites, done)]
        return javascript.call("restore", *arguments)


def fill_script(payload: OriginPayload, *, is_left: bool = False) -> str:
    """Return an expression that fills the storage of an open page, if it is empty, and waits for it.

    It returns `{isOpen, failed}`: whether the storage held something, and a text for each thing that could not be filled.
    """
    return javascript.call("fill", payload.literal, javascript.source("indexeddb_load"), javascript.literal(is_left))
