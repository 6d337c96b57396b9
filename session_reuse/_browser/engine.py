"""`BrowserEngine`: one session in one browser, restored, followed and captured over any driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_reuse._browser.capture import Capture
from session_reuse._browser.follower import Follower
from session_reuse._browser.origins import origin_of
from session_reuse._browser.restorer import Restorer
from session_reuse._browser.storage.mirror import StorageMirror
from session_reuse._browser.storage.trim import trim
from session_reuse._browser_session import assign_captured, wiring_of
from session_reuse._problem import ProblemKind
from session_reuse._state.merge import merge_storage_states
from session_reuse._state.storage_state import StorageState, empty_storage_state

if TYPE_CHECKING:
    from session_reuse._browser.driver import BrowserDriver
    from session_reuse._browser.flow import Flow
    from session_reuse._browser.options import Settings
    from session_reuse._browser_session import BrowserSession


class BrowserEngine:
    """One session in one browser.

    Args:
        session: its state is restored. What cannot be restored or captured is reported to it.
        driver: of the browser.
        settings: of the user.
        is_new_profile: whether the browser was started, or the context made, for this session.
        before: of a connection to this browser that has ended. What it has seen is followed only, and so are the cookies.
            None for a browser that is restored in full.
    """

    def __init__(
        self,
        session: BrowserSession,
        driver: BrowserDriver,
        settings: Settings,
        *,
        is_new_profile: bool,
        before: BrowserEngine | None = None,
    ) -> None:
        state = session.storage_state
        self._session = session
        self._restored = state
        self.mine: StorageState = state if before is None else before.mine
        self._driver = driver
        self._known = frozenset() if before is None else before.visited
        self._captured_version = 0
        self.mirror = StorageMirror(state)
        # Seen in this browser before: what is missing there now was removed since.
        for origin in self._known:
            self.mirror.progress(origin).confirm()
        if before is not None:
            for origin in before.unseen:
                self.mirror.mark_unread(origin)
                if settings.indexed_db:
                    self.mirror.databases_changed(origin)
        to_restore = state
        if before is not None:
            rest = [entry for entry in state["origins"] if origin_of(entry["origin"]) not in self._known]
            to_restore = {**empty_storage_state(), "origins": rest}
        self.restorer = Restorer(session, to_restore, self.mirror, driver, settings, is_new_profile=is_new_profile)
        self.follower = Follower(self.mirror, self.restorer, driver, settings, is_new_profile=is_new_profile)
        self.capture = Capture(session, self.mirror, self.follower, self.restorer, driver, settings)

    @property
    def visited(self) -> frozenset[str]:
        """Origins of which anything was seen and whose restore is confirmed."""
        return self._known.union(each for each in self.mirror.visited if not self.mirror.progress(each).is_unconfirmed)

    @property
    def unseen(self) -> set[str]:
        """Origins that may hold something that was not seen: those that were open when the connection ended, too."""
        return {*self.mirror.unread, *self.mirror.dirty_databases, *self.follower.open_frames()}

    @property
    def is_dirty(self) -> bool:
        """True when something has changed since the last capture."""
        return self.mirror.version != self._captured_version

    def last_seen(self) -> StorageState | None:
        """Return the state as it was last seen, which the session gets, without asking the browser. None when nothing was."""
        return self.fitted(self.mirror.state()) if self.mirror.has_read else None

    def fitted(self, state: StorageState) -> StorageState:
        """Return a state that can be saved, and assign it to the session.

        What another client of the session has captured meanwhile is merged into it. Without the largest values, if it is too
        large.
        """
        before, theirs, self.mine = self.mine, self._session.storage_state, state
        # Not with what the agent has assigned, which is replaced: Playwright's own state holds a part of the session only.
        if theirs is not before and theirs is wiring_of(self._session).captured:
            state = merge_storage_states(before, state, theirs)
        for where in trim(state, self._restored):
            self._session.report(ProblemKind.TOO_LARGE, where, "the largest values were left out")
        return assign_captured(self._session, state)

    def captured(self, *, is_final: bool = False) -> Flow[StorageState]:
        """Return the current state, for a save."""
        version = self.mirror.version
        if self._driver.has_protocol:
            state = yield from self.capture.capture(is_final=is_final)
        else:
            state = yield from self._read_without_protocol()
        # A database that could not be copied leaves the state dirty, so that the next checkpoint tries again.
        self._captured_version = version if self.mirror.dirty_databases else self.mirror.version
        if not self.mirror.has_read:
            self._session.capture_failed("nothing could be read from the browser")
        return self.fitted(state)

    def _read_without_protocol(self) -> Flow[StorageState]:
        mirror = self.mirror
        mirror.source = "storage_state"
        cookies, local, session = yield from self._driver.read_without_protocol()
        mirror.cookies_read(cookies)
        for origin in sorted({*local, *session, *mirror.visited}):
            if origin in self.restorer.scripts.started:
                mirror.progress(origin).confirm()  # no event tells what was there in between
            mirror.finish_read(mirror.begin_read("save", origin), local.get(origin, []), session.get(origin))
        return mirror.state()

    def keep_last_seen(self) -> None:
        """Assign the state that was last seen to the session, without a call of the browser."""
        self.last_seen()
