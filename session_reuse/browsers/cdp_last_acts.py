"""What documents store while they are being left, over DevTools. Must never read an origin again that has told all.

Events of a document's last writes get lost when another process takes over its tab. Most documents write nothing then;
those that have handlers for it are read once more, on a hidden page if no tab shows their origin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from session_reuse.browsers import javascript
from session_reuse.browsers.cdp_connection import CdpConnection, CdpError
from session_reuse.browsers.cdp_hidden_page import HiddenPage, hidden_page
from session_reuse.browsers.tab import has_last_acts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from session_reuse.browsers.cdp_page import CdpPage
    from session_reuse.browsers.live_mirror import LiveMirror


class CdpLastActs:
    """The documents of one browser that have handlers for being left.

    Args:
        connection: to the browser.
        mirror: takes what is read.
        report: told what could not be read.
        hidden: session id -> hidden page; whoever handles events looks here.
    """

    def __init__(
        self,
        connection: CdpConnection,
        mirror: LiveMirror,
        report: Callable[[str, str], None],
        hidden: dict[str, HiddenPage],
    ) -> None:
        self._connection = connection
        self._mirror = mirror
        self._report = report
        self._hidden = hidden
        self._acting: dict[str, str] = {}
        self._left: set[str] = set()
        self._failed: set[str] = set()

    async def look(self, page: CdpPage) -> None:
        """Learn whether the document in a page has such handlers.

        Raises:
            CdpError: it is gone.
        """
        origin, kinds = page.origin, set[str]()
        for name in ("window", "document"):  # which no page can replace
            answer = await self._connection.send("Runtime.evaluate", {"expression": name}, page.session)
            params: dict[str, Any] = {"objectId": answer["result"]["objectId"]}
            found = await self._connection.send("DOMDebugger.getEventListeners", params, page.session)
            kinds |= {listener["type"] for listener in found["listeners"]}
        if origin is not None and origin == page.origin and has_last_acts(kinds):
            self._acting[page.session] = origin

    def left(self, page: CdpPage) -> None:
        """Note that the document in a page is being replaced."""
        origin = self._acting.pop(page.session, None)
        if origin is not None:
            self._left.add(origin)

    def closed(self, page: CdpPage) -> None:
        """Note that a page is gone, which may not have been there for long enough to be read."""
        self._acting.pop(page.session, None)
        if page.origin is not None:
            self._left.add(page.origin)
            self._mirror.left_untold(page.origin)

    async def read(self, pages: Collection[CdpPage]) -> None:
        """Read the localStorage of the origins that were left since the last time.

        Raises:
            CdpError: the browser is gone.
        """
        left, self._left = self._left, set()
        for page in pages:
            if page.origin in left and await page.read_storage(self._mirror, page.origin):
                left.discard(page.origin)
        if not left:
            return
        try:
            async with hidden_page(self._connection, self._hidden) as hidden:
                for origin in sorted(left):
                    await self._read_hidden(hidden, origin)
        except CdpError:
            if self._connection.ended.is_set():
                raise
            for origin in left & self._failed:
                self._report("capture_limited", f"{origin} could not be read again; what was last seen is kept")
            self._left |= left - self._failed
            self._failed |= left

    async def _read_hidden(self, hidden: HiddenPage, origin: str) -> None:
        reading = self._mirror.begin_read(hidden.session, origin)
        local = None
        try:
            local = (await hidden.evaluate_at(origin, javascript.call("storage_read")))["local"]
        finally:
            self._mirror.finish_read(reading, local, None)
