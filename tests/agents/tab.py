"""A tab that is driven over a DevTools connection of the test's own, as agents without a framework do."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from session_reuse._browser.drivers.connection import CdpConnection, CdpError, open_websocket
from tests.harness.polling import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT = 60.0


class Tab:
    """One new tab of a browser."""

    def __init__(self, connection: CdpConnection, session: str) -> None:
        self._connection = connection
        self._session = session

    async def evaluate(self, expression: str) -> Any:
        """Return what an expression gives in the page."""
        params = {"expression": expression, "returnByValue": True, "awaitPromise": True, "userGesture": True}
        return (await self._connection.send("Runtime.evaluate", params, self._session))["result"].get("value")

    async def goto(self, url: str) -> str:
        """Open a page of `Site`, and return its words once it has finished."""
        await self._connection.send("Page.navigate", {"url": url}, self._session)
        return await self.words()

    async def words(self) -> str:
        """Return the words of the page once it has finished."""

        async def ended() -> str:
            try:
                title = await self.evaluate("document.title")
            except CdpError:  # it is between two documents
                return ""
            return title if str(title).startswith("done") else ""

        return await until(ended, timeout=LIMIT, message="the page did not come to its end")

    async def log_in(self, url: str) -> None:
        """Log in with the form of `Site`."""
        await self.goto(url)
        await self.evaluate("document.getElementById('submit').click()")
        await until(self._is_welcome, timeout=LIMIT, message="no login")

    async def _is_welcome(self) -> bool:
        return await self.words() == "done welcome"

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command to the browser."""
        return await self._connection.send(method, params)


@asynccontextmanager
async def new_tab(websocket_url: str, **target: Any) -> AsyncIterator[Tab]:
    """Open a tab, or take the one of `targetId`, over its own connection. It stays open at the end."""
    connection = CdpConnection(await open_websocket(websocket_url), lambda *_: None)
    try:
        made = (
            target
            if "targetId" in target
            else await connection.send("Target.createTarget", {"url": "about:blank", **target})
        )
        to = {"targetId": made["targetId"], "flatten": True}
        yield Tab(connection, (await connection.send("Target.attachToTarget", to))["sessionId"])
    finally:
        await connection.close()


def log_in(websocket_url: str, url: str) -> None:
    """Do `Tab.log_in` in synchronous code."""

    async def act() -> None:
        async with new_tab(websocket_url) as tab:
            await tab.log_in(url)

    asyncio.run(act())


def words(websocket_url: str, url: str) -> str:
    """Do `Tab.goto` in synchronous code."""

    async def act() -> str:
        async with new_tab(websocket_url) as tab:
            return await tab.goto(url)

    return asyncio.run(act())
