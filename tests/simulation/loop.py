"""A deterministic event loop with virtual time: it sleeps by moving its clock.

Every handle carries the simulated process it belongs to, in a context variable. A process that is paused has its
handles set aside until it goes on. A process that crashed never runs again, not even its `finally` blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from typing import Any, Final

MOST_STEPS_AT_ONCE: Final = 20_000
"""Steps without any time passing after which code is taken to run in circles."""
MOST_STEPS: Final = 400_000
"""Steps of one history after which code is taken to poll without a pause."""


class Host:
    """What decides whether a handle may run: one simulated process.

    Attributes:
        dead: it crashed, and nothing of it runs any more.
        stalled: handles that wait for it to go on. None while it runs.
    """

    __slots__ = ("dead", "name", "skew", "stalled")

    def __init__(self, name: str, skew: float = 0.0) -> None:
        self.name = name
        self.skew = skew
        self.dead = False
        self.stalled: deque[Any] | None = None


HOST: ContextVar[Host | None] = ContextVar("simulated_process", default=None)
NOBODY: Final = copy_context()
"""The context of the network and the server, which belong to no process."""


class Stuck(Exception):  # noqa: N818  (what was found, not an error of the simulator)
    """Something waits that nothing will ever wake, or runs without end."""


class SimTask(asyncio.Task[Any]):
    """A task with a hash that does not depend on its address, so that sets of tasks have one order."""

    serial = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        SimTask.serial += 1
        self._number = SimTask.serial
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(asyncio.BaseEventLoop):
    """One history's event loop.

    Args:
        thread_delay: returns how long a piece of work in a thread takes.
    """

    def __init__(self, thread_delay: Callable[[], float]) -> None:
        super().__init__()
        self._now = 0.0
        self._heap: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._serial = 0
        self._at_once = 0
        self._thread_delay = thread_delay
        self.over = False
        self.steps = 0
        self.tasks: list[SimTask] = []
        self.complaints: list[str] = []
        self.set_task_factory(self._made)
        self.set_exception_handler(self._complain)
        SimTask.serial = 0

    # What asyncio asks of a loop ----------------------------------------------------------------------------------------

    def time(self) -> float:
        """Return the virtual time."""
        return self._now

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        """Run something next."""
        handle = asyncio.Handle(callback, args, self, context)
        if not self.over:
            self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run something after some seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        """Run something at a moment."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._serial += 1
        if not self.over:
            heappush(self._heap, (when, self._serial, timer))
        return timer

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        """Run something next: there are no other threads."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, function: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run work inline, when the time a thread would take is over."""
        future = self.create_future()
        self.call_later(self._thread_delay(), self._work, future, function, args)
        return future

    @staticmethod
    def _work(future: asyncio.Future[Any], function: Any, args: Any) -> None:
        try:
            result = function(*args)
        except Exception as error:  # noqa: BLE001  (the waiter's to see)
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There are no threads."""

    def _run_once(self) -> None:
        ready = self._ready
        if not ready:
            self._advance()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            context = handle._context
            host = context.get(HOST)
            if host is not None:
                if host.dead:
                    continue
                if host.stalled is not None:
                    host.stalled.append(handle)
                    continue
            self.steps += 1
            try:
                context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001
                self.complaints.append(f"a callback raised {error!r}")
        self._at_once += 1
        if self._at_once > MOST_STEPS_AT_ONCE or self.steps > MOST_STEPS:
            raise Stuck("something runs in circles")

    def _advance(self) -> None:
        heap = self._heap
        while heap:
            when, _, timer = heappop(heap)
            if timer._cancelled:
                continue
            if when > self._now:
                self._now = when
                self._at_once = 0
            self._ready.append(timer)
            while heap and heap[0][0] <= self._now:
                timer = heappop(heap)[2]
                if not timer._cancelled:
                    self._ready.append(timer)
            return
        raise Stuck("everything waits, and nothing will happen any more")

    def _process_events(self, event_list: Any) -> None:
        """There are no files."""

    def _write_to_self(self) -> None:
        """There is no selector to wake."""

    def _made(self, loop: Any, work: Any, **options: Any) -> SimTask:
        task = SimTask(work, loop=self, **options)
        self.tasks.append(task)
        return task

    def _complain(self, _loop: Any, context: dict[str, Any]) -> None:
        if not self.over:
            self.complaints.append(f"{context['message']}: {context.get('exception')!r}")

    # Ours -----------------------------------------------------------------------------------------------------------

    def resume(self, host: Host) -> None:
        """Let a paused process go on with all that has become due meanwhile."""
        stalled, host.stalled = host.stalled, None
        if stalled:
            self._ready.extend(stalled)

    def run(self, work: Any) -> Any:
        """Run a coroutine to its end, then drop all that is left without running it."""
        try:
            return self.run_until_complete(work)
        finally:
            self._drop()

    def _drop(self) -> None:
        self.over = True
        self._ready.clear()
        self._heap.clear()
        asyncio.events._set_running_loop(self)
        try:
            for task in self.tasks:
                if not task.done():
                    task._log_destroy_pending = False
                    with contextlib.suppress(BaseException):
                        task.get_coro().close()  # type: ignore[union-attr]
        finally:
            asyncio.events._set_running_loop(None)
        self.tasks.clear()
        self._ready.clear()
        self._asyncgens.clear()
        self.close()
