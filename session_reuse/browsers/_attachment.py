"""`Attachment`: one session bound to the browser behind a DevTools address, over any number of connections."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from typing import TYPE_CHECKING, Final

from session_reuse._browser import limits
from session_reuse._browser.checkpoints import save_checkpoint, save_checkpoint_blocking
from session_reuse._browser.devtools_browser import DevToolsBrowser
from session_reuse._browser.drivers.connection import CdpError
from session_reuse._problem import ProblemKind
from session_reuse.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from session_reuse._browser.drivers.connection import Transport
    from session_reuse._browser.options import Settings
    from session_reuse._browser_session import BrowserSession
    from session_reuse._state.storage_state import StorageState

_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0
_CHECKPOINT_LIMIT: Final = 5.0

_logger = logging.getLogger("session_reuse.browsers")


class Attachment:
    """Restores a session into a browser, follows it, saves what changes, and connects again when a connection drops.

    Args:
        session: whose state is restored, and which gets what was captured.
        settings: of the user.
        connect: opens the websocket of the browser that is there now; returns its URL too.
        accept: raises for a browser that cannot be used, given its name and version.
        is_alive: whether the browser may still be there.
        is_own: whether the browser was started for this session.
        of_target: a tab whose context is used. If not given, the browser's default context is used.
        in_thread: whether this runs on an event loop in a separate thread, where no asynchronous session can be saved.

    Attributes:
        websocket: URL of the connection.
    """

    def __init__(
        self,
        session: BrowserSession,
        settings: Settings,
        *,
        connect: Callable[[], Awaitable[tuple[str, Transport]]],
        accept: Callable[[str], None] = lambda _: None,
        is_alive: Callable[[], bool],
        is_own: bool,
        of_target: str | None = None,
        in_thread: bool = False,
    ) -> None:
        self._session = session
        self._settings = settings
        self._open = connect
        self._accept = accept
        self._is_alive = is_alive
        self._is_own = is_own
        self._of_target = of_target
        self._in_thread = in_thread
        self.websocket = ""
        self._browser: DevToolsBrowser | None = None
        self._connecting = asyncio.Lock()
        self._changed = asyncio.Event()
        self._ending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Restore, and follow the browser.

        Raises:
            CdpError: the browser did not answer.
            AdapterError: there is no connection, or it cannot be used.
            TimeoutError: it took too long.
        """
        await self._connect()
        self._tasks = [asyncio.create_task(self._stay_connected())]
        if self._settings.checkpoint_after is not None:
            self._tasks.append(asyncio.create_task(self._checkpoint_regularly(self._settings.checkpoint_after)))

    def report_failure(self, where: str, error: Exception) -> None:
        """Report that there is no connection, and that the agent works without."""
        reason = str(error) if isinstance(error, AdapterError) else type(error).__name__
        self._session.report(ProblemKind.RESTORE_FAILED, where, f"no connection of our own: {reason}")
        _logger.warning("no connection of our own to %s: %s", where, reason)

    async def _connect(self) -> None:
        """Open a connection. A browser that we lost touch with is followed only: it is newer than what we know."""
        self.keep_last_seen()
        async with asyncio.timeout(limits.START):
            websocket, transport = await self._open()
            before = self._browser
            browser = DevToolsBrowser(
                transport,
                self._session,
                self._settings,
                before=before.engine if before is not None and websocket == self.websocket else None,
                is_own=self._is_own,
                of_target=self._of_target,
                on_change=self._changed.set,
            )
            try:
                self._accept(await browser.product())
                await browser.start()
            except BaseException:
                await browser.close()
                raise
        self._browser, self.websocket = browser, websocket
        if before is not None:
            await before.close()

    def has_tab(self, target: str) -> bool:
        """Return whether a tab is one of those that are followed."""
        return self._browser is not None and self._browser.has_tab(target)

    async def reconnect(self) -> bool:
        """Connect again if the connection has ended. Return whether there is one."""
        async with self._connecting:
            if self._browser is not None and not self._browser.is_gone:
                return True
            if not self._is_alive():
                return False
            try:
                await self._connect()
            except Exception as error:  # noqa: BLE001  (each transport has its own; all mean: not yet)
                _logger.debug("no new connection to the browser: %s", type(error).__name__)
                return False
            return True

    async def _stay_connected(self) -> None:
        delay = 0.0
        while self._is_alive():
            began = time.monotonic()
            if self._browser is not None:
                await self._browser.ended()
            if time.monotonic() - began > _LONGEST_DELAY:  # not one of those that drop again and again
                delay = 0.0
            await asyncio.sleep(delay)
            delay = min(max(2 * delay, _FIRST_DELAY), _LONGEST_DELAY)
            await self.reconnect()

    async def _checkpoint_regularly(self, seconds: float) -> None:
        while not self._ending.is_set():
            await self._changed.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ending.wait()
            self._changed.clear()
            if not self._ending.is_set():
                await self.checkpoint()

    async def checkpoint(self) -> None:
        """Save what was captured. Where no save is possible, it is kept in memory."""
        if inspect.iscoroutinefunction(self._session.checkpoint) and not self._in_thread:
            await save_checkpoint(self._session, self.take)
            return
        loop = asyncio.get_running_loop()

        def keep() -> None:
            asyncio.run_coroutine_threadsafe(self.take(), loop).result(limits.START)

        await asyncio.to_thread(save_checkpoint_blocking, self._session, keep)

    async def capture(self, *, is_final: bool = False) -> StorageState:
        """Return the current state, or the last one seen when the browser has ended.

        Raises:
            CdpError: nothing was ever read.
        """
        if self._browser is None or self._browser.is_gone:
            await self.reconnect()
        if self._browser is None:
            raise CdpError("the browser could not be followed")
        return await self._browser.capture(is_final=is_final)

    async def take(self, *, is_final: bool = False) -> None:
        """Assign the current state to the session."""
        try:
            self._session.storage_state = await self.capture(is_final=is_final)
        except Exception as error:  # noqa: BLE001  (the stored state stays as it is)
            self._session.capture_failed(str(error) or type(error).__name__)

    def keep_last_seen(self) -> None:
        """Assign the state that was last seen to the session, without a call of the browser."""
        if self._browser is not None:
            self._browser.engine.keep_last_seen()

    async def rearm_session_storage(self) -> None:
        """Restore sessionStorage in the next tab once more, because a check has used it up."""
        if self._browser is None:
            return
        try:
            await self._browser.rearm_session_storage()
        except (CdpError, TimeoutError) as error:
            self._session.report(ProblemKind.RESTORE_FAILED, "sessionStorage", f"it was not restored again: {error}")

    async def finish(self) -> None:
        """Capture a last time."""
        self._ending.set()
        self._changed.set()
        if len(self._tasks) > 1:  # a checkpoint under way comes to its end: in a thread, it cannot be cancelled
            await asyncio.wait(self._tasks[1:], timeout=_CHECKPOINT_LIMIT)
        await self.take(is_final=True)

    async def release(self) -> None:
        """Release the browser, which goes on without us."""
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:  # also when this is cancelled
            if self._browser is not None:
                await self._browser.close()
