"""An event loop in a thread, for synchronous clients."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from session_reuse._browser import limits
from session_reuse._browser.drivers.connection import CdpError

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class LoopThread:
    """An event loop that runs in a separate thread until `stop`.

    Attributes:
        is_stopped: whether it was stopped.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self.is_stopped = False
        self._thread = threading.Thread(target=self._serve, name="session_reuse.cdp", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self.is_stopped:
            # A SystemExit in a task ends `run_forever`. The thread that waits for its result still needs the loop.
            with contextlib.suppress(BaseException):
                self._loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T], limit: float) -> T:
        """Do the work on the loop and wait for it in the calling thread.

        Raises:
            CdpError: the thread was stopped, or it took longer than `limit` seconds and was cancelled.
        """
        if self.is_stopped:
            work.close()
            raise CdpError("the browser was released")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(limit)
        except TimeoutError:
            raise CdpError("the browser did not answer") from None
        finally:
            future.cancel()

    def stop(self) -> None:
        """End the loop. What still runs on it is cancelled."""
        if self.is_stopped:
            return
        with contextlib.suppress(CdpError):
            self.run(_cancel_all(), limits.OPEN)
        self.is_stopped = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(limits.OPEN)
        if not self._thread.is_alive():
            self._loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
