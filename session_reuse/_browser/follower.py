"""Follows all tabs of a context: their documents, what they store, and when they are left."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from session_reuse._browser import javascript, limits
from session_reuse._browser.blank_page import evaluate_apart
from session_reuse._browser.origins import origin_of, origin_of_storage, storage_key
from session_reuse._browser.storage.databases import dump_script, is_used, read_dump
from session_reuse._browser.storage.mirror import STORAGE_EVENTS
from session_reuse._browser.storage.progress import WEB_STORAGES
from session_reuse._browser.tabs import Frame, Tab, Target, frame_of

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator

    from session_reuse._browser.driver import BrowserDriver, Params
    from session_reuse._browser.flow import Flow
    from session_reuse._browser.options import Settings
    from session_reuse._browser.restorer import Restorer
    from session_reuse._browser.storage.mirror import StorageMirror

EVENTS: Final = (
    *STORAGE_EVENTS,
    "Storage.indexedDBContentUpdated",
    "Storage.indexedDBListUpdated",
    "Page.frameNavigated",
    "Page.frameDetached",
    "Page.frameStartedNavigating",
    "Page.frameRequestedNavigation",
    "Page.loadEventFired",
    "Inspector.targetCrashed",
    "Log.entryAdded",
    "Performance.metrics",
)
"""What a driver hands to `Follower.on_event`."""
ENABLE: Final[tuple[tuple[str, Params], ...]] = (
    ("Page.enable", {}),
    ("DOMStorage.enable", {}),
    ("Log.enable", {}),
    ("Inspector.enable", {}),
    ("Performance.enable", {}),
)
"""What a driver sends to a new target before `Follower.adopt`."""

_LARGE: Final = 256 * 1024
"""Characters of localStorage from which on it is not read at each departure."""
_RECENT: Final = 0.5
"""Seconds for which events of a write may still be on their way when its document is left."""
_NO_STORAGE: Final = "Frame not found for the given storage id"
_CLEARED: Final = re.compile(r"Clear-Site-Data header on '([^']+)': Cleared data types")
_LEAVING: Final = frozenset({
    "beforeunload", "freeze", "pagehide", "pageswap", "unload", "visibilitychange", "webkitvisibilitychange",
})  # fmt: skip
"""Events that run handlers of a document when it is left."""


class Follower:
    """Follows the tabs of one context.

    Attributes:
        tabs: those that are open.
        suspects: origins whose storage the browser itself may have cleared.
        has_followed: whether there ever was a tab.
    """

    def __init__(
        self,
        mirror: StorageMirror,
        restorer: Restorer,
        driver: BrowserDriver,
        settings: Settings,
        *,
        is_new_profile: bool,
    ) -> None:
        self._mirror = mirror
        self._restorer = restorer
        self._driver = driver
        self._indexed_db = settings.indexed_db
        self._database_limit = settings.database_limit
        self._is_new_profile = is_new_profile
        self._shown: set[str] = set()
        self._last_write: dict[str, float] = {}
        self._was_read: set[tuple[Hashable, str]] = set()
        self.tabs: list[Tab] = []
        self.suspects: set[str] = set()
        self.has_followed = False

    def open_frames(self, silent: Collection[Frame] = ()) -> dict[str, Frame]:
        """Return a document for each origin that is open, but no silent one. Top-level ones come first."""
        frames = sorted(self.shared_frames(), key=lambda frame: frame.parent is not None)
        return {frame.origin: frame for frame in reversed(frames) if frame.origin is not None and frame not in silent}

    def shared_frames(self) -> Iterator[Frame]:
        """Yield the documents that have the storage of top-level pages of their origin."""
        for tab in list(self.tabs):
            yield from [frame for frame in tab.frames.values() if frame.shares_storage]

    def opened(self, tab: Tab) -> None:
        """Note a new tab."""
        self.has_followed = True
        self.tabs.append(tab)

    def closed(self, tab: Tab) -> None:
        """Note that a tab was closed."""
        if tab in self.tabs:
            self.tabs.remove(tab)
        self._mark_unseen(tab.frames.values())
        tab.frames = {}
        self._was_read = {(key, origin) for key, origin in self._was_read if key != tab.key}
        self._mirror.tab_closed(tab.key)

    def disconnected(self) -> None:
        """Note that the connection has ended: what is open, or was not read, may change until it is followed again."""
        for origin in {*self._mirror.unread, *self.open_frames()}:
            self._mirror.mark_unread(origin)
            if self._indexed_db:
                self._mirror.databases_changed(origin)
        for tab in list(self.tabs):
            self.closed(tab)
        self._is_new_profile = False  # a first document may have come and gone unseen
        self._shown.clear()

    def target_gone(self, target: Target) -> None:
        """Note that a tab, or a frame in a separate process, was closed."""
        tab = target.tab
        if target.is_page:
            self.closed(tab)
            return
        gone = [each for each in tab.frames.values() if each.target is target]
        self._mark_unseen(gone)
        for frame in gone:
            del tab.frames[frame.id]

    def _crashed(self, target: Target) -> None:
        """Note that the process of a target has ended. Its tab stays, and may be loaded again."""
        gone = [each for each in target.tab.frames.values() if target.is_page or each.target is target]
        self._mark_unseen(gone)
        for frame in gone:
            frame.origin = None

    def _mark_unseen(self, frames: Collection[Frame]) -> None:
        """Mark what documents that have ended without a word may have stored."""
        for frame in frames:
            if frame.origin is not None and frame.shares_storage and (frame.acts_when_left or not frame.is_read):
                self._mirror.mark_unread(frame.origin)

    def adopt(self, target: Target, tree: Params) -> None:
        """Register the documents, a `Page.FrameTree`, that a target has when it is attached and enabled."""
        self._committed(target, tree["frame"], is_followed=False)
        target.is_adopted = True
        for child in tree.get("childFrames", ()):
            self.adopt(target, child)

    def on_event(self, target: Target, method: str, params: Params) -> None:
        """Follow one of `EVENTS`."""
        if method in STORAGE_EVENTS:
            self._storage_changed(target, method, params)
        elif method.startswith("Storage."):
            self._databases_changed(target, origin_of_storage(params))
        elif method == "Page.frameNavigated":
            self._committed(target, params["frame"], is_followed=True)
        elif method == "Page.frameDetached":
            if params.get("reason") != "swap":  # a frame that is swapped lives on in another process
                self._gone(target.tab.frames.pop(params["frameId"], None))
        elif method == "Page.loadEventFired":
            self._loaded(target)
        elif method == "Inspector.targetCrashed":
            self._crashed(target)
        elif method == "Log.entryAdded":
            self._logged(params["entry"])
        elif method == "Performance.metrics":
            self._reported(target, params["title"])
        else:
            self._navigating(target, method, params)

    def _databases_changed(self, target: Target, origin: str | None) -> None:
        if origin is None or not self._indexed_db:
            return
        self._mirror.databases_changed(origin)
        # Until the next copy: there is an event for each value that a page puts, and one says all.
        if target.tracked.pop(origin, None) is not None:
            params = {"storageKey": storage_key(origin)}
            method = "Storage.untrackIndexedDBForStorageKey"
            self._driver.spawn(self._driver.try_send(target.cdp, method, params))

    def _storage_changed(self, target: Target, method: str, params: Params) -> None:
        known = self._mirror.version
        if (origin := self._mirror.storage_event(target.tab.key, method, params)) is not None:
            self._last_write[origin] = time.monotonic()
            if self._mirror.version != known:
                self._goes_on(origin)

    def _reported(self, target: Target, title: str) -> None:
        """Take a receipt of `restore.js`. Pages stamp their own timeline too."""
        name, _, rest = title.partition(" ")
        if name != self._restorer.scripts.name:
            return
        origin, _, receipt = rest.partition(" ")
        frames = [frame for frame in target.tab.frames.values() if frame.origin == origin]
        question, _, part = receipt.partition(" ")
        if question == "asks":
            event = javascript.literal(self._restorer.permission(origin, part))
            self._driver.spawn(self._answer(frames, f"dispatchEvent(new Event({event}))"))
        elif not frames or any(frame.shares_storage for frame in frames):
            self._restorer.take_receipt(origin, receipt)

    def _answer(self, frames: list[Frame], expression: str) -> Flow[None]:
        # In an isolated world: the page may have replaced its own `dispatchEvent`.
        with suppress(*self._driver.errors):
            yield [self.evaluate(frame, expression) for frame in frames]

    def _goes_on(self, origin: str) -> None:
        """Note that documents store more after their last read: they have got a download, or wait for a slow site."""
        for frame in self.shared_frames():
            if frame.origin == origin and frame.is_read:
                frame.is_read = None

    def _logged(self, entry: Params) -> None:
        found = _CLEARED.match(str(entry.get("text")))
        origin = origin_of(found.group(1)) if found else None
        if origin is not None:
            self.suspects.add(origin)

    def _committed(self, target: Target, found: Params, *, is_followed: bool) -> None:
        tab = target.tab
        before = tab.frames.get(found["id"])
        # It came with the tree, or it is newer than the tree: an event may be handled before an answer that came ahead of it.
        is_older = before is not None and before.target is target and not is_followed
        if is_older or (before is not None and before.loader == found.get("loaderId")):
            return
        frame = frame_of(found, target, time.monotonic())
        if frame.parent is None:
            for other in [each for each in tab.frames.values() if each is not before]:
                self._gone(other)  # while it is known which frames are around it
            tab.frames.clear()
        tab.frames[frame.id] = frame
        self._gone(before)
        if frame.shares_storage and frame.origin is not None:
            if frame.parent is None:
                self._restorer.started(frame.origin)
            was_tracked = target.tracked.get(frame.origin, False)
            # In a context of our own, events show all that the first document of an origin finds and does, unless it was
            # committed while they were being asked for.
            is_told = is_followed and target.is_adopted
            is_first = frame.origin not in self._shown
            is_seen = is_told and self._is_new_profile and frame.parent is None and is_first
            may_have_databases = not was_tracked or (is_first and not self._is_new_profile)
            self._shown.add(frame.origin)
            reading = self._read_first(
                frame, frame.origin, may_have_databases=may_have_databases, is_told=is_told, is_seen=is_seen
            )
            self._driver.spawn(reading)

    def _gone(self, frame: Frame | None) -> None:
        """Decide whether a document that was left may have stored something that was not seen."""
        if frame is None or frame.origin is None or not frame.shares_storage:
            return
        is_seen = frame.is_read
        # Events of its last writes are lost when another document takes over, also one of the same origin, which is read then:
        # 21 of 200 logins in a document that sent its visitor on (Chromium 156, busy machine, 2026-11-26).
        if is_seen is None:  # nothing has announced its end
            last_write = max(self._last_write.get(frame.origin, 0.0), frame.committed_at)
            is_seen = frame.is_loaded and time.monotonic() - last_write >= _RECENT
        if frame.acts_when_left or not is_seen:
            self._mirror.mark_unread(frame.origin)

    def _loaded(self, target: Target) -> None:
        frame = target.tab.main
        if frame is not None and frame.target is target and frame.origin is not None:
            frame.is_loaded = True
            self._driver.spawn(self._read_when_loaded(frame, frame.origin))

    def _read_when_loaded(self, frame: Frame, origin: str) -> Flow[None]:
        yield from self._find_handlers(frame)
        if self._mirror.progress(origin).unseen_sections() - {"databases"} and frame.is_current:
            yield from self._read_new(frame, origin)
        else:
            self._restorer.seen(origin)

    def _find_handlers(self, frame: Frame) -> Flow[None]:
        """Learn whether a top-level document has handlers that run when it is left."""
        if frame.parent is not None:
            return  # no command reaches the window of a frame in the same process
        frame.acts_when_left = True  # at once: it may be left before the answer is there
        cdp = frame.target.cdp
        try:
            if not frame.handles:  # no page can replace these two names
                names = ({"expression": each} for each in ("window", "document"))
                found = yield [self._driver.send(cdp, "Runtime.evaluate", each) for each in names]
                frame.handles = [{"objectId": each["result"]["objectId"]} for each in found]
            # No expression: in the page's own world it may call functions of the page, in another it finds no handlers.
            found = yield [self._driver.send(cdp, "DOMDebugger.getEventListeners", each) for each in frame.handles]
        except self._driver.errors:
            return  # not known, so it is read again after it was left
        # An `about:blank` in it has its storage, and may have handlers of its own.
        has_inner = any((each.parent, each.origin) == (frame.id, None) for each in frame.target.tab.frames.values())
        frame.acts_when_left = has_inner or any(each["type"] in _LEAVING for a in found for each in a["listeners"])

    def _navigating(self, target: Target, method: str, params: Params) -> None:
        frame = target.tab.frames.get(params["frameId"])
        origin = origin_of(str(params.get("url")))
        if frame is None or params.get("navigationType", "differentDocument") != "differentDocument":
            return
        if params.get("disposition", "currentTab") != "currentTab":
            return  # a new tab, or a download: the document stays
        if method == "Page.frameStartedNavigating":
            # The renderer answers no more: it is being replaced. But the storage service does.
            if frame.parent is None and origin is not None:
                self._driver.spawn(self._track(target, origin))
        else:
            self._driver.spawn(self.read_before_leaving(frame, origin))

    def leaving(self, tab: Tab, url: str | None = None) -> Flow[None]:
        """Read a tab whose agent is about to send it to a URL, or to a page not known, or to close it."""
        next_origin = None if url is None else origin_of(url)
        frames = {frame.origin: frame for frame in tab.frames.values() if frame.shares_storage}
        yield [self.read_before_leaving(frame, next_origin) for frame in frames.values()]

    def read_before_leaving(self, frame: Frame, next_origin: str | None) -> Flow[None]:
        """Return a flow that reads what a document has stored, while it is still there. A redirect may lead elsewhere."""
        origin = frame.origin
        is_large = origin is not None and self._mirror.local_size(origin) >= _LARGE
        if not (is_large and origin == next_origin):
            frame.is_read = False  # at once: it may be left before the answer is there
        return self._read_last(frame, None if is_large else origin)

    def _read_last(self, frame: Frame, origin: str | None) -> Flow[None]:
        def read() -> Flow[None]:
            # Events of its last writes may be on their way, and are lost when another process takes over the tab.
            if origin is not None and frame.shares_storage:
                frame.is_read = yield from self.read(frame, origin, is_leaving=True)

        yield [read(), self._find_handlers(frame)]  # a page may add handlers long after it was loaded

    def _read_first(
        self, frame: Frame, origin: str, *, may_have_databases: bool, is_told: bool, is_seen: bool
    ) -> Flow[None]:
        """Read what a new document has of its origin, where events have not shown all of it."""
        yield from self._track(frame.target, origin)
        if may_have_databases and self._indexed_db:
            yield from self._find_databases(frame.target, origin)
        once = (frame.target.tab.key, origin)
        is_known = is_seen or (once in self._was_read and not self._mirror.progress(origin).is_unconfirmed)
        self._was_read.add(once)
        if not is_known or origin in self._mirror.unread:
            yield from self._read_new(frame, origin)
        if not is_told and self._restorer.is_registered and self._mirror.progress(origin).unconfirmed("databases"):
            yield from self._confirm_databases(frame, origin)
        # Its receipt was sent before anything listened. The page may have logged out since, so no other one is filled.
        if not is_told and frame.parent is None and frame.origin is not None:
            self._restorer.delivered(origin)

    def _confirm_databases(self, frame: Frame, origin: str) -> Flow[None]:
        """Look at once for restored databases whose receipts were missed: the page may delete them before they are copied."""
        # Their names are no proof: a database on a disk has one while it is being filled (Chromium 156, 2026-11-27).
        with suppress(*self._driver.errors):
            names = self._mirror.progress(origin).unconfirmed("databases")
            text = yield from self.evaluate(frame, dump_script(self._database_limit, names))
            self._mirror.progress(origin).saw_databases(read_dump(origin, text))
            self._restorer.seen(origin)

    def _read_new(self, frame: Frame, origin: str) -> Flow[None]:
        """Read what a document has."""
        if (yield from self.read(frame, origin)):
            if not WEB_STORAGES & self._mirror.progress(origin).unseen_sections():
                self._restorer.delivered(origin)
            self._restorer.seen(origin)
        elif frame.origin is not None:
            self._mirror.unread[origin] = self._mirror.version

    def _track(self, target: Target, origin: str) -> Flow[None]:
        """Subscribe to the changes of an origin's databases."""
        if origin in target.tracked or not self._indexed_db:
            return
        # Before the command: a second document of the origin may get here while the first one waits.
        target.tracked[origin] = False
        try:
            params = {"storageKey": storage_key(origin)}
            yield self._driver.send(target.cdp, "Storage.trackIndexedDBForStorageKey", params)
            if origin in target.tracked:  # else a change has come first
                target.tracked[origin] = True
        except self._driver.errors:
            target.tracked.pop(origin, None)

    def track_again(self, origin: str) -> Flow[None]:
        """Subscribe to the changes of an origin's databases in all its tabs: they are about to be copied."""
        targets = {frame.target for frame in self.shared_frames() if frame.origin == origin}
        yield [self._track(target, origin) for target in targets]

    def _find_databases(self, target: Target, origin: str) -> Flow[None]:
        """Find databases that an origin has had before its changes were reported."""
        usage = yield from self._driver.try_send(target.cdp, "Storage.getUsageAndQuota", {"origin": origin})
        # Where it is not known, a copy tells.
        if usage is None or is_used(usage) or self._mirror.has_databases(origin):
            self._mirror.databases_changed(origin)

    def read(self, frame: Frame, origin: str, *, is_leaving: bool = False) -> Flow[bool]:
        """Read the web storage of a document's origin. Return whether it could be."""
        reading = self._mirror.begin_read(frame.target.tab.key, origin)
        local = session = None
        try:
            # When a document is left, events of its localStorage get lost, those of its sessionStorage come in order.
            kinds = (True,) if is_leaving else (True, False)
            stored = [{"storageId": {"storageKey": storage_key(origin), "isLocalStorage": each}} for each in kinds]
            cdp, method = frame.target.cdp, "DOMStorage.getDOMStorageItems"
            found = yield [self._driver.send(cdp, method, each) for each in stored]
            local, session = (*(each["entries"] for each in found), None)[:2]
        except self._driver.errors as error:
            if _NO_STORAGE in str(error) and frame.is_current:
                frame.origin = None  # a sandboxed document has the URL of its site, and none of its storage
            return False  # the document is gone, or it is busy
        finally:
            self._mirror.finish_read(reading, local, session)
        return True

    def evaluate(self, frame: Frame, expression: str) -> Flow[Any]:
        """Return what an expression gives in an isolated world of a document, awaited."""
        cdp, origin = frame.target.cdp, frame.origin
        return (yield from evaluate_apart(self._driver, cdp, frame.id, origin, expression, limits.SCRIPT))
