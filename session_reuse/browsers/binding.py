"""One Playwright context bound to one session: what both faces do, in order. Must never close what it has not opened."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from session_reuse.browsers.context_capture import ContextCapture
from session_reuse.browsers.context_restore import ContextRestore
from session_reuse.browsers.context_watch import ContextWatch
from session_reuse.browsers.environment import context_options, recorded
from session_reuse.browsers.live_mirror import LiveMirror
from session_reuse.outcome import Outcome
from session_reuse.state.storage_state import StorageState, is_empty

if TYPE_CHECKING:
    from collections.abc import Callable

    from session_reuse.browsers.hidden_page import PageClient
    from session_reuse.browsers.steps import Steps
    from session_reuse.session import BrowserSession


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the caller of `open_context` or `attach_context` has asked for."""

    verify: Callable[[Any], Any] | None = None
    checkpoint_after: float | None = 2.0
    indexed_db: bool = True
    opfs: bool = False
    credentials: bool = False
    restore_environment: bool = False


class Binding:
    """A context with the session's state in it, watched.

    Args:
        session: whose state is restored and captured.
        client: the face in use.
        options: of the caller.
        fresh: whether the context is made for this session.
    """

    def __init__(self, session: BrowserSession, client: PageClient, options: Options, *, fresh: bool) -> None:
        self.session = session
        self.client = client
        self.options = options
        self.context: Any = None
        self.mirror = LiveMirror(session.storage_state)
        self._fresh = fresh
        self._restore = ContextRestore(
            session, self.mirror, client, now=time.time(), fresh=fresh, indexed_db=options.indexed_db
        )
        self._captured_version = 0
        self.watch: ContextWatch
        self.capture: ContextCapture

    def open(self, browser: Any, given: dict[str, Any]) -> Steps[None]:
        """Make a context with the session's state."""
        options = dict(given)
        if self.options.restore_environment:
            options = {**context_options(recorded(self.session.storage_state), given), **given}
        self.context = yield from self._restore.new_context(
            browser, options, opfs=self.options.opfs, credentials=self.options.credentials
        )
        self._prepare()
        yield from self._fill_and_watch()

    def attach(self, context: Any) -> Steps[None]:
        """Bring the session's state into a context that others may use too."""
        self.context = context
        self._prepare()
        yield from self._restore.add_cookies(context)
        yield from self._restore.fill_open_pages(context)
        yield from self._restore.prepare(context)
        yield from self._fill_and_watch()

    def _prepare(self) -> None:
        self.watch = ContextWatch(
            self.session,
            self.context,
            self.mirror,
            self._restore,
            self.client,
            indexed_db=self.options.indexed_db,
        )
        self.capture = ContextCapture(
            self.session,
            self.context,
            self.mirror,
            self.watch,
            self.client,
            clock=time.monotonic,
            indexed_db=self.options.indexed_db,
            opfs=self.options.opfs,
            credentials=self.options.credentials,
        )

    def _fill_and_watch(self) -> Steps[None]:
        yield from self._restore.fill_large(self.context)
        yield from self._restore.register(self.context)
        yield from self.watch.start()

    @property
    def must_verify(self) -> bool:
        """True when something was restored and the caller has a check."""
        restored = self.session.reused or not is_empty(self.session.storage_state)
        return self.options.verify is not None and restored

    def close_verified(self, page: Any) -> Steps[None]:
        """Close the page that was used to check; its sessionStorage goes to the next tab."""
        tab = next((tab for tab in self.watch.tabs if tab.page is page), None)
        if tab and tab.origin and tab.cdp is not None:
            yield from self.watch.read(tab, tab.origin)
        contents = {origin: self.mirror.session_storage(origin) for origin in self.mirror.visited}
        yield self.client.briefly(page.close())
        yield from self._restore.rearm_session_storage(
            self.context, {o: items for o, items in contents.items() if items}
        )

    def start_fresh(self) -> None:
        """Tell the session that its state was not accepted."""
        self.session.start_fresh(Outcome.UNVERIFIED)

    @property
    def is_dirty(self) -> bool:
        """True when something has changed since the last capture."""
        return self.mirror.version != self._captured_version

    def keep_last_seen(self) -> None:
        """Give the session what was seen so far, without asking the browser."""
        if self.mirror.has_read:
            self.session.storage_state = self.mirror.state()

    def captured(self) -> Steps[StorageState]:
        """Return the state as it is now, for a save."""
        state = yield from self.capture.capture()
        self._captured_version = self.mirror.version
        if not self.mirror.has_read:
            self.session.capture_failed("nothing could be read from the browser")
        return state

    def end(self) -> Steps[None]:
        """Hold up nobody from now on: what was to be captured is."""
        yield from self._restore.close_gate()

    def release(self) -> Steps[None]:
        """Let go of a context that lives on."""
        yield from self._restore.release(self.context)
        yield from self.watch.stop()
