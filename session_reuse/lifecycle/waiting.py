"""Saves that wait for the store, and the flusher that brings them through. Must never write more than its rate."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Final

from session_reuse.lifecycle.save import SaveRequest, save
from session_reuse.lifecycle.services import Services
from session_reuse.observe.logs import Event, log
from session_reuse.outcome import SaveOutcome
from session_reuse.resilience.failure import Failure
from session_reuse.state import document
from session_reuse.state.merge import merge_documents
from session_reuse.transfer import new_save_id

_SHORTEST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0


def keep_waiting(services: Services, request: SaveRequest, after: SaveRequest | None = None) -> SaveOutcome:
    """Keep a save until the store is back, joined with one of the same session that waits already.

    Args:
        services: the manager's.
        request: the save.
        after: the waiting save that its session was restored from; the request replaces it.

    Returns:
        PENDING, or LOST when there is no room.
    """
    earlier = services.pending.get(request.fingerprint)
    waiting = request
    if earlier is not None and earlier is not after:
        waiting = _joined(earlier, request)
    dropped = services.pending.put(waiting)
    services.metrics.pending(len(services.pending))
    for lost in dropped:
        services.counts.lost += 1
        services.metrics.lost(1)
        log.warning(Event.SAVE_LOST, fingerprint=lost.fingerprint, why="pending_max or pending_max_bytes is reached")
    if waiting in dropped:
        return SaveOutcome.LOST
    log.info(Event.SAVE_PENDING, fingerprint=request.fingerprint, waiting=len(services.pending))
    services.on_pending()
    return SaveOutcome.PENDING


def _joined(earlier: SaveRequest, later: SaveRequest) -> SaveRequest:
    """Return the later save with the earlier one's changes: two agents left while the store was away."""
    base = _loaded(earlier.baseline.view, earlier.baseline.dialect)
    merged = merge_documents(base, _loaded(later.document, later.dialect), _loaded(earlier.document, earlier.dialect))
    body, dialect = document.dump(merged)
    return replace(later, document=body, dialect=dialect, save_id=new_save_id(), merged=True)


def _loaded(data: bytes, dialect: str) -> document.Document:
    return document.load(data, dialect) if data else {"storage_state": {}, "data": {}}


async def flush_one(services: Services, request: SaveRequest, budget: float) -> bool:
    """Try to bring one waiting save through; return whether it waits no more."""
    try:
        saved = await save(services, request, budget)
    except Failure as failure:
        services.note_failure("save", failure, request.fingerprint)
        return False
    if services.pending.remove(request.fingerprint, request) is not None:
        services.metrics.pending(len(services.pending))
        services.metrics.flushed()
        services.counts.flushed += 1
        log.info(Event.FLUSHED, fingerprint=request.fingerprint, outcome=saved.outcome.value)
    return True


class Flusher:
    """Brings waiting saves through in the background, paced, as soon as the write breaker lets one try."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Start, unless it is at work."""
        if self._task is None or self._task.done():
            self._task = self._services.spawn(self._run(), "flusher")

    async def _run(self) -> None:
        services, pause = self._services, _SHORTEST_PAUSE
        while services.pending:
            await asyncio.sleep(max(services.guard.write.retry_in, pause * random.uniform(0.5, 1.0)))
            waiting = next(iter(services.pending), None)
            if waiting is None:
                return
            if await flush_one(services, waiting, services.config.save_timeout):
                pause = 1 / services.config.flush_rate
            else:
                pause = min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, pause * 2))

    async def finish(self, budget: float) -> list[SaveRequest]:
        """Bring through what still waits, within `budget` seconds, and return what could not be."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        services = self._services
        try:
            async with asyncio.timeout(budget):
                for waiting in services.pending:
                    await flush_one(services, waiting, budget)
        except TimeoutError:
            pass
        return list(services.pending)
