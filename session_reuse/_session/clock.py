"""Time and chance of one manager, in one place, so that a simulator can replace them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from session_reuse._state.record import record


@record()
class Moment:
    """One moment by the clocks of this process, and of the server when it was asked.

    Attributes:
        loop: event loop time.
        wall: unix seconds.
        server: µs; None when the server was not asked.
    """

    loop: float
    wall: float
    server: int | None = None

    def by_server(self, loop_time: float) -> int | None:
        """Return a past moment of this process as server time in µs."""
        return None if self.server is None else self.server - round((self.loop - loop_time) * 1_000_000)


@dataclass(slots=True)
class Clock:
    """Time and chance of one manager.

    Attributes:
        wall: returns unix seconds.
        loop: returns the seconds that event loops count by.
        chance: for ids, pauses and jitter.
        answer: loop time and server time of the last answer; None before the first.
    """

    wall: Callable[[], float]
    loop: Callable[[], float]
    chance: random.Random
    answer: tuple[float, int] | None = None

    def now(self, server: int | None = None) -> Moment:
        """Return this moment, with the server's time if its answer has just arrived.

        The answer is older than this moment, so what happened here before looks rather too old than too young to the
        server. What it refuses for that is safe.
        """
        now = self.loop()
        if server is not None:
            self.answer = now, server
        return Moment(now, self.wall(), server)

    def estimate(self) -> Moment:
        """Return this moment, with the server's time by its last answer: while it is away, nothing is refused for good."""
        now = self.loop()
        server = None if self.answer is None else self.answer[1] + round((now - self.answer[0]) * 1_000_000)
        return Moment(now, self.wall(), server)

    def at(self, loop_time: float) -> Moment:
        """Return a past moment of this process."""
        return Moment(loop_time, self.wall() - (self.loop() - loop_time))
