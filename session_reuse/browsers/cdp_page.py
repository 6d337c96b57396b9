"""One tab as DevTools shows it: its session, its frames, and reading from it. Must never change what the page holds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from session_reuse.browsers.cdp_connection import CdpConnection, CdpError
from session_reuse.browsers.cdp_hidden_page import evaluate
from session_reuse.browsers.origins import Items, origin_of, storage_key

if TYPE_CHECKING:
    from session_reuse.browsers.live_mirror import LiveMirror


class CdpPage:
    """One tab.

    Args:
        connection: to the browser.
        session: id of our DevTools session on the tab.
        target: id of the tab; Chromium gives its main frame the same.

    Attributes:
        ready: the answer to the command that lets it start.
    """

    def __init__(self, connection: CdpConnection, session: str, target: str) -> None:
        self.session = session
        self.target = target
        self.ready: asyncio.Future[dict[str, Any]]
        self._connection = connection
        self._frames: dict[str, tuple[str | None, str | None]] = {}

    @property
    def origin(self) -> str | None:
        """Origin of the document in the main frame."""
        return self._frames.get(self.target, (None, None))[1]

    def committed(self, frame: dict[str, Any]) -> tuple[str | None, list[str]]:
        """Note a document, and return its origin and those of the frames around it, from the inside out."""
        parent = frame.get("parentId")
        origin = origin_of(str(frame.get("url")))
        self._frames[frame["id"]] = (parent, origin)
        return origin, self._ancestors(parent)

    def frame_gone(self, frame: str) -> None:
        """Note that a frame was removed."""
        self._frames.pop(frame, None)

    def _ancestors(self, frame: str | None) -> list[str]:
        origins = []
        while frame is not None:
            frame, origin = self._frames.get(frame, (None, None))
            origins.append(origin or "")
        return origins

    async def load_frame(self) -> dict[str, Any]:
        """Return the main frame of a page that was there before us."""
        tree = await self._connection.send("Page.getFrameTree", session=self.session)
        frame: dict[str, Any] = tree["frameTree"]["frame"]
        return frame

    async def isolated_world(self) -> int:
        """Return a context whose storage and promises the page's scripts cannot have replaced."""
        params = {"frameId": self.target, "worldName": "session_reuse"}
        answer = await self._connection.send("Page.createIsolatedWorld", params, self.session)
        return int(answer["executionContextId"])

    async def evaluate(self, expression: str) -> Any:
        """Return what an expression gives in an isolated world of the main frame, awaited."""
        world = await self.isolated_world()
        return await evaluate(self._connection, self.session, expression, context=world)

    async def read_storage(self, mirror: LiveMirror, origin: str) -> bool:
        """Have the mirror take over the web storage of an origin that has a frame in this tab; return whether it has."""
        reading = mirror.begin_read(self.target, origin)
        local = session = None
        try:
            local, session = await asyncio.gather(
                self._items(origin, is_local=True), self._items(origin, is_local=False)
            )
        finally:
            mirror.finish_read(reading, local, session)
        return local is not None

    async def _items(self, origin: str, *, is_local: bool) -> Items | None:
        storage = {"storageKey": storage_key(origin), "isLocalStorage": is_local}
        try:
            found = await self._connection.send("DOMStorage.getDOMStorageItems", {"storageId": storage}, self.session)
        except CdpError:
            return None  # the frame has gone on to another origin
        items: Items = found["entries"]
        return items
