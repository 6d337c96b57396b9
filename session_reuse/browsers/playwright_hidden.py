"""A page that an agent of Playwright's does not see, for origins to be read again. Must never let a request out.

A page of `context.new_page()` would come to the agent as a `page` event, like a popup. A hidden target of Chromium is none
of Playwright's, so it is spoken to through the debugging session of the browser itself.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from typing import Any, Final, Self

from playwright.async_api import Error

from session_reuse.browsers.hidden_page import BLANK

_REPLY_LIMIT: Final = 3.0
_ANSWER: Final = {
    "responseCode": 200,
    "responseHeaders": [{"name": "Content-Type", "value": "text/html"}],
    "body": base64.b64encode(BLANK.encode()).decode(),
}


class HiddenPage:
    """A hidden page, and the debugging session with it: what Playwright's `Page` and `CDPSession` are to a `Tab`.

    Args:
        browser_session: with the browser, ours alone; it ends with the page.

    Attributes:
        url: where it was sent.
    """

    def __init__(self, browser_session: Any) -> None:
        self.url = "about:blank"
        self._browser_session = browser_session
        self._session = ""
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._arrived = asyncio.Event()

    @classmethod
    async def open(cls, browser: Any, context_id: str) -> Self:
        """Open one in a context that the browser knows by this id.

        Raises:
            playwright.async_api.Error: this browser has none.
            TimeoutError: it does not answer.
        """
        session = await browser.new_browser_cdp_session()
        page = cls(session)
        session.on("Target.receivedMessageFromTarget", page._received)
        target = {"url": "about:blank", "hidden": True, "background": True, "browserContextId": context_id}
        made = await session.send("Target.createTarget", target)
        to = {"targetId": made["targetId"], "flatten": False}  # sessions of their own are for Playwright's own pages
        page._session = (await session.send("Target.attachToTarget", to))["sessionId"]
        await page.send("Page.enable", {})
        await page.send("Fetch.enable", {"patterns": [{"urlPattern": "*"}]})
        await page.send("Network.enable", {})
        await page.send("Network.setBypassServiceWorker", {"bypass": True})
        return page

    async def goto(self, url: str, **_: Any) -> None:
        """Go to a URL, whose document is empty.

        Raises:
            playwright.async_api.Error: it could not be reached.
            TimeoutError: the browser does not answer.
        """
        self._arrived.clear()
        answer = await self.send("Page.navigate", {"url": url})
        if answer.get("errorText"):
            raise Error(f"{url}: {answer['errorText']}")
        async with asyncio.timeout(_REPLY_LIMIT):
            await self._arrived.wait()
        self.url = url

    async def send(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send a command and return its result.

        Raises:
            playwright.async_api.Error: refused.
            TimeoutError: not answered in time.
        """
        number = next(self._numbers)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        message = json.dumps({"id": number, "method": method, "params": params})
        try:
            async with asyncio.timeout(_REPLY_LIMIT):
                await self._browser_session.send(
                    "Target.sendMessageToTarget", {"sessionId": self._session, "message": message}
                )
                answer = await reply
        finally:
            del self._replies[number]
        if "error" in answer:
            raise Error(f"{method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def _received(self, event: dict[str, Any]) -> None:
        message = json.loads(event["message"])
        if message.get("method") == "Fetch.requestPaused":
            request = {"requestId": message["params"]["requestId"], **_ANSWER}
            task = asyncio.create_task(self._answered(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if message.get("method") == "Page.frameNavigated":
            self._arrived.set()
        reply = self._replies.get(message.get("id", 0))
        if reply is not None and not reply.done():
            reply.set_result(message)

    async def _answered(self, request: dict[str, Any]) -> None:
        try:
            await self.send("Fetch.fulfillRequest", request)
        except (Error, TimeoutError):
            return  # the page has been closed meanwhile

    async def close(self) -> None:
        """Close it; hidden pages end with the session that has made them."""
        await self._browser_session.detach()
