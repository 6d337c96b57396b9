"""Which origin is restored how, and the init scripts that do it. Must never fill an origin twice, and never do I/O.

Small origins are restored lazily: an init script fills the storage of an origin in its first document, before the
page's own scripts run. After its first commit the script is taken out, so that a page that clears its storage is not
refilled and a token it has refreshed is not rolled back. Large origins, those with IndexedDB (a document that redirects at
once takes its unfinished databases with it), and what is beyond a few scripts, are filled on a hidden page: when they are
asked for where documents can be held, else before the agent starts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final, NamedTuple

from session_reuse.browsers import javascript
from session_reuse.browsers.origins import Items, OriginEntry, databases_of, items_of, origin_of, shares_storage

LAZY_ORIGIN_BYTES: Final = 128 * 1024
"""Origins with a larger payload are filled on a hidden page."""
LAZY_TOTAL_BYTES: Final = 4 * 1024 * 1024
"""All scripts together: they are shipped to each new page (1 MB costs about 20 ms a document, measured 2026-11-22)."""
SHIPPED_BYTES: Final = 512 * 1024
"""States with more than this are filled on demand where that can be done, so that what a page costs stops to grow.

With 500 KB shipped, a page takes 10 ms longer and none needs a hidden page (80 ms each); with 1 MB it is 20 ms, and the
first page is slower than on demand (measured 2026-11-22).
"""
HIDDEN_SECTIONS: Final = frozenset({"localStorage", "databases"})
"""What a hidden page fills: the sessionStorage of another page it cannot."""
FILLER_LIMIT: Final = 12.0
"""Seconds that a hidden page may take to fill an origin that is asked for."""


class Into(StrEnum):
    """What a script does to a storage that holds something already."""

    EMPTY = "empty"
    """Nothing: it is newer."""
    GAPS = "gaps"
    """It adds the keys that are missing."""
    ALL = "all"
    """It replaces the values of its keys."""


@dataclass(frozen=True)
class Payload:
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

    @cached_property
    def text(self) -> str:
        """JSON for `restore.js`, which knows no databases, and `fill.js`."""
        content: dict[str, Any] = {"l": self.local, "s": self.session}
        if self.databases:
            content["d"] = self.databases
        return javascript.json_text(content)


class RestorePlan(NamedTuple):
    """How origins are restored."""

    lazy: list[Payload]
    """By an init script."""
    hidden: list[Payload]
    """On a hidden page."""


def payloads_of(entries: list[OriginEntry], *, indexed_db: bool = True) -> tuple[list[Payload], list[str]]:
    """Return what the stored origins get back, and the names of those that are not web origins.

    Args:
        entries: `storage_state["origins"]`.
        indexed_db: whether databases are restored.
    """
    payloads, unusable = [], []
    for entry in entries:
        origin = origin_of(entry["origin"])
        if origin is None:
            unusable.append(entry["origin"])
            continue
        databases = databases_of(entry) if indexed_db else []
        payload = Payload(origin, items_of(entry, "localStorage"), items_of(entry, "sessionStorage"), databases)
        if payload.local or payload.session or payload.databases:
            payloads.append(payload)
    return payloads, unusable


def plan_restore(payloads: list[Payload], total_bytes: int = LAZY_TOTAL_BYTES) -> RestorePlan:
    """Decide for each origin how it is restored.

    Args:
        payloads: of the origins.
        total_bytes: of all scripts together.
    """
    plan = RestorePlan([], [])
    total = 0
    for payload in payloads:
        size = len(payload.text)
        if payload.databases or size > LAZY_ORIGIN_BYTES or total + size > total_bytes:
            plan.hidden.append(payload)
            continue
        total += size
        plan.lazy.append(payload)
    # A hidden page cannot fill the sessionStorage of another: that part stays lazy.
    plan.lazy.extend(Payload(p.origin, [], p.session, []) for p in plan.hidden if p.session)
    return plan


def plan_on_demand(payloads: list[Payload], shipped_bytes: int) -> RestorePlan | None:
    """Decide the same for a browser that can fill origins on demand; None when no origin needs it.

    Args:
        payloads: of the origins.
        shipped_bytes: of all scripts together; with more, all origins are left until they are asked for.
    """
    plan = plan_restore(payloads)
    if sum(len(payload.text) for payload in plan.lazy) > shipped_bytes:
        plan = plan_restore(payloads, 0)
    return plan if plan.hidden else None


class _Script(NamedTuple):
    """What one script brings to its origin, and how."""

    payload: Payload
    into: Into


class LazyScripts:
    """The init scripts of one context, one for each origin that is still to be filled.

    Args:
        payloads: of the origins to restore.
        fresh: the context was made for this session: a storage that is not empty was filled by a page, and stays.
    """

    def __init__(self, payloads: list[Payload], *, fresh: bool) -> None:
        self._into = Into.EMPTY if fresh else Into.ALL
        self._numbers = itertools.count()
        self._scripts: dict[int, _Script] = {}
        self._done: dict[str, list[_Script]] = {}
        self.add(payloads)

    @property
    def pending(self) -> frozenset[str]:
        """Origins that have not been restored yet."""
        return frozenset(script.payload.origin for script in self._scripts.values())

    @property
    def numbers(self) -> list[int]:
        """The scripts that pages need now."""
        return list(self._scripts)

    def payload(self, origin: str) -> Payload:
        """Return what a pending origin gets back."""
        return next(script.payload for script in self._scripts.values() if script.payload.origin == origin)

    def source(self, number: int) -> str:
        """Return the text of a script."""
        return restore_script(*self._scripts[number])

    def committed(self, origin: str, ancestors: list[str]) -> list[int]:
        """Note the commit of a document.

        Args:
            origin: the document's.
            ancestors: origins of the frames around it, from the inside out; empty for a top-level page.

        Returns:
            The scripts that are to be taken out of all pages: none, or one; two for an origin in two parts.
        """
        if not shares_storage(origin, ancestors):
            return []
        done = [number for number, script in self._scripts.items() if script.payload.origin == origin]
        if done:
            self._done[origin] = [self._scripts.pop(number) for number in done]
        return done

    def delivered(self, origin: str) -> set[str]:
        """Return which sections of an origin scripts have filled, if its document was one of its own."""
        return {section for script in self._done.get(origin, ()) for section in script.payload.sections}

    def put_back(self, origin: str) -> list[int]:
        """Arm an origin once more: its document was none of its own after all; return the numbers of its scripts."""
        into = Into.GAPS if self._into is Into.EMPTY else self._into  # what came in between is no logout
        added = {next(self._numbers): script._replace(into=into) for script in self._done.pop(origin, ())}
        self._scripts.update(added)
        return list(added)

    def drop(self, number: int) -> None:
        """Leave the origin of a script to somebody else."""
        self._scripts.pop(number, None)

    def add(self, payloads: list[Payload], into: Into | None = None) -> list[int]:
        """Arm more origins, or more of the same; return the numbers of their scripts.

        Args:
            payloads: of the origins.
            into: another way than that of the other scripts.
        """
        added = {next(self._numbers): _Script(payload, into or self._into) for payload in payloads}
        self._scripts.update(added)
        return list(added)


def restore_script(payload: Payload, into: Into) -> str:
    """Return an init script that fills the storage of an origin, in its own documents only."""
    words = (javascript.literal(each) for each in (payload.origin, payload.text, into))
    return javascript.call("restore", *words)


def fill_script(payload: Payload) -> str:
    """Return an expression that fills localStorage and IndexedDB of the hidden page's origin and waits for it."""
    text = javascript.literal(payload.text).replace("<", "\\u003c")  # nothing in it ends a script element
    return javascript.call("fill", f"JSON.parse({text})", javascript.source("indexeddb_load"))


def filler_page(payload: Payload, done: str) -> str:
    """Return a document that fills localStorage and IndexedDB of its origin and then goes to a URL with what failed.

    Args:
        payload: of its origin.
        done: the URL, to which a JSON list is appended.
    """
    script = javascript.call(
        "filler",
        javascript.literal(payload.origin),
        javascript.literal(FILLER_LIMIT * 1000),
        f"async () => {fill_script(payload)}",
        javascript.literal(done),
    )
    return f"<!doctype html><script>{script}</script>"
