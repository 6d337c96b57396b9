"""Reads a Playwright context once more before a save, written once for both APIs. Must never lose what was seen before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from session_reuse.browsers import indexeddb, javascript
from session_reuse.browsers.hidden_page import PageClient, routed_page, visit_origins
from session_reuse.browsers.origins import items_of, origin_of
from session_reuse.browsers.tab import Tab

if TYPE_CHECKING:
    from collections.abc import Callable

    from session_reuse.browsers.context_watch import ContextWatch
    from session_reuse.browsers.live_mirror import LiveMirror
    from session_reuse.browsers.steps import Steps
    from session_reuse.session import BrowserSession
    from session_reuse.state.storage_state import StorageState

SWEEP_LIMIT: Final = 2.0
"""Seconds for visiting origins again whose page was gone before it could be read."""


class ContextCapture:
    """Brings the mirror up to date: cookies, open pages, changed databases, origins missed on the way.

    Args:
        session: to report to.
        context: the Playwright context.
        mirror: to bring up to date.
        watch: the tabs.
        client: the face in use.
        clock: monotonic seconds.
        indexed_db: whether databases are copied.
        opfs: whether origin private file systems are read.
        credentials: whether WebAuthn credentials are read.
    """

    def __init__(
        self,
        session: BrowserSession,
        context: Any,
        mirror: LiveMirror,
        watch: ContextWatch,
        client: PageClient,
        *,
        clock: Callable[[], float],
        indexed_db: bool,
        opfs: bool,
        credentials: bool,
    ) -> None:
        self._session = session
        self._context = context
        self._mirror = mirror
        self._watch = watch
        self._client = client
        self._clock = clock
        self._indexed_db = indexed_db
        self._extras = {"opfs": True} if opfs else {}
        self._extras |= {"credentials": True} if credentials else {}

    def capture(self) -> Steps[StorageState]:
        """Return what the browser holds now, or what it was last seen to hold when it is gone."""
        if self._watch.is_gone or not (yield from self._watch.poll_cookies()):
            self._session.report("browser_gone", "the state is the one last seen")
        elif self._watch.has_protocol:
            yield from self._read_pages()
        else:
            yield from self._read_without_protocol()
        if self._extras and not self._watch.is_gone:
            yield from self._read_extras()
        for loss in self._mirror.lost():
            self._session.report("lost", str(loss))
        return self._mirror.state()

    def _read_pages(self) -> Steps[None]:
        open_tabs: dict[str, Tab] = {}
        reading = [self._client.spawn(self._read_page(tab, open_tabs)) for tab in list(self._watch.tabs)]
        yield [self._client.briefly(task) for task in reading if task is not None]
        for tab in open_tabs.values():
            yield from self._watch.note_environment(tab)
        copied = set()
        for origin in sorted((self._mirror.dirty_databases | self._watch.untracked) & open_tabs.keys()):
            if (yield from self._copy_databases(open_tabs[origin], origin)):
                copied.add(origin)
        if missed := self._missed() - copied:  # a copy may make the browser report a change: its own bookkeeping
            yield from self._sweep(sorted(missed))

    def _read_page(self, tab: Tab, answered: dict[str, Tab]) -> Steps[None]:
        """Read an open page, beside the others: one that is on its way to a slow site does not answer."""
        origin = tab.origin
        if origin is None:
            return
        if tab.cdp is None:
            yield from self._watch.attach(tab)  # it is new, and this machine is busy
        if tab.cdp is not None and (yield from self._watch.read(tab, origin)):
            answered[origin] = tab

    def _missed(self) -> set[str]:
        return self._mirror.unread | self._mirror.dirty_databases | self._watch.untracked

    def refresh(self) -> Steps[None]:
        """Read what no event has told, between saves: cookies; in open pages, changed databases and what was never read."""
        if self._watch.is_gone or not (yield from self._watch.poll_cookies()):
            return
        for tab in list(self._watch.tabs):
            if tab.cdp is None or tab.origin is None:
                continue
            yield from self._watch.note_environment(tab)
            if tab.origin in self._mirror.unread:
                yield from self._watch.read(tab, tab.origin)
            if tab.origin in self._mirror.dirty_databases:
                yield from self._copy_databases(tab, tab.origin)

    def _copy_databases(self, tab: Tab, origin: str) -> Steps[bool]:
        self._mirror.dirty_databases.discard(origin)
        try:
            text = yield from tab.evaluate_apart(indexeddb.dump_script())
            if tab.origin == origin and isinstance(text, str):
                self._mirror.databases_read(origin, indexeddb.read_dump(origin, text))
                self._watch.untracked.discard(origin)
                return True
        except self._client.errors:
            pass  # the page has gone meanwhile
        self._mirror.dirty_databases.add(origin)
        return False

    def _sweep(self, origins: list[str]) -> Steps[None]:
        """Visit origins again that could not be read while their page was there."""
        deadline = self._clock() + SWEEP_LIMIT
        done = set()
        hidden = None

        def visit(page: Any, origin: str) -> Steps[None]:
            if self._clock() > deadline:
                return
            tab = Tab(page, self._client, hidden or (yield self._context.new_cdp_session(page)))
            yield tab.send("DOMStorage.enable", {})
            yield from self._watch.read(tab, origin, with_session=False)
            if not self._indexed_db or (yield from self._copy_databases(tab, origin)):
                done.add(origin)

        try:
            hidden = yield from self._watch.hidden_page()
            page = hidden or (yield from routed_page((yield from self._watch.unfollowed_page()), self._client))
            yield from visit_origins(page, self._client, origins, visit)
        except self._client.errors:
            pass  # the context has gone meanwhile
        for origin in sorted(set(origins) - done):
            self._session.report("capture_limited", f"{origin} could not be read again; what was last seen is kept")

    def _read_without_protocol(self) -> Steps[None]:
        """Read with Playwright's own means: slower, and without IndexedDB."""
        self._mirror.source = "storage_state"
        found = yield self._context.storage_state()
        stored = {entry["origin"]: items_of(entry, "localStorage") for entry in found["origins"]}
        tabs = {tab.origin: tab for tab in self._watch.tabs if tab.origin}
        for origin in sorted({*stored, *self._mirror.visited, *tabs}):
            reading = self._mirror.begin_read(tabs.get(origin), origin)
            self._mirror.arrived(origin)  # nothing has told what was there in between
            session = None
            try:
                if origin in tabs:
                    session = (yield tabs[origin].page.evaluate(javascript.call("storage_read")))["session"]
            except self._client.errors:
                pass  # the page has gone meanwhile
            finally:
                self._mirror.finish_read(reading, stored.get(origin, []), session)

    def _read_extras(self) -> Steps[None]:
        try:
            found = yield self._context.storage_state(**self._extras)
        except self._client.errors:
            self._session.report("capture_limited", "OPFS or credentials could not be read")
            return
        if "opfs" in self._extras:
            files = {entry["origin"]: entry.get("opfs", []) for entry in found["origins"]}
            self._mirror.files_read({origin_of(origin) or origin: listed for origin, listed in files.items()})
        if "credentials" in self._extras:
            self._mirror.credentials_read(found.get("credentials", []))
