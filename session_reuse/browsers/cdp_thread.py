"""A DevTools connection for synchronous clients: an event loop in a thread, a blocking socket. Must never outlive its user.

Selenium brings `websocket-client`, which blocks; its reading thread is a daemon, so that a program can end without us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import urllib.request
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

T = TypeVar("T")

_OPEN_LIMIT: Final = 5.0


class LoopThread:
    """An event loop that runs in a thread of its own until `stop`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="session_reuse.cdp", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], limit: float) -> T:
        """Do the work on the loop and wait for it in the calling thread.

        Raises:
            TimeoutError: it took longer than `limit` seconds, and was cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(limit)
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop; what still runs on it is cancelled."""
        with contextlib.suppress(TimeoutError):
            self.run(_cancel_all(), _OPEN_LIMIT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_OPEN_LIMIT)
        if not self._thread.is_alive():
            self._loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class BlockingSocket:
    """A transport over `websocket-client`: a thread reads, the loop writes.

    Args:
        url: of the browser's DevTools endpoint.

    Raises:
        Exception: of `websocket-client` or the system, when it cannot be opened.
    """

    def __init__(self, url: str) -> None:
        import websocket

        # Chromium refuses connections with an Origin that was not allowed on its command line.
        self._socket = websocket.create_connection(url, timeout=_OPEN_LIMIT, suppress_origin=True)
        self._socket.settimeout(None)
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        threading.Thread(target=self._read, name="session_reuse.cdp.reader", daemon=True).start()

    async def send(self, message: str) -> None:
        """Send one message."""
        self._socket.send(message)

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Iterate over the messages received, until the end of the connection."""
        while (message := await self._inbox.get()) is not None:
            yield message

    async def close(self) -> None:
        """End the connection; the reader wakes up, and closes the socket."""
        self._socket.abort()  # type: ignore[no-untyped-call]

    def _read(self) -> None:
        try:
            while message := self._received():
                self._loop.call_soon_threadsafe(self._inbox.put_nowait, message)
            self._loop.call_soon_threadsafe(self._inbox.put_nowait, None)
        except RuntimeError:
            return  # the loop is closed: nobody listens any more
        finally:
            self._socket.shutdown()  # type: ignore[no-untyped-call]

    def _received(self) -> str | bytes | None:
        try:
            return self._socket.recv()
        except Exception:  # noqa: BLE001  (whatever ends the connection)
            return None


def websocket_url(endpoint: str) -> str:
    """Return the websocket of a browser, asking the browser itself for it where only host and port are known.

    Raises:
        OSError: there is no browser.
    """
    if "://" in endpoint:
        return endpoint
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"http://{endpoint}/json/version", timeout=_OPEN_LIMIT) as answer:
        return str(json.load(answer)["webSocketDebuggerUrl"])
