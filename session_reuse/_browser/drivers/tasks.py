"""Tasks of asynchronous clients: the flows of a driver, and work that outlives the cancellation of its caller."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from session_reuse._browser import limits
from session_reuse._browser.driver import BrowserDriver
from session_reuse._browser.flow import Flow, run_async
from session_reuse._cancellation import retrieve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from session_reuse._browser_session import BrowserSession

background: set[asyncio.Future[Any]] = set()
"""Work that no caller may wait for any longer: the loop itself keeps no strong reference."""


def in_background(work: Awaitable[Any]) -> asyncio.Future[Any]:
    """Run work to its end, also when its caller is cancelled."""
    task = asyncio.ensure_future(work)
    background.add(task)
    task.add_done_callback(background.discard)
    task.add_done_callback(retrieve)
    return task


async def is_done(step: Any, limit: float) -> bool:
    """Return whether a step comes to its end within a limit. It goes on in the background."""
    done, _ = await asyncio.wait({in_background(step)}, timeout=limit)
    return bool(done)


async def finished(work: Awaitable[Any]) -> None:
    """Wait for work. It goes on in the background when the caller is cancelled."""
    await asyncio.shield(in_background(work))


class AsyncDriver(BrowserDriver):
    """A driver that runs its flows in tasks."""

    settle_limit: ClassVar[float]
    """Seconds that `settle` waits."""

    def __init__(self, session: BrowserSession) -> None:
        super().__init__(session)
        self._tasks: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()

    def spawn(self, flow: Flow[object]) -> asyncio.Task[None]:
        """Run a flow in a task."""
        task = asyncio.create_task(self._guarded(flow))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, flow: Flow[object]) -> None:
        try:
            await run_async(flow)
        except Exception as error:  # noqa: BLE001  (following a page must never disturb the agent)
            self.report_not_followed(error)

    async def best_effort(self, release: Callable[[], Any]) -> None:
        """Wait for what releases something of ours, for `limits.COMMAND` at most."""
        await is_done(release(), limits.COMMAND)

    async def settle(self) -> None:
        """Wait for the flows that are under way, but not again for one that took too long: its page may hang for ever."""
        if tasks := self._tasks - self._late - {asyncio.current_task()}:
            _, late = await asyncio.wait(tasks, timeout=self.settle_limit)
            self._late = self._tasks & (self._late | late)

    def cancel_tasks(self) -> list[asyncio.Task[None]]:
        """Cancel all flows that still run, and return their tasks."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        return tasks
