"""`BrowserEngine`: one session in one browser, restored, followed and captured over any driver."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from session_reuse._browser import environment, javascript, limits
from session_reuse._browser.blank_page import Evaluate, visit
from session_reuse._browser.cookies import described
from session_reuse._browser.follower import Follower
from session_reuse._browser.origins import storage_key
from session_reuse._browser.restorer import Restorer
from session_reuse._browser.storage.databases import dump_script, is_used, read_dump
from session_reuse._browser.storage.mirror import CopyMark, StorageMirror
from session_reuse._browser_session import assign_captured, wiring_of
from session_reuse._problem import ProblemKind
from session_reuse._state.domains import is_under
from session_reuse._state.merge import merge_storage_states
from session_reuse._state.storage_state import StorageState
from session_reuse.errors import AdapterError

if TYPE_CHECKING:
    from session_reuse._browser.cookies import Cookie
    from session_reuse._browser.driver import BrowserDriver
    from session_reuse._browser.flow import Flow
    from session_reuse._browser.options import Settings
    from session_reuse._browser.origins import Items
    from session_reuse._browser.tabs import Frame
    from session_reuse._browser_session import BrowserSession

_COPY_SHARE: Final = 20
"""A database is copied again after so many times the time that its last copy took: the page waits meanwhile."""


class BrowserEngine:
    """One session in one browser. A new profile was started, or its context made, for this session."""

    def __init__(
        self, session: BrowserSession, driver: BrowserDriver, settings: Settings, *, is_new_profile: bool
    ) -> None:
        state = session.storage_state
        self._session = session
        self._restored = self._mine = state
        self._driver = driver
        self._is_new_profile = is_new_profile
        self._was_started = False
        self._captured_version = 0
        self.mirror = StorageMirror(state)
        self.restorer = Restorer(session, self.mirror, driver, settings, is_new_profile=is_new_profile)
        self.follower = Follower(self.mirror, self.restorer, driver, settings, is_new_profile=is_new_profile)
        self._indexed_db = settings.indexed_db
        self._database_limit = settings.database_limit
        self._next_copy: dict[str, float] = {}
        self._knows_environment = False
        self._has_empty_cookies = False

    @property
    def is_dirty(self) -> bool:
        """True when something has changed since the last capture."""
        return self.mirror.version != self._captured_version

    def keep_last_seen(self) -> StorageState | None:
        """Assign the state that was last seen to the session, without a call of the browser. None when nothing was."""
        return self.fitted(self.mirror.state()) if self.mirror.has_read else None

    def fitted(self, state: StorageState) -> StorageState:
        """Return a state that can be saved, and assign it to the session.

        What another client of the session has captured meanwhile is merged into it.
        """
        before, theirs, self._mine = self._mine, self._session.storage_state, state
        # Not with what the agent has assigned, which is replaced: Playwright's own state holds a part of the session only.
        if theirs is not before and theirs is wiring_of(self._session).captured:
            state = merge_storage_states(before, state, theirs)
        return assign_captured(self._session, state, self._restored)

    def start(self, *, has_scripts: bool = True) -> Flow[None]:
        """Restore the state, and follow all tabs from now on. Without scripts, a page sees cookies only.

        Over a connection that replaces one that has ended, the browser is newer than what we know. Only origins that were not
        visited are still restored then.
        """
        is_first, known = not self._was_started, self.mirror.visited
        if is_first:
            yield from self.restorer.add_cookies()
        else:
            self.follower.disconnected()
            self.restorer.disconnected()
        is_empty = self._is_new_profile or not self._driver.has_tabs
        if is_empty and has_scripts:
            yield from self.restorer.restore_early()
        yield from self._driver.follow(is_new_profile=self._is_new_profile and is_first)
        if not is_empty:
            # Origins that are open first: they are filled in no other way.
            frames = {origin: frame for origin, frame in self.follower.open_frames().items() if origin not in known}
            yield from self.restorer.fill_open(frames, self.follower.evaluate)
            yield from self.restorer.restore_early()
        self._was_started = True

    def refresh(self) -> Flow[bool]:
        """Read what no event has shown, between saves: cookies, changed databases, open pages not read yet.

        Return whether the browser has answered.
        """
        if self._driver.is_gone or not (yield from self._poll_cookies()):
            return False
        frames = self.follower.open_frames()
        yield from self._note_environment(frames)
        unread = [frames[origin] for origin in self.mirror.unread.keys() & frames.keys()]
        yield [self.follower.read(frame, str(frame.origin)) for frame in unread]
        dirty, now = self.mirror.dirty_databases.keys() & frames.keys(), time.monotonic()
        due = [origin for origin in dirty if self._next_copy.get(origin, 0.0) <= now]
        yield [self._copy_databases(frames[origin], origin, set()) for origin in due]
        return True

    def captured(self, *, is_final: bool = False) -> Flow[StorageState]:
        """Return the current state, for a save.

        Raises:
            AdapterError: nothing was ever read.
        """
        version = self.mirror.version
        is_answering = yield from self._read_all(is_final=is_final)
        if self._driver.is_gone or not is_answering:  # it has ended before its time
            self._session.report(ProblemKind.BROWSER_GONE, "the browser", "the state is the one last seen")
        # A database that could not be copied leaves the state dirty, so that the next checkpoint tries again.
        self._captured_version = version if self.mirror.dirty_databases else self.mirror.version
        if not self.mirror.has_read:
            raise AdapterError("nothing could be read from the browser")
        return self.fitted(self.mirror.state())

    def captured_from(self, cookies: list[Cookie], local: dict[str, Items], session: dict[str, Items]) -> StorageState:
        """Return the current state, for a save, of a browser that is read by its client's own means.

        Args:
            cookies: all of them.
            local: origin -> its localStorage, of all origins.
            session: origin -> its sessionStorage, of those that are open.
        """
        mirror = self.mirror
        mirror.source = "storage_state"
        mirror.cookies_read(cookies)
        for origin in sorted({*local, *session, *mirror.visited}):
            if origin in self.restorer.scripts.started:
                mirror.progress(origin).confirm()  # no event tells what was there in between
            mirror.finish_read(mirror.begin_read("save", origin), local.get(origin, []), session.get(origin))
        self._captured_version = mirror.version
        return self.fitted(mirror.state())

    def rearm_session_storage(self) -> Flow[None]:
        """Restore sessionStorage in the next tab once more: the tab of a check had it."""
        yield from self.refresh()
        again = self.mirror.session_storages()
        yield self._driver.settle()  # an update of the scripts under way would remove them a second time
        yield from self.restorer.rearm_session_storage(again)

    def _read_all(self, *, is_final: bool) -> Flow[bool]:
        """Bring the mirror up to date. When the agent has finished, origins that are open no more may be visited.

        Return whether the browser has answered.
        """
        yield self._driver.settle()  # a tab may be too new to be followed, or about to be read
        if self._driver.is_gone or not (yield from self._poll_cookies()):
            return False
        frames = self.follower.open_frames()
        yield from self._find_changed(frames, is_final=is_final)
        silent: set[Frame] = set()
        # One document for each origin of each tab: tabs do not share their sessionStorage.
        shared = {(frame.target.tab.key, frame.origin): frame for frame in self.follower.shared_frames()}
        yield [self._read(frame, str(frame.origin), silent) for frame in shared.values()]
        # A page that does not answer costs one time limit: three of them would end the whole capture.
        frames = self.follower.open_frames(silent)
        yield from self._note_environment(frames)
        failed: set[str] = set()
        dirty = self.mirror.dirty_databases.keys() & frames.keys()
        yield [self._copy_databases(frames[origin], origin, failed) for origin in dirty]
        if is_final:
            yield from self._revisit(failed | (self._unseen() - self.follower.open_frames(silent).keys()))
            self.restorer.report_unconfirmed(self.mirror.visited)  # not before: a document may still confirm it
            yield from self._report_altered_cookies(frames)
        for loss in self.mirror.lost():
            self._session.report(ProblemKind.LOST, str(loss))
        return True

    def _read(self, frame: Frame, origin: str, silent: set[Frame]) -> Flow[None]:
        if (yield from self.follower.read(frame, origin)):
            return
        silent.add(frame)
        if frame.is_current and frame.origin is not None and not frame.is_read:
            self.mirror.unread[origin] = self.mirror.version
            reason = "its page did not answer in time; what was last seen is kept"
            self._session.report(ProblemKind.CAPTURE_LIMITED, origin, reason)

    def _poll_cookies(self) -> Flow[bool]:
        """Read all cookies. Return whether the browser has answered."""
        try:
            cookies = yield self._driver.cookies()
        except self._driver.errors:
            return False
        self._has_empty_cookies = not all(cookie["value"] for cookie in cookies)
        gone = self.mirror.cookies_read(cookies)
        if gone:
            self.follower.suspects.update(
                origin
                for origin in self.mirror.visited
                if any(is_under(urlsplit(origin).hostname or "", domain) for domain in gone)
            )
        return True

    def _report_altered_cookies(self, frames: dict[str, Frame]) -> Flow[None]:
        """Report cookies whose value is not UTF-8. The browser returns it as empty, and counts its bytes (Chromium 156)."""
        if not frames or not self._has_empty_cookies:
            return
        cdp = next(iter(frames.values())).target.cdp
        found = yield from self._driver.try_send(cdp, "Network.getAllCookies", {})
        for cookie in found["cookies"] if found else ():
            if not cookie["value"] and cookie["size"] > len(cookie["name"].encode()):
                self._session.report(ProblemKind.LOST, described(cookie), "its value is not UTF-8")

    def _find_changed(self, frames: dict[str, Frame], *, is_final: bool) -> Flow[None]:
        """Mark databases that have changed without an event: by a service worker, or cleared by the browser, as by a full disk."""
        if not self._indexed_db or not frames:
            return
        cdp = next(iter(frames.values())).target.cdp
        known = {each for each in self.mirror.visited if self.mirror.has_databases(each)}
        # Workers write on when the last tab of their origin is closed. No other tab reports that.
        open_frames = [frame for tab in self.follower.tabs for frame in tab.frames.values()]
        told = {origin for frame in open_frames for origin in frame.target.tracked}
        untold = self.mirror.visited - told if is_final else frozenset()

        def check(origin: str) -> Flow[None]:
            usage = yield from self._driver.try_send(cdp, "Storage.getUsageAndQuota", {"origin": origin})
            if usage is None:
                return
            is_there = is_used(usage)
            if is_there and origin in frames:  # the space is freed later, and the event may be on its way (2026-11-26)
                key = {"storageKey": storage_key(origin)}
                found = yield from self._driver.try_send(cdp, "IndexedDB.requestDatabaseNames", key)
                is_there = found is None or bool(found["databaseNames"])
            is_gone = not is_there and origin in known and not self.mirror.progress(origin).is_unconfirmed
            if is_gone or (is_there and origin in untold):
                self.mirror.databases_changed(origin)

        yield [check(origin) for origin in (known | untold) - self.mirror.dirty_databases.keys()]

    def _copy_databases(self, frame: Frame, origin: str, failed: set[str]) -> Flow[None]:
        mark, began = self.mirror.dirty_databases[origin], time.monotonic()
        try:
            yield from self.follower.track_again(origin)  # a change from now on marks them again
            text = yield from self.follower.evaluate(frame, dump_script(self._database_limit, mark.names))
        except self._driver.errors:
            failed.add(origin)  # the page is busy, or has gone on: the mark stays
            return
        finally:
            self._next_copy[origin] = time.monotonic() + _COPY_SHARE * (time.monotonic() - began)
        if frame.is_current and isinstance(text, str):
            self.mirror.databases_read(origin, read_dump(origin, text), mark)
            self.restorer.seen(origin)

    def _unseen(self) -> set[str]:
        """Return the origins that may hold something unseen."""
        gone = {each for each in self.follower.suspects if self.mirror.has_content(each)}
        return self.mirror.unread.keys() | self.mirror.dirty_databases.keys() | gone

    def _revisit(self, origins: set[str]) -> Flow[None]:
        """Read origins of which no open page tells what they hold, on a page that the agent does not see."""
        if not origins:
            return

        def act(origin: str, evaluate: Evaluate) -> Flow[None]:
            reading = self.mirror.begin_read("revisit", origin)
            local = None
            try:
                local = (yield from evaluate(javascript.call("storage_read")))["local"]
            finally:
                self.mirror.finish_read(reading, local, None)  # no other tab sees the sessionStorage of a closed one
            if self._indexed_db:
                mark = self.mirror.dirty_databases.get(origin, CopyMark(0, None))
                text = yield from evaluate(dump_script(self._database_limit, mark.names))
                self.mirror.databases_read(origin, read_dump(origin, text), mark)

        def last_mark(origin: str) -> tuple[int, str]:
            mark = self.mirror.dirty_databases.get(origin, CopyMark(0, None))
            return max(mark.number, self.mirror.unread.get(origin, 0)), origin

        # The latest ones first: where the agent has been last, it may have logged in.
        latest = sorted(origins, key=last_mark, reverse=True)
        failed = yield from visit(self._driver, latest, act, limits.REVISIT)
        for origin in failed:
            self._session.report(
                ProblemKind.CAPTURE_LIMITED, origin, "it could not be read again; what was last seen is kept"
            )

    def _note_environment(self, frames: dict[str, Frame]) -> Flow[None]:
        """Record once what sites see of the browser's setting, and report what differs from what was recorded."""
        frame = next((each for each in frames.values() if each.parent is None), None)
        if self._knows_environment or frame is None:
            return
        try:
            now = yield from self.follower.evaluate(frame, javascript.call("environment"))
        except self._driver.errors:
            return
        self._knows_environment = True
        now = {**now, **self._driver.viewport(frame.target.tab.key)}
        for name in environment.changed(self.mirror.environment, now):
            self._session.report(ProblemKind.ENVIRONMENT_CHANGED, name)
        self.mirror.environment = {**self.mirror.environment, **now}
