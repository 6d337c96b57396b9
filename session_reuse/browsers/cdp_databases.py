"""Copying IndexedDB over DevTools: which origins are due, and where they can be read. Must never write a database."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from session_reuse.browsers.cdp_connection import CdpConnection, CdpError
from session_reuse.browsers.cdp_hidden_page import HiddenPage, hidden_page
from session_reuse.browsers.indexeddb import Dump, dump_script, is_used, read_dump
from session_reuse.browsers.origins import OriginEntry, databases_of, origin_of, storage_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from session_reuse.browsers.cdp_page import CdpPage
    from session_reuse.browsers.live_mirror import LiveMirror

_SECOND_LOOK: Final = 0.2
"""Seconds after which databases that were restored, and are not there yet, are looked for again."""


class CdpDatabases:
    """The databases of one browser.

    Args:
        connection: to the browser.
        mirror: takes the copies.
        restored: `storage_state["origins"]` as restored.
        report: told what could not be copied.
        hidden: session id -> hidden page; whoever handles events looks here.
    """

    def __init__(
        self,
        connection: CdpConnection,
        mirror: LiveMirror,
        restored: list[OriginEntry],
        report: Callable[[str, str], None],
        hidden: dict[str, HiddenPage],
    ) -> None:
        self._connection = connection
        self._mirror = mirror
        self._report = report
        self._hidden = hidden
        self._restored = {
            origin: names for entry in restored if (names := _names(entry)) and (origin := _origin(entry))
        }
        self._unchecked: set[str] = set()
        self._interrupted: set[str] = set()
        self._lock = asyncio.Lock()

    def watch(self, session: str, origins: Iterable[str] | None = None) -> None:
        """Have the browser tell a page's session of changes in the databases of origins, at first of restored ones."""
        for origin in self._restored if origins is None else origins:
            key = {"storageKey": storage_key(origin)}
            self._connection.post("Storage.trackIndexedDBForStorageKey", key, session)

    def visited(self, session: str, origin: str) -> None:
        """Note that a document of an origin has started in a page: it may have databases already."""
        self.watch(session, [origin])
        self._unchecked.add(origin)

    async def read(self, pages: Collection[CdpPage]) -> None:
        """Copy what is due: from an open page of the origin, else from a hidden one.

        Raises:
            CdpError: the browser is gone.
        """
        async with self._lock:
            due = self._unchecked | self._mirror.dirty_databases
            self._unchecked = set()
            open_at = {page.origin: page for page in pages if page.origin not in self._interrupted}
            for origin in sorted(due & open_at.keys()):
                await self._copy(origin, open_at[origin].evaluate)
            await self._read_hidden(
                [origin for origin in sorted(due - open_at.keys()) if await self._any(origin, pages)]
            )

    async def _read_hidden(self, origins: list[str]) -> None:
        if not origins:
            return
        try:
            async with hidden_page(self._connection, self._hidden) as page:
                for origin in origins:
                    await self._copy(origin, partial(page.evaluate_at, origin))
        except CdpError:
            for origin in origins:
                self._report("capture_limited", f"{origin}: IndexedDB could not be copied, for want of a hidden page")

    async def _any(self, origin: str, pages: Collection[CdpPage]) -> bool:
        """Return whether an origin may have databases."""
        if origin in self._mirror.dirty_databases or origin in self._restored:
            return True
        try:
            session = next(iter(pages)).session if pages else ""
            usage = await self._connection.send("Storage.getUsageAndQuota", {"origin": origin}, session)
        except CdpError:
            return True
        return is_used(usage)

    async def _copy(self, origin: str, evaluate: Callable[[str], Awaitable[Any]]) -> None:
        was_dirty = origin in self._mirror.dirty_databases
        self._mirror.dirty_databases.discard(origin)
        try:
            dump = await _dumped(origin, evaluate)
            if self._restored.get(origin, set()) - {database["name"] for database in [*dump.plain, *dump.rich]}:
                await asyncio.sleep(_SECOND_LOOK)
                dump = await _dumped(origin, evaluate)
        except (CdpError, ValueError, TypeError):
            self._failed(origin, was_dirty=was_dirty)
            return
        self._take(origin, dump)

    def _failed(self, origin: str, *, was_dirty: bool) -> None:
        """Try once more at the next look, on a hidden page: one that goes on to another document interrupts a copy."""
        if self._connection.ended.is_set():
            return
        if origin in self._interrupted:
            self._report("capture_limited", f"{origin}: IndexedDB could not be copied")
            return
        self._interrupted.add(origin)
        (self._mirror.dirty_databases if was_dirty else self._unchecked).add(origin)

    def _take(self, origin: str, dump: Dump) -> None:
        self._restored.pop(origin, None)
        self._interrupted.discard(origin)
        self._mirror.databases_read(origin, dump)
        for loss in dump.lost:
            self._report("lost", str(loss))


async def _dumped(origin: str, evaluate: Callable[[str], Awaitable[Any]]) -> Dump:
    """Return the databases of a page, if it is still of that origin: it may have gone on since it was chosen."""
    where, text = await evaluate(f"(async () => [location.origin, await {dump_script()}])()")
    if where != origin:
        raise CdpError(f"the page has left {origin}")
    return read_dump(origin, text)


def _names(entry: OriginEntry) -> set[str]:
    return {str(database["name"]) for database in databases_of(entry)}


def _origin(entry: OriginEntry) -> str | None:
    return origin_of(entry["origin"])
