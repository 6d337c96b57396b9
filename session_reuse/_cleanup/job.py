"""The clean-up job: reconcile at each interval, and sooner after a hint, until cancelled.

It runs inside a manager or as a separate process. Several jobs at once share the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from session_reuse._cancellation import SwallowedCancellation
from session_reuse._cleanup.notifications import Notifications
from session_reuse._cleanup.reconcile import CleanupReport, Reconciler
from session_reuse._resilience.failure import AttemptFailed
from session_reuse._store.redis.store import RedisStore
from session_reuse._telemetry import Operation, Telemetry
from session_reuse.config import Config
from session_reuse.errors import ConfigurationError

_FIRST_PAUSE: Final = 0.2
_HINT_PAUSE: Final = 0.05
"""Seconds in which hints are collected before they are checked together."""
_MAX_HINTS: Final = 10_000
"""The sessions of further hints are found at their deadlines."""
_REPAIR_INTERVAL: Final = 6 * 3600.0
_PAGE_PAUSE: Final = 0.02
"""Rest between two pages of about 500 sessions."""
_TIMEOUT: Final = 2.0


class CleanupJob:
    """One worker that removes what expired sessions leave behind.

    Raises:
        ConfigurationError: the store is not a Redis.
    """

    def __init__(self, store: object, config: Config, telemetry: Telemetry) -> None:
        if not isinstance(store, RedisStore):
            raise ConfigurationError(f"the clean-up needs a Redis store, not {type(store).__name__}")
        self._store = store
        self._config = config
        self._telemetry = telemetry
        self._reconciler = Reconciler(store.deadlines, config, telemetry)
        self._due = asyncio.Event()
        self._hints: set[str] = set()
        self._hinted = asyncio.Event()

    async def run(self) -> None:
        """Clean up until cancelled."""
        notifications = Notifications(
            store=self._store,
            configure=self._config.configure_notifications,
            on_hint=self._add_hint,
            on_gap=self._reconcile_soon,
            on_trouble=self._failed,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reconcile(), name="session_reuse:reconcile")
            group.create_task(self._check_hints(), name="session_reuse:hints")
            group.create_task(notifications.run(self._config.cleanup_interval), name="session_reuse:notifications")
            group.create_task(self._repair(), name="session_reuse:repair")

    async def run_once(self) -> CleanupReport:
        """Reconcile once.

        Raises:
            AttemptFailed: the store, or a part of it, does not answer. The rest is done.
        """
        return await self._reconciler.run()

    async def repair(self) -> int:
        """Index all sessions that the index has lost, by a slow walk over all of them. Return how many there were.

        A fail-over may lose an entry and keep its session. Such a session still expires, but `on_expired` would not be
        called. An entry without a session needs no repair: the reconcile finds it when it is due.

        Raises:
            AttemptFailed: the store, or a part of it, does not answer.
        """
        found = 0
        async for page in self._store.fingerprints(timeout=_TIMEOUT):
            if page:
                found += await self._enter_missing(page)
                await asyncio.sleep(_PAGE_PAUSE)  # the walk may take minutes, agents may not wait for it
        return found

    async def _enter_missing(self, page: list[str]) -> int:
        deadlines = self._store.deadlines
        entries = await deadlines.entries(page, timeout=_TIMEOUT)
        missing = [name for name, entry in entries.items() if entry is None]
        lefts = await deadlines.times_to_live(missing, timeout=_TIMEOUT) if missing else []
        alive = [
            (name, left / 1000 if left >= 0 else self._config.ttl)  # one without an end is checked again after the ttl
            for name, left in zip(missing, lefts, strict=True)
            if left is not None and left >= -1
        ]
        return await deadlines.add(alive, timeout=_TIMEOUT) if alive else 0

    async def _reconcile(self) -> None:
        while True:
            self._due.clear()
            await self._until_it_works("reconcile", self.run_once)
            with contextlib.suppress(TimeoutError):
                # Spread, so that many workers do not ask at the same moment.
                async with asyncio.timeout(self._config.cleanup_interval * random.uniform(0.8, 1.2)):
                    await self._due.wait()

    async def _check_hints(self) -> None:
        while True:
            await self._hinted.wait()
            await asyncio.sleep(_HINT_PAUSE)
            hints, self._hints = self._hints, set()
            self._hinted.clear()
            # Once: the reconcile finds these sessions at their deadlines.
            await self._works("hints", partial(self._reconciler.check, hints))

    async def _repair(self) -> None:
        # At once: entries that were long overdue were trimmed while no job ran, those of living sessions too.
        while True:
            await self._until_it_works("repair", self.repair)
            await asyncio.sleep(_REPAIR_INTERVAL * random.uniform(0.5, 1.0))

    async def _until_it_works(self, step: str, work: Callable[[], Awaitable[object]]) -> None:
        pause = _FIRST_PAUSE
        while not await self._works(step, work):
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, self._config.cleanup_interval)

    async def _works(self, step: str, work: Callable[[], Awaitable[object]]) -> bool:
        """Do one pass, and record whether it worked."""
        cancellation = SwallowedCancellation()
        try:
            await work()
        except Exception as error:  # noqa: BLE001  (the job has to outlive any error of one pass)
            cancellation.raise_again()
            self._failed(step, error)
            return False
        cancellation.raise_again()
        self._telemetry.cleanup_worked(step)
        return True

    def _failed(self, step: str, error: Exception) -> None:
        if isinstance(error, AttemptFailed):
            self._telemetry.degraded(Operation.CLEANUP, error.error, code=error.code)
        self._telemetry.cleanup_failed(step, error.code if isinstance(error, AttemptFailed) else type(error).__name__)

    def _add_hint(self, fingerprint: str) -> None:
        if len(self._hints) < _MAX_HINTS:
            self._hints.add(fingerprint)
            self._hinted.set()

    def _reconcile_soon(self) -> None:
        self._telemetry.notifications_gap()
        self._due.set()
