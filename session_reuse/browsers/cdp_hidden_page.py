"""A page nobody sees, for origins without an open tab. Must never let a request out: each is answered here.

`hidden` targets exist since Chromium 134; they are no tab for Playwright and browser-use, a window for ChromeDriver (see
`selenium.py`), and end with our connection.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from session_reuse.browsers.cdp_connection import CdpConnection, CdpError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_NAVIGATION_TIMEOUT: Final = 5.0
_EVALUATION_TIMEOUT: Final = 4.0
_DOCUMENT: Final = base64.b64encode(b"<!doctype html>").decode()


class HiddenPage:
    """One hidden page; it goes from origin to origin.

    Args:
        connection: to the browser.
        session: id of the DevTools session attached to the page.
    """

    def __init__(self, connection: CdpConnection, session: str) -> None:
        self.session = session
        self._connection = connection
        self._arrived = asyncio.Event()

    async def prepare(self) -> Self:
        """Have all requests come here, whatever service workers the origin has."""
        commands = (
            self._connection.post("Page.enable", session=self.session),
            self._connection.post("Network.enable", session=self.session),
            self._connection.post("Network.setBypassServiceWorker", {"bypass": True}, self.session),
            self._connection.post("Fetch.enable", {"patterns": [{"urlPattern": "*"}]}, self.session),
        )
        await asyncio.wait_for(asyncio.gather(*commands), _NAVIGATION_TIMEOUT)
        return self

    def on_event(self, method: str, params: dict[str, Any]) -> None:
        """Answer a request, and note the arrival."""
        if method == "Fetch.requestPaused":
            answer = {"requestId": params["requestId"], "responseCode": 200, "body": _DOCUMENT}
            headers = [{"name": "Content-Type", "value": "text/html"}]
            self._connection.post("Fetch.fulfillRequest", {**answer, "responseHeaders": headers}, self.session)
        elif method == "Page.frameNavigated":
            self._arrived.set()

    async def evaluate_at(self, origin: str, expression: str, *, timeout: float = _EVALUATION_TIMEOUT) -> Any:
        """Go to an origin and return what an expression gives there.

        Raises:
            CdpError: the origin was not reached, or the expression failed.
        """
        self._arrived.clear()
        answer = await self._connection.send("Page.navigate", {"url": f"{origin}/"}, self.session)
        if answer.get("errorText"):
            raise CdpError(f"{origin}: {answer['errorText']}")
        try:
            await asyncio.wait_for(self._arrived.wait(), _NAVIGATION_TIMEOUT)
        except TimeoutError:
            raise CdpError(f"{origin} was not reached in {_NAVIGATION_TIMEOUT:g} s") from None
        return await evaluate(self._connection, self.session, expression, timeout=timeout)


@asynccontextmanager
async def hidden_page(connection: CdpConnection, hidden: dict[str, HiddenPage]) -> AsyncIterator[HiddenPage]:
    """Open a hidden page.

    Args:
        connection: to the browser.
        hidden: session id -> page; whoever handles events looks here for whom they are.

    Raises:
        CdpError: this browser has none.
    """
    target = {"url": "about:blank", "hidden": True, "background": True}
    target_id = (await connection.send("Target.createTarget", target))["targetId"]
    try:
        attached = await connection.send("Target.attachToTarget", {"targetId": target_id, "flatten": True})
        page = hidden[attached["sessionId"]] = HiddenPage(connection, attached["sessionId"])
        try:
            yield await page.prepare()
        finally:
            del hidden[page.session]
    finally:
        with contextlib.suppress(CdpError):
            await connection.send("Target.closeTarget", {"targetId": target_id})


async def evaluate(
    connection: CdpConnection,
    session: str,
    expression: str,
    *,
    context: int | None = None,
    timeout: float = _EVALUATION_TIMEOUT,
) -> Any:
    """Return what an expression gives in a page, awaited.

    Raises:
        CdpError: it threw, took too long, or the page is gone. The page's own text is not repeated.
    """
    params: dict[str, Any] = {"expression": expression, "awaitPromise": True, "returnByValue": True}
    if context is not None:
        params["contextId"] = context
    answer = await connection.send("Runtime.evaluate", params, session, timeout=timeout)
    if "exceptionDetails" in answer:
        raise CdpError("a script failed in the page")
    return answer["result"].get("value")
