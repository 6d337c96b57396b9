"""Brings the mirror up to date before a save, and returns the state."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from session_reuse._browser import environment, javascript, limits
from session_reuse._browser.blank_page import Evaluate, visit
from session_reuse._browser.cookies import described
from session_reuse._browser.origins import storage_key
from session_reuse._browser.storage.databases import dump_script, is_used, read_dump
from session_reuse._browser.storage.mirror import CopyMark
from session_reuse._problem import ProblemKind

if TYPE_CHECKING:
    from session_reuse._browser.driver import BrowserDriver
    from session_reuse._browser.flow import Flow
    from session_reuse._browser.follower import Follower
    from session_reuse._browser.options import Settings
    from session_reuse._browser.restorer import Restorer
    from session_reuse._browser.storage.mirror import StorageMirror
    from session_reuse._browser.tabs import Frame
    from session_reuse._browser_session import BrowserSession
    from session_reuse._state.storage_state import StorageState

_COPY_SHARE: Final = 20
"""A database is copied again after so many times the time that its last copy took: the page waits meanwhile."""


class Capture:
    """Reads one context for saves."""

    def __init__(
        self,
        session: BrowserSession,
        mirror: StorageMirror,
        follower: Follower,
        restorer: Restorer,
        driver: BrowserDriver,
        settings: Settings,
    ) -> None:
        self._session = session
        self._mirror = mirror
        self._follower = follower
        self._restorer = restorer
        self._driver = driver
        self._indexed_db = settings.indexed_db
        self._limit = settings.database_limit
        self._next_copy: dict[str, float] = {}
        self._knows_environment = False
        self._has_empty_cookies = False

    def refresh(self) -> Flow[bool]:
        """Read what no event has shown, between saves: cookies, changed databases, open pages not read yet.

        Return whether the browser has answered.
        """
        if self._driver.is_gone or not (yield from self._poll_cookies()):
            return False
        frames = self._follower.open_frames()
        yield from self._note_environment(frames)
        unread = [frames[origin] for origin in self._mirror.unread.keys() & frames.keys()]
        yield [self._follower.read(frame, str(frame.origin)) for frame in unread]
        dirty, now = self._mirror.dirty_databases.keys() & frames.keys(), time.monotonic()
        due = [origin for origin in dirty if self._next_copy.get(origin, 0.0) <= now]
        yield [self._copy_databases(frames[origin], origin, set()) for origin in due]
        return True

    def capture(self, *, is_final: bool) -> Flow[StorageState]:
        """Return what the browser holds now, or what it was last seen to hold when it has ended.

        When the agent has finished, origins that are open no more may be visited.
        """
        yield self._driver.settle()  # a tab may be too new to be followed, or about to be read
        if self._driver.is_gone or not (yield from self._poll_cookies()):
            self.report_gone()
            return self._mirror.state()
        frames = self._follower.open_frames()
        yield from self._find_changed(frames, is_final=is_final)
        silent: set[Frame] = set()
        # One document for each origin of each tab: tabs do not share their sessionStorage.
        shared = {(frame.target.tab.key, frame.origin): frame for frame in self._follower.shared_frames()}
        yield [self._read(frame, str(frame.origin), silent) for frame in shared.values()]
        # A page that does not answer costs one time limit: three of them would end the whole capture.
        frames = self._follower.open_frames(silent)
        yield from self._note_environment(frames)
        failed: set[str] = set()
        dirty = self._mirror.dirty_databases.keys() & frames.keys()
        yield [self._copy_databases(frames[origin], origin, failed) for origin in dirty]
        if is_final:
            yield from self._revisit(failed | (self._unseen() - self._follower.open_frames(silent).keys()))
            self._restorer.report_unconfirmed(self._mirror.visited)  # not before: a document may still confirm it
            yield from self._report_altered_cookies(frames)
        for loss in self._mirror.lost():
            self._session.report(ProblemKind.LOST, str(loss))
        return self._mirror.state()

    def report_gone(self) -> None:
        """Report that the browser has ended before its time."""
        self._session.report(ProblemKind.BROWSER_GONE, "the browser", "the state is the one last seen")

    def _read(self, frame: Frame, origin: str, silent: set[Frame]) -> Flow[None]:
        if (yield from self._follower.read(frame, origin)):
            return
        silent.add(frame)
        if frame.is_current and frame.origin is not None and not frame.is_read:
            self._mirror.unread[origin] = self._mirror.version
            reason = "its page did not answer in time; what was last seen is kept"
            self._session.report(ProblemKind.CAPTURE_LIMITED, origin, reason)

    def _poll_cookies(self) -> Flow[bool]:
        """Read all cookies. Return whether the browser has answered."""
        try:
            cookies = yield self._driver.cookies()
        except self._driver.errors:
            return False
        self._has_empty_cookies = not all(cookie["value"] for cookie in cookies)
        gone = self._mirror.cookies_read(cookies)
        if gone:
            self._follower.suspects.update(
                origin for origin in self._mirror.visited if any(_is_within(origin, domain) for domain in gone)
            )
        return True

    def _report_altered_cookies(self, frames: dict[str, Frame]) -> Flow[None]:
        """Report cookies whose value is not UTF-8. The browser returns it as empty, and counts its bytes (Chromium 156)."""
        if not frames or not self._has_empty_cookies:
            return
        try:
            found = yield self._driver.send(next(iter(frames.values())).target.cdp, "Network.getAllCookies", {})
        except self._driver.errors:
            return
        for cookie in found["cookies"]:
            if not cookie["value"] and cookie["size"] > len(cookie["name"].encode()):
                self._session.report(ProblemKind.LOST, described(cookie), "its value is not UTF-8")

    def _find_changed(self, frames: dict[str, Frame], *, is_final: bool) -> Flow[None]:
        """Mark databases that have changed without an event: by a service worker, or cleared by the browser, as by a full disk."""
        if not self._indexed_db or not frames:
            return
        cdp = next(iter(frames.values())).target.cdp
        known = {each for each in self._mirror.visited if self._mirror.has_databases(each)}
        # Workers write on when the last tab of their origin is closed. No other tab reports that.
        open_frames = [frame for tab in self._follower.tabs for frame in tab.frames.values()]
        told = {origin for frame in open_frames for origin in frame.target.tracked}
        untold = self._mirror.visited - told if is_final else frozenset()

        def check(origin: str) -> Flow[None]:
            try:
                usage = yield self._driver.send(cdp, "Storage.getUsageAndQuota", {"origin": origin})
            except self._driver.errors:
                return
            is_there = is_used(usage)
            if is_there and origin in frames:  # the space is freed later, and the event may be on its way (2026-11-26)
                with suppress(*self._driver.errors):
                    key = {"storageKey": storage_key(origin)}
                    is_there = bool(
                        (yield self._driver.send(cdp, "IndexedDB.requestDatabaseNames", key))["databaseNames"]
                    )
            is_gone = not is_there and origin in known and not self._mirror.progress(origin).is_unconfirmed
            if is_gone or (is_there and origin in untold):
                self._mirror.databases_changed(origin)

        yield [check(origin) for origin in (known | untold) - self._mirror.dirty_databases.keys()]

    def _copy_databases(self, frame: Frame, origin: str, failed: set[str]) -> Flow[None]:
        mark, began = self._mirror.dirty_databases[origin], time.monotonic()
        try:
            yield from self._follower.track_again(origin)  # a change from now on marks them again
            text = yield from self._follower.evaluate(frame, dump_script(self._limit, mark.names))
        except self._driver.errors:
            failed.add(origin)  # the page is busy, or has gone on: the mark stays
            return
        finally:
            self._next_copy[origin] = time.monotonic() + _COPY_SHARE * (time.monotonic() - began)
        if frame.is_current and isinstance(text, str):
            self._mirror.databases_read(origin, read_dump(origin, text), mark)
            self._restorer.seen(origin)

    def _unseen(self) -> set[str]:
        """Return the origins that may hold something unseen."""
        gone = {each for each in self._follower.suspects if self._mirror.has_content(each)}
        return self._mirror.unread.keys() | self._mirror.dirty_databases.keys() | gone

    def _revisit(self, origins: set[str]) -> Flow[None]:
        """Read origins of which no open page tells what they hold, on a page that the agent does not see."""
        if not origins:
            return

        def act(origin: str, evaluate: Evaluate) -> Flow[None]:
            reading = self._mirror.begin_read("revisit", origin)
            local = None
            try:
                local = (yield from evaluate(javascript.call("storage_read")))["local"]
            finally:
                self._mirror.finish_read(reading, local, None)  # no other tab sees the sessionStorage of a closed one
            if self._indexed_db:
                mark = self._mirror.dirty_databases.get(origin, CopyMark(0, None))
                text = yield from evaluate(dump_script(self._limit, mark.names))
                self._mirror.databases_read(origin, read_dump(origin, text), mark)

        def last_mark(origin: str) -> tuple[int, str]:
            mark = self._mirror.dirty_databases.get(origin, CopyMark(0, None))
            return max(mark.number, self._mirror.unread.get(origin, 0)), origin

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
            now = yield from self._follower.evaluate(frame, javascript.call("environment"))
        except self._driver.errors:
            return
        self._knows_environment = True
        now = {**now, **self._driver.viewport(frame.target.tab.key)}
        for name in environment.changed(self._mirror.environment, now):
            self._session.report(ProblemKind.ENVIRONMENT_CHANGED, name)
        self._mirror.environment = {**self._mirror.environment, **now}


def _is_within(origin: str, domain: str) -> bool:
    host = origin.partition("://")[2].rpartition(":")[0] or origin.partition("://")[2]
    return host == domain or host.endswith(f".{domain}")
