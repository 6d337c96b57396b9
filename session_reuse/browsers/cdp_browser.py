"""One Chromium over a DevTools connection of our own: restored, followed, captured. Must never steer the user's pages.

New tabs and popups wait for our init scripts before they load. Web storage is followed by events, cookies and databases
are polled shortly after something has happened; so a browser that is killed loses what happened since the last look.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, Self

from session_reuse.browsers import javascript
from session_reuse.browsers.cdp_connection import CdpConnection, CdpError, Transport
from session_reuse.browsers.cdp_databases import CdpDatabases
from session_reuse.browsers.cdp_gate import own_context
from session_reuse.browsers.cdp_last_acts import CdpLastActs
from session_reuse.browsers.cdp_page import CdpPage
from session_reuse.browsers.cdp_restore import CdpRestore
from session_reuse.browsers.cookies import from_cdp
from session_reuse.browsers.document_gate import EVENTS as GATE_EVENTS
from session_reuse.browsers.environment import changed, recorded
from session_reuse.browsers.live_mirror import DATABASE_EVENTS, STORAGE_EVENTS, LiveMirror
from session_reuse.browsers.origins import origin_of, origin_of_storage, shares_storage
from session_reuse.browsers.steps import run
from session_reuse.state.storage_state import StorageState, empty_storage_state

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from session_reuse.browsers.cdp_hidden_page import HiddenPage
    from session_reuse.session import BrowserSession

DEBOUNCE: Final = 0.25
"""Seconds between something that happens in the browser and our look at it."""
_IDLE_INTERVAL: Final = 1.0
"""Seconds between looks when nothing is seen to happen: scripts set cookies without an event."""
_CAPTURE_LIMIT: Final = 6.0
_ADOPTION_LIMIT: Final = 2.0
"""Seconds to wait for tabs that are open already: one that shows a dialog does not answer."""
_CLOSE_LIMIT: Final = 2.0
"""Seconds that what is under way may take to clean up after itself, such as to close a hidden page."""
_STIRRING: Final = frozenset({"Page.navigatedWithinDocument", "Page.frameStoppedLoading"})


class CdpBrowser:
    """The browser behind one transport.

    Args:
        transport: an open websocket to the browser's own endpoint, not to a page's.
        session: its state is restored; what cannot be restored or captured is reported to it.
        known: origins that were seen in this browser before, by a connection that has ended; they are followed only, and so
            are the cookies. None for a browser that is restored in full.
        fresh: whether the browser was started for this session.
        on_change: called after each look that found something new.
    """

    def __init__(
        self,
        transport: Transport,
        session: BrowserSession,
        *,
        known: frozenset[str] | None = None,
        fresh: bool,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        state = session.storage_state
        self._session = session
        self._on_change = on_change
        self._connection = CdpConnection(transport, self._on_event)
        self._mirror = LiveMirror(state)
        self._recorded = recorded(state)
        self._hidden: dict[str, HiddenPage] = {}
        self._known = known
        to_restore = state
        if known is not None:
            rest = [entry for entry in state["origins"] if origin_of(entry["origin"]) not in known]
            to_restore = {**empty_storage_state(), "origins": rest}
            for origin in known:
                self._mirror.arrived(origin)
        self._restore = CdpRestore(
            self._connection, to_restore, session.report, self._mirror.arrived, now=time.time(), fresh=fresh
        )
        self._databases = CdpDatabases(self._connection, self._mirror, state["origins"], session.report, self._hidden)
        self._last_acts = CdpLastActs(self._connection, self._mirror, session.report, self._hidden)
        self._context: str | None = None
        self._pages: dict[str, CdpPage] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stirred = asyncio.Event()
        self._has_environment = False
        self._is_closed = False
        self._seen = 0

    @property
    def is_gone(self) -> bool:
        """True when the connection has ended, because of us or because the browser did."""
        return self._connection.ended.is_set()

    @property
    def hidden(self) -> frozenset[str]:
        """Target ids of the pages that only we use."""
        return frozenset(self._connection.hidden)

    @property
    def visited(self) -> frozenset[str]:
        """Origins of which anything was seen, those left out that have not got what is stored of them."""
        seen = (origin for origin in self._mirror.visited if not self._mirror.is_in_doubt(origin))
        return (self._known or frozenset()).union(seen)

    def has_tab(self, target: str) -> bool:
        """Return whether a tab is one of this browser's."""
        return any(page.target == target for page in self._pages.values())

    async def start(self) -> Self:
        """Restore what has to be there before the first page, arm the rest, and follow all tabs from now on.

        Raises:
            CdpError: the browser did not answer.
        """
        self._context = await own_context(self._connection)
        await self._restore.set_cookies()
        await self._restore.leave_open(self._context)
        await self._restore.hold_documents(lambda steps: self._spawn(run(steps)), self._context)
        await self._restore.fill_large(self._hidden)
        tabs = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True, "filter": [{"type": "page"}]}
        await self._connection.send("Target.setAutoAttach", tabs)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_ADOPTION_LIMIT)
        self._spawn(self._watch())
        return self

    async def capture(self) -> StorageState:
        """Return the current state, or the last one seen when the browser is gone.

        Raises:
            CdpError: nothing was ever read.
        """
        if not self.is_gone:
            try:
                await asyncio.wait_for(self._look(everything=True), _CAPTURE_LIMIT)
            except TimeoutError:
                self._session.report("capture_limited", f"the browser did not answer in {_CAPTURE_LIMIT:g} s")
            except CdpError:
                pass  # it went away meanwhile
        if self.is_gone and not self._is_closed:
            self._session.report("browser_gone", "the state is as it was last seen, shortly before the browser ended")
        state = self.last_seen()
        if state is None:
            raise CdpError("the browser was gone before anything could be read from it")
        return state

    def last_seen(self) -> StorageState | None:
        """Return the state as it was last seen, without asking the browser; None when nothing was."""
        return self._mirror.state() if self._mirror.has_read else None

    async def close(self) -> None:
        """Let go of the browser; the scripts that are still armed go too."""
        self._is_closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=_CLOSE_LIMIT)
        finally:
            await self._connection.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            with contextlib.suppress(CdpError):
                await work

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # if it was cancelled before it began

    def _on_event(self, method: str, params: dict[str, Any], session: str) -> None:
        if session in self._hidden:
            self._hidden[session].on_event(method, params)
        elif method in GATE_EVENTS:
            self._restore.gate_event(method, params)
        elif method == "Target.attachedToTarget":
            self._attached(params)
        elif method == "Target.detachedFromTarget":
            self._detached(params["sessionId"])
        elif session in self._pages:
            self._page_event(self._pages[session], method, params)

    def _attached(self, params: dict[str, Any]) -> None:
        session, target = params["sessionId"], params["targetInfo"]
        if target["type"] != "page":
            return
        if not self._is_ours(target):
            self._connection.post("Runtime.runIfWaitingForDebugger", session=session)
            self._connection.post("Target.detachFromTarget", {"sessionId": session})
            return
        page = self._pages[session] = CdpPage(self._connection, session, target["targetId"])
        self._connection.post("Page.enable", session=session)
        self._connection.post("DOMStorage.enable", session=session)
        self._databases.watch(session)
        self._restore.arm(session)
        page.ready = self._connection.post("Runtime.runIfWaitingForDebugger", session=session)
        self._spawn(self._adopt(page, is_new=bool(params["waitingForDebugger"])))

    def _is_ours(self, target: dict[str, Any]) -> bool:
        """Return whether a tab is of the browser's own context: other contexts are other people's."""
        return self._context is None or target.get("browserContextId") in (None, self._context)

    async def _adopt(self, page: CdpPage, *, is_new: bool) -> None:
        """Take in a page that may have started without our scripts; a new one that had to be filled is loaded again."""
        await page.ready
        frame = await page.load_frame()
        origin = origin_of(str(frame.get("url")))
        if origin is None or page.origin == origin:
            return
        filled = False
        if self._restore.is_pending(origin):
            if is_new and self._restore.is_fresh and self._known is None:
                await self._restore.start_over(page.session, origin, str(frame["url"]))
                return
            filled = await self._restore.fill_open(page.session, origin, await page.isolated_world())
        self._committed(page, frame)
        if filled and is_new:
            self._connection.post("Page.reload", session=page.session)

    def _detached(self, session: str) -> None:
        page = self._pages.pop(session, None)
        if page is not None:
            self._last_acts.closed(page)
            self._restore.disarm(session)
            self._mirror.tab_closed(page.target)
            self._stirred.set()

    def _page_event(self, page: CdpPage, method: str, params: dict[str, Any]) -> None:
        if method in STORAGE_EVENTS:
            self._mirror.storage_event(page.target, method, params)
        elif method in DATABASE_EVENTS:
            if origin := origin_of_storage(params):
                self._mirror.databases_changed(origin)
        elif method == "Page.frameNavigated":
            if page.ready.done():  # else it has not waited for our scripts, and is adopted
                self._committed(page, params["frame"])
        elif method == "Page.frameDetached":
            page.frame_gone(params["frameId"])
        elif method == "Page.loadEventFired":
            self._spawn(self._last_acts.look(page))
        elif method not in _STIRRING:
            return
        self._stirred.set()

    def _committed(self, page: CdpPage, frame: dict[str, Any]) -> None:
        if "parentId" not in frame:
            self._last_acts.left(page)
        origin, ancestors = page.committed(frame)
        if origin is None:
            return
        self._restore.committed(origin, ancestors)
        if not ancestors:
            self._mirror.committed(origin)
            self._databases.visited(page.session, origin)
        if shares_storage(origin, ancestors):
            self._spawn(self._read_document(page, origin))

    async def _read_document(self, page: CdpPage, origin: str) -> None:
        """Read what a new document has of its origin; if it is not there, neither was what should have been restored."""
        if await page.read_storage(self._mirror, origin):
            self._mirror.arrived(origin, self._restore.delivered(origin))
        elif page.origin == origin and self._mirror.is_in_doubt(origin) and not self.is_gone:
            self._restore.put_back(origin)

    async def _watch(self) -> None:
        """Look at the browser after each stir and now and then, until it is gone."""
        while not self.is_gone:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), _IDLE_INTERVAL)
            await asyncio.sleep(DEBOUNCE)
            self._stirred.clear()
            with contextlib.suppress(CdpError):
                await self._look(everything=False)
            if self._mirror.version != self._seen:
                self._seen = self._mirror.version
                self._on_change()

    async def _look(self, *, everything: bool) -> None:
        """Bring the mirror up to date.

        Args:
            everything: also what events tell already, for the last look.
        """
        cookies = await self._connection.send("Storage.getCookies")
        self._mirror.cookies_read([from_cdp(cookie) for cookie in cookies["cookies"]])
        pages = list(self._pages.values())
        if everything:
            at = [(page, page.origin) for page in pages]
            await asyncio.gather(*(page.read_storage(self._mirror, origin) for page, origin in at if origin))
        await self._databases.read(pages)
        await self._last_acts.read(pages)
        await self._read_environment(pages)

    async def _read_environment(self, pages: list[CdpPage]) -> None:
        page = next((page for page in pages if page.origin), None)
        if page is None or self._has_environment:
            return
        self._has_environment = True
        now: dict[str, Any] = await page.evaluate(javascript.call("environment"))
        for name in changed(self._recorded, now):
            self._session.report("environment_changed", name)
        self._mirror.environment = {**self._mirror.environment, **now}
