"""`Flusher`: writes the changes that wait, when the store is back and when the manager is closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from session_reuse._session.clock import Clock
from session_reuse._session.guarded_store import GuardedStore
from session_reuse._session.replica import Replica, Replicas
from session_reuse._session.tasks import Spawn

_FLUSH_RATE: Final = 20.0
"""How many waiting saves are written per second once the store is back."""
_SHORTEST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0


class Flusher:
    """Empties the outboxes of one manager.

    Args:
        flush: writes what waits of one session within so many seconds. It returns whether nothing waits any more.
        replicas: what waits.
        store: the way to the store.
        clock: time and chance.
        spawn: runs work in a task that lives until it is done or the manager is closed.
    """

    def __init__(
        self, flush: Callable[[str, float], Awaitable[bool]], replicas: Replicas, store: GuardedStore, clock: Clock, spawn: Spawn
    ) -> None:  # fmt: skip
        self._flush = flush
        self._replicas = replicas
        self._store = store
        self._clock = clock
        self._spawn = spawn
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Check again which changes wait."""
        self._changed.set()

    def wake(self, budget: float) -> None:
        """Start writing what waits, `budget` seconds for each session, as soon as the breakers let a request pass."""
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = self._spawn(self._run(budget), "flusher")

    async def _run(self, budget: float) -> None:
        pause = _SHORTEST_PAUSE
        while self._replicas.pending:
            await self._until_one_is_allowed()
            for replica in self._replicas.waiting():
                if self._closed_for(replica) > 0:  # its server is away; others may be back
                    continue
                await asyncio.sleep(pause * self._clock.chance.uniform(0.5, 1.0))
                done = await self._flush(replica.fingerprint, budget)
                pause = 1 / _FLUSH_RATE if done else min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, pause * 2))

    def _closed_for(self, replica: Replica) -> float:
        return self._store.guard.at(self._store.server_of(replica.fingerprint)).write.retry_in

    async def _until_one_is_allowed(self) -> None:
        while (soonest := min(map(self._closed_for, self._replicas.waiting()), default=0.0)) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(soonest, 3600.0)):
                    await self._changed.wait()

    async def finish(self, budget: float) -> None:
        """Write all changes that wait or are on their way, within `budget` seconds."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        servers = {self._store.server_of(replica.fingerprint) for replica in self._replicas.waiting()}
        for server in servers:  # this is the last chance, and nobody else waits behind it
            self._store.guard.at(server).write.reset()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(budget):
                while self._replicas.are_writing:
                    self._changed.clear()
                    await self._changed.wait()
                await asyncio.gather(*(self._empty(server, budget) for server in servers))

    async def _empty(self, server: str, budget: float) -> None:
        """Write what waits for one server, until nothing does."""
        while True:
            mine = (one for one in self._replicas.waiting() if self._store.server_of(one.fingerprint) == server)
            first = next(mine, None)
            if first is None:
                return
            if not await self._flush(first.fingerprint, budget):
                await asyncio.sleep(max(_SHORTEST_PAUSE, min(self._closed_for(first), budget / 4)))
