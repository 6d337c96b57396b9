"""`BrowserEngine`: one session in one browser, restored, followed and captured over any driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_reuse._browser.capture import Capture
from session_reuse._browser.follower import Follower
from session_reuse._browser.restorer import Restorer
from session_reuse._browser.storage.mirror import StorageMirror
from session_reuse._browser_session import assign_captured, wiring_of
from session_reuse._state.merge import merge_storage_states
from session_reuse._state.storage_state import StorageState
from session_reuse.errors import AdapterError

if TYPE_CHECKING:
    from session_reuse._browser.cookies import Cookie
    from session_reuse._browser.driver import BrowserDriver
    from session_reuse._browser.flow import Flow
    from session_reuse._browser.options import Settings
    from session_reuse._browser.origins import Items
    from session_reuse._browser_session import BrowserSession


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
        self.restorer = Restorer(session, state, self.mirror, driver, settings, is_new_profile=is_new_profile)
        self.follower = Follower(self.mirror, self.restorer, driver, settings, is_new_profile=is_new_profile)
        self.capture = Capture(session, self.mirror, self.follower, self.restorer, driver, settings)

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

    def captured(self, *, is_final: bool = False) -> Flow[StorageState]:
        """Return the current state, for a save.

        Raises:
            AdapterError: nothing was ever read.
        """
        version = self.mirror.version
        state = yield from self.capture.capture(is_final=is_final)
        # A database that could not be copied leaves the state dirty, so that the next checkpoint tries again.
        self._captured_version = version if self.mirror.dirty_databases else self.mirror.version
        if not self.mirror.has_read:
            raise AdapterError("nothing could be read from the browser")
        return self.fitted(state)

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
        yield from self.capture.refresh()
        again = self.mirror.session_storages()
        yield self._driver.settle()  # an update of the scripts under way would remove them a second time
        yield from self.restorer.rearm_session_storage(again)
