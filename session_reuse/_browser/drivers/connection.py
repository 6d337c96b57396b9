"""A DevTools connection of our own: commands, their answers, events, its end.

A second connection beside the client's own, because clients keep one callback per event (cdp-use 1.4) or hand out none
(Selenium), and because it goes on working while the client restarts its event bus.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Protocol

from session_reuse._browser import limits
from session_reuse._cancellation import retrieve
from session_reuse.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from session_reuse._browser.driver import Params

    EventHandler = Callable[[str, Params, str], None]


class CdpError(AdapterError):
    """The browser refused a command, did not answer it in time, or has ended."""


class Transport(Protocol):
    """Both directions of a websocket. A connection of the `websockets` package is one."""

    async def send(self, message: str) -> None:
        """Send one message."""

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Iterate over the messages received, until the end of the connection."""

    async def close(self) -> None:
        """End the connection."""


class CdpConnection:
    """Commands and events over one transport.

    Args:
        transport: an open websocket to the browser.
        on_event: called with method, parameters and session id, in the order of arrival. Must return at once.
        on_end: called at the end of the connection.

    Attributes:
        ended: set when the connection has ended.
    """

    def __init__(self, transport: Transport, on_event: EventHandler, on_end: Callable[[], None] = lambda: None) -> None:
        self.ended = asyncio.Event()
        self._transport = transport
        self._on_event = on_event
        self._on_end = on_end
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        self._answers: dict[int, tuple[str, asyncio.Future[Params]]] = {}
        self._last_id = 0
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]

    def post(self, method: str, params: Params | None = None, cdp_session_id: str = "") -> asyncio.Future[Params]:
        """Queue a command and return its answer to come. Commands reach the browser in the order of their posting."""
        answer = asyncio.get_running_loop().create_future()
        answer.add_done_callback(retrieve)
        if self.ended.is_set():
            answer.set_exception(CdpError("the browser is gone"))
            return answer
        self._last_id += 1
        self._answers[self._last_id] = (cdp_session_id, answer)
        command: Params = {"id": self._last_id, "method": method, "params": params or {}}
        if cdp_session_id:
            command["sessionId"] = cdp_session_id
        self._outbox.put_nowait(json.dumps(command))
        return answer

    async def send(
        self,
        method: str,
        params: Params | None = None,
        cdp_session_id: str = "",
        *,
        timeout: float | None = None,
    ) -> Params:
        """Send a command and return its result, within `limits.BROWSER` if there is no other limit.

        Raises:
            CdpError: refused, not answered within `timeout` seconds, or the browser has ended.
        """
        timeout = timeout or limits.BROWSER
        try:
            async with asyncio.timeout(timeout):
                return await self.post(method, params, cdp_session_id)
        except TimeoutError:
            raise CdpError(f"{method} was not answered in {timeout:g} s") from None

    async def close(self) -> None:
        """End the connection. Commands still waiting fail."""
        self._end()
        with contextlib.suppress(Exception):
            await self._transport.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for data in self._transport:
                self._receive(json.loads(data))
        except Exception as error:  # noqa: BLE001  (each transport has its own; all mean the end)
            self._end(type(error).__name__)
        else:
            self._end()

    def _receive(self, message: Params) -> None:
        if "id" not in message:
            self._handle(message)
            return
        _, answer = self._answers.pop(message["id"], ("", None))
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(CdpError(str(message["error"].get("message", "refused"))))
        else:
            answer.set_result(message.get("result", {}))

    def _handle(self, event: Params) -> None:
        if event["method"] == "Target.detachedFromTarget":
            # The browser does not answer what a closed tab was still to answer (Chromium 156, 2026-11-26).
            gone = event.get("params", {}).get("sessionId")
            self._fail({number for number, (owner, _) in self._answers.items() if owner == gone}, "the tab is gone")
        try:
            self._on_event(event["method"], event.get("params", {}), event.get("sessionId", ""))
        except Exception as error:  # noqa: BLE001  (one bad event must not end the connection)
            asyncio.get_running_loop().call_exception_handler({"message": "CDP event handler", "exception": error})

    async def _write(self) -> None:
        try:
            while True:
                await self._transport.send(await self._outbox.get())
        except Exception as error:  # noqa: BLE001  (each transport has its own; all mean the end)
            self._end(type(error).__name__)

    def _end(self, reason: str = "") -> None:
        self.ended.set()
        self._on_end()
        self._fail(set(self._answers), f"the browser is gone {reason}".rstrip())

    def _fail(self, numbers: set[int], reason: str) -> None:
        for number in numbers:
            _, answer = self._answers.pop(number)
            if not answer.done():
                answer.set_exception(CdpError(reason))


async def open_websocket(url: str, headers: Mapping[str, str] | None = None) -> Transport:
    """Open a websocket to a browser's own DevTools endpoint, with the headers that a browser service wants to see.

    Raises:
        Exception: of `websockets` or the system, when it cannot be opened.
    """
    from websockets.asyncio.client import connect

    return await connect(
        url,
        max_size=None,  # storage does not fit into the limit of a message, 1 MB
        ping_interval=None,
        close_timeout=1,
        open_timeout=limits.OPEN,
        compression=None,
        proxy=None,  # a proxy for the web is none for a browser's debugging port
        additional_headers=headers,
    )
