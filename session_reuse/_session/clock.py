"""Time and chance of one manager, in one place, so that a simulator can replace them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from session_reuse._state.record import record

_WITH_SUSPENSION: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""`CLOCK_MONOTONIC` stands still on Linux while a host is suspended. On macOS it goes on."""


def elapsed() -> float:
    """Return seconds since a fixed moment, those included for which the host was suspended.

    Event loops do not count them, and what waited meanwhile would look younger than what other hosts have saved.
    """
    return time.clock_gettime(_WITH_SUSPENSION)


@record()
class Moment:
    """One moment by the clocks of this process, and of the server when it was asked.

    Attributes:
        elapsed: seconds, as `elapsed()` counts them.
        wall: unix seconds.
        server: µs; None when the server was not asked.
    """

    elapsed: float
    wall: float
    server: int | None = None

    def by_server(self, elapsed: float) -> int | None:
        """Return a past moment of this process as server time in µs."""
        return None if self.server is None else self.server - round((self.elapsed - elapsed) * 1_000_000)


@dataclass(slots=True)
class Clock:
    """Time and chance of one manager.

    Attributes:
        wall: returns unix seconds.
        elapsed: returns seconds, as `elapsed()` does.
        chance: for ids, pauses and jitter.
        answer: when the last answer came, by `elapsed` and by the server; None before the first.
    """

    wall: Callable[[], float]
    elapsed: Callable[[], float]
    chance: random.Random
    answer: tuple[float, int] | None = None

    def now(self, server: int | None = None) -> Moment:
        """Return this moment, with the server's time if its answer has just arrived.

        The answer is older than this moment, so what happened here before looks rather too old than too young to the
        server. What it refuses for that is safe.
        """
        now = self.elapsed()
        if server is not None:
            self.answer = now, server
        return Moment(now, self.wall(), server)

    def estimate(self) -> Moment:
        """Return this moment, with the server's time by its last answer: while it is away, nothing is refused for good."""
        now = self.elapsed()
        server = None if self.answer is None else self.answer[1] + round((now - self.answer[0]) * 1_000_000)
        return Moment(now, self.wall(), server)

    def at(self, elapsed: float) -> Moment:
        """Return a past moment of this process."""
        return Moment(elapsed, self.wall() - (self.elapsed() - elapsed))
