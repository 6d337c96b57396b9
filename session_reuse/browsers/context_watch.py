"""Follows the tabs of a Playwright context into a `LiveMirror`, written once for both APIs. Must never disturb a page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from session_reuse.browsers import environment, indexeddb, javascript
from session_reuse.browsers.listeners import Listeners
from session_reuse.browsers.live_mirror import DATABASE_EVENTS, STORAGE_EVENTS, LiveMirror
from session_reuse.browsers.origins import origin_of, origin_of_storage, storage_key
from session_reuse.browsers.tab import BINDING, Tab

if TYPE_CHECKING:
    from session_reuse.browsers.context_restore import ContextRestore
    from session_reuse.browsers.hidden_page import PageClient
    from session_reuse.browsers.steps import Steps
    from session_reuse.session import BrowserSession


class ContextWatch:
    """Keeps the mirror of one context up to date while the agent works.

    Args:
        session: to report to.
        context: the Playwright context.
        mirror: to feed.
        restore: to tell about commits.
        client: the face in use.
        indexed_db: whether databases are watched.

    Attributes:
        tabs: the pages that are open now.
        untracked: origins that were visited and whose databases nobody watches yet.
        is_gone: the context was closed.
        has_protocol: the browser speaks the debugging protocol; False for Firefox and WebKit.
    """

    def __init__(
        self,
        session: BrowserSession,
        context: Any,
        mirror: LiveMirror,
        restore: ContextRestore,
        client: PageClient,
        *,
        indexed_db: bool,
    ) -> None:
        self._session = session
        self._context = context
        self._mirror = mirror
        self._restore = restore
        self._client = client
        self._indexed_db = indexed_db
        self._before = mirror.environment
        self._knows_environment = False
        self._held: list[Any] | None = None
        self._listeners = Listeners()
        self.tabs: list[Tab] = []
        self.untracked: set[str] = set()
        self.is_gone = False
        self.has_protocol = True

    def start(self) -> Steps[None]:
        """Follow the pages that are open and all that will be."""
        self._listeners.add(self._context, "page", self._opened)
        self._listeners.add(self._context, "close", self._gone)
        for page in self._context.pages:
            yield from self.attach(self._new_tab(page))

    def stop(self) -> Steps[None]:
        """Let go of a context that lives on."""
        self._listeners.remove_all()
        tabs, self.tabs = self.tabs, []
        for tab in tabs:
            tab.unhook()
            if tab.cdp is not None:
                try:
                    yield self._client.briefly(tab.cdp.detach())
                except self._client.errors:
                    continue  # this tab is gone

    def hidden_page(self) -> Steps[Any]:
        """Return a new page that only we see, or None where there is none."""
        tab = next((tab for tab in self.tabs if tab.cdp is not None), None)
        if tab is None or self._context.browser is None:
            return None
        found = yield tab.send("Target.getTargetInfo", {})
        return (yield self._client.hidden_page(self._context.browser, found["targetInfo"]["browserContextId"]))

    def unfollowed_page(self) -> Steps[Any]:
        """Return a new page that is ours, and not the agent's; pages it opens meanwhile are followed a moment later."""
        ours, self._held = None, []
        try:
            ours = yield self._context.new_page()
        finally:
            held, self._held = self._held, None
            for page in held:
                if page is not ours:
                    self._opened(page)
        return ours

    def _opened(self, page: Any) -> None:
        if self._held is not None:
            self._held.append(page)
            return
        tab = self._new_tab(page)
        if page.is_closed():
            self._closed(tab)  # while it could not be followed
        else:
            self._client.spawn(self.attach(tab))

    def _new_tab(self, page: Any) -> Tab:
        tab = Tab(page, self._client)
        self.tabs.append(tab)
        self._listeners.add(page, "framenavigated", lambda frame: self._navigated(tab, frame))
        self._listeners.add(page, "load", lambda _: self._loaded(tab))
        self._listeners.add(page, "close", lambda _: self._closed(tab))
        tab.unhook = self._client.before_close(page, lambda: self._closing(tab))
        self._committed(tab.origin, [], tab)
        return tab

    def _gone(self, _: Any) -> None:
        self.is_gone = True

    def _closing(self, tab: Tab) -> Steps[None]:
        """Read a page that the agent is about to close: it may have been there for a moment only."""
        origin = tab.origin
        if tab not in self.tabs or origin is None:
            return
        if tab.cdp is None:
            yield from self.attach(tab)
        else:
            yield from self.read(tab, origin)
        if origin not in self._mirror.unread and not tab.acts_when_left:
            tab.shown = None

    def _closed(self, tab: Tab) -> None:
        if tab in self.tabs:
            self.tabs.remove(tab)
        self._left_untold(tab)
        self._mirror.tab_closed(tab)

    def attach(self, tab: Tab) -> Steps[None]:
        """Begin to follow a tab, and read what it has."""
        try:
            cdp = yield self._context.new_cdp_session(tab.page)
            for method in STORAGE_EVENTS:
                cdp.on(method, lambda params, method=method: self._mirror.storage_event(tab, method, params))
            for method in DATABASE_EVENTS:
                cdp.on(method, self._database_event)
            cdp.on("Runtime.bindingCalled", lambda params: self._left(tab, params))
            tab.cdp = cdp
            yield from self._restore.learn(cdp)
            yield tab.send("DOMStorage.enable", {})
        except self._client.errors as error:
            tab.cdp = None
            self._not_attached(tab, error)
            return
        yield from self._look(tab, tab.origin, is_main=True)

    def _not_attached(self, tab: Tab, error: Exception) -> None:
        if not tab.page.is_closed() and "Chromium" in str(error):
            self.has_protocol = False
            self._session.report(
                "capture_limited", "this browser has no live mirror: storage is read at save time only"
            )

    def _database_event(self, params: dict[str, Any]) -> None:
        origin = origin_of_storage(params)
        if origin is not None and self._indexed_db:
            self._mirror.databases_changed(origin)

    def _left(self, tab: Tab, params: dict[str, Any]) -> None:
        """Take over what a document had stored when it was left."""
        if params.get("name") != BINDING:
            return
        told = json.loads(params["payload"])
        origin = origin_of(told["origin"])
        if origin is not None:
            self._mirror.finish_read(self._mirror.begin_read(tab, origin), told["local"], told["session"])
            if origin == tab.shown == tab.origin and not tab.acts_when_left:
                tab.shown = None

    def _navigated(self, tab: Tab, frame: Any) -> None:
        if tab not in self.tabs:
            return
        origin, ancestors = origin_of(frame.url), _ancestor_origins(frame)
        self._committed(origin, ancestors, tab)
        if tab.cdp is not None and ancestors:
            self._client.spawn(self._look(tab, origin, is_main=False))

    def _loaded(self, tab: Tab) -> None:
        """Look at a main frame when it is there: before that, each question would hold up the page."""
        if tab in self.tabs and tab.cdp is not None:
            self._client.spawn(self._look(tab, tab.origin, is_main=True))

    def _committed(self, origin: str | None, ancestors: list[str], tab: Tab) -> None:
        if not ancestors:
            self._left_untold(tab)
            tab.shown, tab.acts_when_left = origin, False
        if origin is None:
            return
        self._restore.committed(self._context, origin, ancestors)
        if not ancestors:
            self._mirror.committed(origin)
            if origin not in tab.tracked and self._indexed_db:
                self.untracked.add(origin)

    def _left_untold(self, tab: Tab) -> None:
        """Have an origin read again, unless its document still tells what it has stored.

        Its last events may be lost when another process takes over the tab, and so may what it tells (Chromium 156).
        """
        if tab.shown is not None:
            self._mirror.left_untold(tab.shown)

    def _look(self, tab: Tab, origin: str | None, *, is_main: bool) -> Steps[None]:
        """Read what a new document has of its origin."""
        if origin is None:
            return
        is_read = yield from self.read(tab, origin)  # first, for an agent may close the page as soon as it is there
        is_still_there = not tab.page.is_closed() and (tab.origin == origin or not is_main)
        if is_read:
            self._mirror.arrived(origin, self._restore.scripts.delivered(origin))
        elif is_still_there and self._mirror.is_in_doubt(origin):
            yield from self._restore.put_back(self._context, origin)
        if not is_main:
            return
        try:
            yield from tab.follow_documents()
            yield from self._track_databases(tab, origin)
            yield from tab.look_for_last_acts()
        except self._client.errors:
            return  # the tab has gone
        yield from self.poll_cookies()

    def read(self, tab: Tab, origin: str, *, with_session: bool = True) -> Steps[bool]:
        """Read the web storage of an origin that has a frame in this tab; return whether it could be."""
        reading = self._mirror.begin_read(tab, origin)
        local = session = None
        try:
            steps = [tab.stored(origin, is_local=True)]
            if with_session:
                steps.append(tab.stored(origin, is_local=False))
            found = yield steps
            local, session = found[0]["entries"], found[-1]["entries"] if with_session else None
        except self._client.errors:
            return False  # the document has gone, or its storage is partitioned
        finally:
            self._mirror.finish_read(reading, local, session)
        return True

    def _track_databases(self, tab: Tab, origin: str) -> Steps[None]:
        if origin in tab.tracked or not self._indexed_db:
            return
        try:
            yield tab.send("Storage.trackIndexedDBForStorageKey", {"storageKey": storage_key(origin)})
            used = yield tab.send("Storage.getUsageAndQuota", {"origin": origin})
        except self._client.errors:
            return  # the tab has gone; `untracked` still names the origin
        tab.tracked.add(origin)
        self.untracked.discard(origin)
        if indexeddb.is_used(used) or self._mirror.has_databases(origin):
            self._mirror.databases_changed(origin)  # before the first event

    def poll_cookies(self) -> Steps[bool]:
        """Read all cookies; return whether the browser has answered."""
        try:
            cookies = yield self._context.cookies()
        except self._client.errors:
            return False
        self._mirror.cookies_read(cookies)
        return True

    def note_environment(self, tab: Tab) -> Steps[None]:
        """Learn once what sites see of the browser's setting."""
        if self._knows_environment:
            return
        try:
            now = yield from tab.evaluate_apart(javascript.call("environment"))
        except self._client.errors:
            return
        self._knows_environment = True
        self.environment_seen({**now, **({"viewport": tab.page.viewport_size} if tab.page.viewport_size else {})})

    def environment_seen(self, now: environment.Environment) -> None:
        """Take over what sites see now, and report what differs from what was recorded."""
        for name in environment.changed(self._before, now):
            self._session.report("environment_changed", name)
        self._mirror.environment = {**self._before, **now}


def _ancestor_origins(frame: Any) -> list[str]:
    """Return the origins of the frames around a frame; an opaque one counts as an origin of its own."""
    origins = []
    while (frame := frame.parent_frame) is not None:
        origins.append(origin_of(frame.url) or "null")
    return origins
