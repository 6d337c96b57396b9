"""Saves that wait for the store, and the flusher that brings them through. Must never write more than its rate."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from typing import Final, NamedTuple

from session_reuse._telemetry import Event, log
from session_reuse.errors import InvalidStateError
from session_reuse.lifecycle.request import Layer, SaveRequest, bounded, loaded, rebased
from session_reuse.lifecycle.save import save
from session_reuse.lifecycle.services import Services
from session_reuse.outcome import SaveOutcome
from session_reuse.resilience.failure import Failure
from session_reuse.state import document
from session_reuse.state.baseline import Baseline, Expectation
from session_reuse.state.merge import merge_documents
from session_reuse.transfer import new_save_id

_SHORTEST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_LONGEST_WAIT: Final = 3600.0


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
        waiting = joined(earlier, request)
        if waiting is earlier:
            return SaveOutcome.SKIPPED
    dropped = services.pending.put(waiting)
    services.telemetry.pending(len(services.pending))
    for lost in dropped:
        services.telemetry.lost(lost.fingerprint, "pending_max or pending_max_bytes is reached")
    if waiting in dropped:
        return SaveOutcome.LOST
    log.debug(Event.SAVE_PENDING, fingerprint=request.fingerprint, waiting=len(services.pending))
    services.on_pending()
    return SaveOutcome.PENDING


def joined(earlier: SaveRequest, later: SaveRequest) -> SaveRequest:
    """Return one save with the changes of both: two agents left while the store was away.

    Who never saw the store gives way to who did, and who entered before an invalidation to who entered after it: then
    the other save comes back as it is. Of two that saw different versions, the one that saw the older version is first
    brought up to the newer one. Each change stays as old as the save it was made in, and a later change wins: else a save
    that was built on an old one that waited would take back what was changed since.
    """
    one, two = _knowledge(earlier), _knowledge(later)
    if one[:2] != two[:2]:
        return earlier if one > two else later
    ground = (earlier if one > two else later).baseline
    top, layers = loaded(ground.view, ground.dialect), []
    for change in sorted([*_changes(earlier, ground), *_changes(later, ground)], key=attrgetter("saved_at")):
        top = merge_documents(change.before, change.after, top)
        layers.append(Layer(*document.dump(top), change.saved_at))
    *layers, last = layers
    return replace(
        later,
        document=last.document,
        dialect=last.dialect,
        saved_at=last.saved_at,
        baseline=ground,
        layers=bounded(tuple(layers)),
        save_id=new_save_id(),
        fresh=earlier.fresh or later.fresh,
        anew=True,
        score_change=earlier.score_change + later.score_change,
        merged=True,
    )


class _Change(NamedTuple):
    saved_at: float
    before: document.Document
    after: document.Document


def _changes(request: SaveRequest, ground: Baseline) -> Iterator[_Change]:
    """Yield what each layer of a save changes on this ground."""
    before = loaded(ground.view, ground.dialect)
    for saved_at, after in rebased(request, before, ground.saved_at):
        yield _Change(saved_at, before, after)
        before = after


def _knowledge(request: SaveRequest) -> tuple[bool, float, int, int]:
    """Return how much a save knows of the store, to be compared: seen at all, since when valid, which version."""
    baseline = request.baseline
    header = baseline.header
    if header is None or baseline.expectation is not Expectation.REVISION:
        return baseline.expectation is not Expectation.UNKNOWN, 0, 0, 0
    return True, baseline.epoch, header.created_at, header.version


async def flush_one(services: Services, request: SaveRequest, budget: float) -> bool:
    """Try to bring one waiting save through; return whether it waits no more."""
    try:
        saved = await save(services, request, budget)
    except Failure as failure:
        services.note_failure("save", failure, request.fingerprint)
        return False
    except InvalidStateError as error:
        if services.pending.remove(request.fingerprint, request) is not None:
            services.telemetry.pending(len(services.pending))
            services.telemetry.lost(request.fingerprint, str(error))
        return True
    if services.pending.remove(request.fingerprint, request) is not None:
        services.telemetry.pending(len(services.pending))
        services.telemetry.flushed(request.fingerprint, saved.outcome)
    return True


class Flusher:
    """Brings waiting saves through in the background, paced, as soon as the write breaker lets one try."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.manager: object = None
        """Referenced, so that a manager without any other reference lives while its saves wait."""
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Start, unless it is at work; then look at the breaker again."""
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = self._services.spawn(self._run(), "flusher")

    async def _run(self) -> None:
        services, pause = self._services, _SHORTEST_PAUSE
        while services.pending:
            await self._until_one_is_allowed()
            for waiting in services.pending:
                if self._closed_for(waiting) > 0:  # its server is away; others may be back
                    continue
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                if services.pending.get(waiting.fingerprint) is not waiting:
                    continue
                if await flush_one(services, waiting, services.config.save_timeout):
                    pause = 1 / services.config.flush_rate
                else:
                    pause = min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, pause * 2))
        if services.spooler is not None:
            services.spooler.replay()

    def _closed_for(self, waiting: SaveRequest) -> float:
        services = self._services
        return services.guard.at(services.server_of(waiting.fingerprint)).write.retry_in

    async def _until_one_is_allowed(self) -> None:
        while (soonest := min(map(self._closed_for, self._services.pending), default=0.0)) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(soonest, _LONGEST_WAIT)):
                    await self._changed.wait()

    async def finish(self, budget: float) -> list[SaveRequest]:
        """Bring through what still waits, within `budget` seconds, and return what could not be.

        The breaker is closed first: this is the last chance, and nobody else waits behind it.
        """
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        services = self._services
        for waiting in services.pending:
            services.guard.at(services.server_of(waiting.fingerprint)).write.reset()
        servers = {services.server_of(waiting.fingerprint) for waiting in services.pending}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(budget):
                await asyncio.gather(*(self._empty(server, budget) for server in servers))
        return list(services.pending)

    async def _empty(self, server: str, budget: float) -> None:
        services = self._services
        while first := next((one for one in services.pending if services.server_of(one.fingerprint) == server), None):
            if not await flush_one(services, first, budget):
                await asyncio.sleep(max(_SHORTEST_PAUSE, min(self._closed_for(first), budget / 4)))
