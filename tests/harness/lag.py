"""How late the machine wakes its tasks, so that a stall is not taken for a delay of ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from time import monotonic

_PACE = 0.005
_REMEMBERED = 20_000


class Lag:
    """The event loop's stalls, measured all the time."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    def since(self, began: float) -> float:
        """Return the stalls since a moment, in seconds, added up as far as they were noticeable."""
        return sum(late for at, late in self._seen if at >= began and late > _PACE)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Measure while the context is open."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        while True:
            due = monotonic() + _PACE
            await asyncio.sleep(_PACE)
            self._seen.append((monotonic(), monotonic() - due))
