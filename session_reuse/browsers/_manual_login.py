"""A login by hand: a person in a browser with a session, until the login is there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from session_reuse._browser.drivers.connection import CdpConnection, CdpError, open_websocket
from session_reuse._browser_session import wiring_of
from session_reuse.errors import ConfigurationError

if TYPE_CHECKING:
    from session_reuse._browser_session import BrowserSession
    from session_reuse.browsers.cdp import Chromium

_POLL: Final = 0.5
_LOOK_LIMIT: Final = 5.0


class Until(NamedTuple):
    """What a page looks like to those who are logged in."""

    url: str | None
    text: str | None
    selector: str | None

    def __bool__(self) -> bool:
        return any(part is not None for part in self)

    def holds(self, url: str, text: str, has_element: bool) -> bool:
        """Return whether a page looks so."""
        return (
            (self.url is None or self._url_matches(url))
            and (self.text is None or self.text.casefold() in text.casefold())
            and (self.selector is None or has_element)
        )

    def _url_matches(self, url: str) -> bool:
        # No fnmatch: `[` is part of URLs, such as http://[::1]:8000/ and ?item[]=1.
        return re.fullmatch(".*".join(map(re.escape, (self.url or "").split("*"))), url, re.DOTALL) is not None


class End(StrEnum):
    """Why a login by hand has ended."""

    UNTIL = "until"
    ENTER = "enter"
    CLOSED = "closed"


class ManualLogin:
    """One login by a person."""

    def __init__(self, session: BrowserSession, chromium: Chromium, until: Until) -> None:
        self._session = session
        self._chromium = chromium
        self._until = until

    async def run(self, page: str, pressed: asyncio.Event) -> End:
        """Open the page, and return why the login has ended: `pressed` is set when the person says so.

        Raises:
            ConfigurationError: the selector is none.
        """
        connection = CdpConnection(await open_websocket(self._chromium.websocket_url), lambda *_: None)
        try:
            target = (await connection.send("Target.createTarget", {"url": page}))["targetId"]
            while not pressed.is_set():
                with contextlib.suppress(TimeoutError):  # a dialog of the page is open: the person is at it
                    async with asyncio.timeout(_LOOK_LIMIT):
                        if end := await self._look(connection, target):
                            return end
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_POLL):
                        await pressed.wait()
        except CdpError:
            return End.CLOSED
        finally:
            await connection.close()
        return End.ENTER

    async def _look(self, connection: CdpConnection, target: str) -> End | None:
        found = (await connection.send("Target.getTargets", {}))["targetInfos"]
        pages = [each["targetId"] for each in found if each["type"] == "page"]
        if target not in pages if self._chromium.process is None else not pages:
            return End.CLOSED
        for capture in list(wiring_of(self._session).captures):  # the person may close the browser at any moment
            if asyncio.iscoroutine(state := capture()):
                await state
        if self._until:
            for each in pages:
                if await self._is_logged_in(connection, each):
                    return End.UNTIL
        return None

    async def _is_logged_in(self, connection: CdpConnection, target: str) -> bool:
        selector = json.dumps(self._until.selector or "html")
        expression = f"[location.href, document.body?.innerText || '', !!document.querySelector({selector})]"
        to = {"targetId": target, "flatten": True}
        page = (await connection.send("Target.attachToTarget", to))["sessionId"]
        try:
            answer = await connection.send("Runtime.evaluate", {"expression": expression, "returnByValue": True}, page)
        finally:
            with contextlib.suppress(CdpError):  # in place of a cancellation, it would be taken for a closed browser
                await connection.send("Target.detachFromTarget", {"sessionId": page})
        if answer["result"].get("description", "").startswith("SyntaxError"):  # a page can cause other errors
            raise ConfigurationError(f"--until-selector: {self._until.selector!r} is no CSS selector")
        value = answer["result"].get("value")
        return isinstance(value, list) and self._until.holds(*value)
