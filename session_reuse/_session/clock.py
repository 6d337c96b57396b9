"""Time and chance of one manager, in one place, so that a simulator can replace them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from session_reuse._session.changes import Moment


@dataclass(slots=True)
class Clock:
    """Time and chance of one manager.

    Attributes:
        wall: returns unix seconds.
        chance: for ids, pauses and jitter.
    """

    wall: Callable[[], float]
    chance: random.Random

    @staticmethod
    def loop() -> float:
        """Return the time of the running event loop."""
        return asyncio.get_running_loop().time()

    def time(self) -> float:
        """Return unix seconds."""
        return self.wall()

    def now(self, server: int | None = None) -> Moment:
        """Return this moment, with the server's time if its answer has just arrived.

        The answer is older than this moment, so what happened here before looks rather too old than too young to the
        server. What it refuses for that is safe.
        """
        return Moment(self.loop(), self.wall(), server)
