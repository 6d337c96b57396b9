"""Time-outs of one event loop, by a clock that almost stands still while the loop itself is late.

Hundreds of agents that start at once keep the loop busy for longer than an attempt may take. By the wall clock all of
them would fail, with a store in perfect health: their replies have arrived and only wait to be read.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Final

_STEP: Final = 0.005
"""Seconds between two ticks while something is limited or watched."""
_MOST: Final = 0.01
"""Seconds that count at most from one tick to the next: a turn of the loop, however long, is one chance to read replies."""
_LATE: Final = 0.01
"""A tick that is so much too late ends nothing: what has arrived meanwhile is read first."""
_LONG_TURN: Final = 0.001
"""A turn of the loop that takes longer than this says that the loop is busy."""
_BUSY_SHARE: Final = 0.1
"""Share of the time that counts while the loop is busy: a loop that is always busy needs an end, too."""

Watcher = Callable[[float], bool]


class _Limit:
    """Cancels the task that entered it when it is overdue, and turns that into TimeoutError."""

    __slots__ = ("_cancelling", "_limits", "_overdue", "_task", "deadline")

    def __init__(self, limits: set[_Limit], deadline: float) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (an await is always inside a task)
        self.deadline = deadline
        self._limits = limits
        self._task = task
        self._cancelling = task.cancelling()
        self._overdue = False

    def end(self) -> None:
        if not self._overdue:
            self._overdue = True
            self._task.cancel()

    def __enter__(self) -> None:
        self._limits.add(self)

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._limits.discard(self)
        # A cancellation that is not ours goes on as one.
        if self._overdue and self._task.uncancel() <= self._cancelling and kind is not None:
            raise TimeoutError from None


class LoopTimeouts:
    """Limits and watchers, with one timer for all of them and none while there are none."""

    def __init__(self) -> None:
        self._limits: set[_Limit] = set()
        self._watchers: list[Watcher] = []
        self._seen = 0.0
        self._due = math.inf
        self._not_counted = 0.0
        self._turn = 0.0
        self._was_late = False

    def time(self) -> float:
        """Return the seconds that have passed, without those in which the loop was late."""
        now = monotonic()
        return (now if now < self._due else self._due) - self._not_counted  # noqa: FURB136  (`min` costs more)

    def until(self, deadline: float) -> _Limit:
        """Return a context that lasts until `deadline` by `time()`, for the current task.

        Raises:
            TimeoutError: on leaving it, when the deadline has passed and ended what was inside.
        """
        if self._due is math.inf:
            self._start()
        return _Limit(self._limits, deadline)

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` with the time at each tick until it returns False."""
        self._start()
        self._watchers.append(watcher)

    def _start(self) -> None:
        if self._due is math.inf:
            self._seen = monotonic()
            self._due = self._seen + _STEP
            asyncio.get_running_loop().call_later(_STEP, self._tick)

    def _tick(self) -> None:
        now = monotonic()
        passed = now - self._seen
        counted = passed * _BUSY_SHARE if self._turn > _LONG_TURN else passed
        self._not_counted += passed - min(counted, _MOST)
        # Not twice in a row: a loop that is late at every tick would end nothing.
        is_late = now - self._due > _LATE and not self._was_late
        self._was_late = is_late
        self._due = math.inf
        if not (self._limits or self._watchers):
            self._turn = 0.0
            return
        if not is_late:
            time = now - self._not_counted
            for limit in self._limits:
                if limit.deadline <= time:
                    limit.end()
            self._watchers = [watcher for watcher in self._watchers if watcher(time)]
        self._seen, self._due = now, now + _STEP
        loop = asyncio.get_running_loop()
        loop.call_later(_STEP, self._tick)
        loop.call_soon(self._end_turn, now)

    def _end_turn(self, began: float) -> None:
        self._turn = monotonic() - began
