"""The clean-up job: reconcile now and then, sooner on a hint, for ever. Must never end because of trouble.

Runs inside a manager or as a process of its own; several at once share the work.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

from session_reuse._cancellation import SwallowedCancellation
from session_reuse._telemetry import Event, log
from session_reuse.cleanup.notifications import Listener
from session_reuse.cleanup.reconcile import CleanupReport, Reconciler
from session_reuse.cleanup.repair import repair
from session_reuse.errors import ConfigurationError
from session_reuse.lifecycle.services import Services
from session_reuse.resilience.failure import Failure
from session_reuse.store.redis_store import RedisStore

_FIRST_PAUSE: Final = 0.2
_GATHERING: Final = 0.05
"""How long hints are gathered before they are followed together."""
_MOST_HINTS: Final = 10_000
"""Further ones are dropped: what they are about is found at its deadline."""
REPAIR_INTERVAL: Final = 6 * 3600.0


async def cleanup(services: Services) -> None:
    """Remove what expired sessions leave behind, until cancelled.

    Raises:
        ConfigurationError: the store is not a Redis.
    """
    store = _redis(services)
    job = _Job(services, store)
    async with asyncio.TaskGroup() as group:
        group.create_task(job.reconcile(), name="session_reuse:reconcile")
        group.create_task(job.follow_hints(), name="session_reuse:hints")
        group.create_task(job.listen(), name="session_reuse:notifications")
        group.create_task(job.repair(), name="session_reuse:repair")


async def cleanup_once(services: Services) -> CleanupReport:
    """Reconcile once, and say what was done.

    Raises:
        ConfigurationError: the store is not a Redis.
        Failure: the store, or a part of it, could not be asked.
    """
    return await Reconciler(services, _redis(services).deadlines).run()


async def repair_index(services: Services) -> int:
    """Find all sessions that the index has lost, at any number of sessions stored; return how many there were.

    Raises:
        ConfigurationError: the store is not a Redis.
        Failure: the store, or a part of it, could not be asked.
    """
    return await repair(_redis(services), services.config.ttl)


def _redis(services: Services) -> RedisStore:
    if not isinstance(services.store, RedisStore):
        raise ConfigurationError(f"the clean-up needs a Redis store, not {type(services.store).__name__}")
    return services.store


class _Job:
    """What the parts of one running job share."""

    def __init__(self, services: Services, store: RedisStore) -> None:
        self._services = services
        self._store = store
        self._reconciler = Reconciler(services, store.deadlines)
        self._interval = services.config.cleanup_interval
        self._wake = asyncio.Event()
        self._hints: set[str] = set()
        self._hinted = asyncio.Event()

    async def reconcile(self) -> None:
        """Reconcile at once, then at each interval, and when events were missed."""
        while True:
            self._wake.clear()
            await self._patiently("reconcile", self._reconciler.run)
            await _first_of(self._wake, self._interval * random.uniform(0.8, 1.2))

    async def follow_hints(self) -> None:
        """Look at sessions that may be gone."""
        while True:
            await self._hinted.wait()
            await asyncio.sleep(_GATHERING)
            hints, self._hints = self._hints, set()
            self._hinted.clear()
            try:
                await self._reconciler.check(hints)
            except Failure as failure:
                log.info(Event.CLEANUP_FAILED, step="hints", error=failure.code)

    async def listen(self) -> None:
        """Listen for events, and again after each trouble, which is a time when events may have been missed."""
        listener = Listener(
            self._store,
            configure=self._services.config.configure_notifications,
            on_hint=self._hint,
            on_gap=self._missed_events,
        )
        pause, cancellation = _FIRST_PAUSE, SwallowedCancellation()
        while True:
            began = monotonic()
            try:
                await listener.listen()
            except Exception as error:  # noqa: BLE001  (whatever it is, the job goes on)
                cancellation.raise_again()
                log.info(Event.CLEANUP_FAILED, step="notifications", error=type(error).__name__)
            pause = _FIRST_PAUSE if monotonic() - began > self._interval else min(2 * pause, self._interval)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            self._missed_events()

    async def repair(self) -> None:
        """Look now and then for sessions that the index has lost."""
        while True:
            await asyncio.sleep(REPAIR_INTERVAL * random.uniform(0.5, 1.0))
            await self._patiently("repair", lambda: repair(self._store, self._services.config.ttl))

    async def _patiently(self, step: str, work: Callable[[], Awaitable[object]]) -> None:
        """Do something, again and again until it works."""
        pause, cancellation = _FIRST_PAUSE, SwallowedCancellation()
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001  (whatever it is, the job goes on)
                cancellation.raise_again()
                name = error.code if isinstance(error, Failure) else type(error).__name__
                if isinstance(error, Failure):
                    self._services.telemetry.degraded("cleanup", error.error, code=error.code)
                self._services.telemetry.cleanup_failed(step, name)
            else:
                self._services.telemetry.cleanup_worked(step)
                return
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, self._interval)

    def _hint(self, fingerprint: str) -> None:
        if len(self._hints) < _MOST_HINTS:
            self._hints.add(fingerprint)
            self._hinted.set()

    def _missed_events(self) -> None:
        self._services.telemetry.notifications_gap()
        self._wake.set()


async def _first_of(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
