"""Deadlines of commands in flight, by a clock that stands still while the event loop is held up. Must never await.

Hundreds of agents that start at once keep the loop busy for longer than an attempt may take. Their replies have arrived
by then and only wait to be read: by the wall clock all of them would fail, with a store in perfect health. So between two
looks no more than 15 ms count, however long the loop was held up: it gets ten looks at least before 150 ms are over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

T = TypeVar("T")

_STEP: Final = 0.005
"""How often it looks while something is in flight, in seconds."""
_MOST: Final = 0.015
"""How much time counts at most from one look to the next."""


class _Flight:
    """A task that waits for replies, and until when."""

    __slots__ = ("_cancelling", "deadline", "overdue", "task")

    def __init__(self, task: asyncio.Task[object], deadline: float) -> None:
        self.task = task
        self.deadline = deadline
        self.overdue = False
        self._cancelling = task.cancelling()

    def end(self) -> None:
        if not self.overdue:
            self.overdue = True
            self.task.cancel()

    def taken_back(self) -> bool:
        """Take our cancellation back; return whether there is no other, which must go on."""
        return self.overdue and self.task.uncancel() <= self._cancelling


class Watch:
    """Ends what is in flight for too long; one timer for all, none while nothing is."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = 0.0
        self._seen = 0.0
        self._flights: set[_Flight] = set()
        self._timer: asyncio.TimerHandle | None = None

    def deadline(self, timeout: float) -> float:
        """Return the moment `timeout` seconds from now, by our clock."""
        passed = min(self._loop.time() - self._seen, _MOST) if self._timer else 0.0
        return self._clock + passed + timeout

    def passed(self, deadline: float) -> bool:
        """Return whether that moment has come, as of the last look."""
        return deadline <= self._clock

    async def within(self, deadline: float, work: Awaitable[T]) -> T:
        """Wait for work in this very task.

        Raises:
            TimeoutError: it took too long and was cancelled.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (nobody awaits outside a task)
        flight = _Flight(task, deadline)
        self._flights.add(flight)
        if self._timer is None:
            self._seen = self._loop.time()
            self._timer = self._loop.call_later(_STEP, self._look)
        try:
            return await work
        except BaseException:
            if flight.taken_back():
                raise TimeoutError from None
            raise
        finally:
            self._flights.discard(flight)

    def _look(self) -> None:
        now = self._loop.time()
        self._clock += min(now - self._seen, _MOST)
        self._seen = now
        for flight in self._flights:
            if self.passed(flight.deadline):
                flight.end()
        self._timer = self._loop.call_later(_STEP, self._look) if self._flights else None
