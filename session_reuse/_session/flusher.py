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

_AT_ONCE: Final = 16
"""Sessions of one server that are written side by side. A save that waits for replicas takes 0.1 s, or longer."""
_PAUSE: Final = 0.05
"""Seconds between two of them: 20 a second leave room for the agents, who all come back at the same time."""
_LONGEST_PAUSE: Final = 2.0


class Flusher:
    """Empties the outboxes of one manager. Each server has its own pace.

    Args:
        flush: writes what waits of one session within so many seconds. It returns whether nothing waits any more.
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
        self._rounds: dict[str, asyncio.Task[None]] = {}
        self._pauses: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._finishing = False

    def changed(self) -> None:
        """Check again which changes wait."""
        self._changed.set()

    def wake(self, budget: float) -> None:
        """Start writing what waits, `budget` seconds for each session, as soon as the breakers let a request pass."""
        self._changed.set()
        if not self._finishing and (self._task is None or self._task.done()):
            self._task = self._spawn(self._run(budget), "flusher")

    async def _run(self, budget: float) -> None:
        """Start a round for each server that lets a request pass, again and again while changes wait."""
        while self._replicas.pending:
            self._changed.clear()
            soonest = 3600.0
            for server, replicas in self._by_server().items():
                if server in self._rounds:
                    continue
                closed_for = self._closed_for(server)
                if closed_for > 0:
                    soonest = min(soonest, closed_for)
                else:
                    self._rounds[server] = self._spawn(self._round(server, replicas, budget), "flusher")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(soonest):
                    await self._changed.wait()
            await asyncio.sleep(_PAUSE)  # in an outage each save is a change, and 5,000 sessions may wait already

    async def _round(self, server: str, replicas: list[Replica], budget: float) -> None:
        """Write what waits for one server, each session once, until its breaker opens."""
        slots = asyncio.Semaphore(_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as writes:
                for replica in replicas:
                    pause = self._pauses.get(server, _PAUSE)
                    await asyncio.sleep(pause * self._clock.chance.uniform(0.5, 1.0))
                    await slots.acquire()
                    if self._closed_for(server) > 0:
                        return
                    writes.create_task(self._write(server, replica, budget, slots))
        finally:
            del self._rounds[server]
            self._changed.set()

    async def _write(self, server: str, replica: Replica, budget: float, slots: asyncio.Semaphore) -> None:
        if replica.outbox and not replica.writing:
            done = await self._flush(replica.fingerprint, budget)
            self._pauses[server] = _PAUSE if done else min(_LONGEST_PAUSE, 2 * self._pauses.get(server, _PAUSE))
        slots.release()

    def _by_server(self) -> dict[str, list[Replica]]:
        found: dict[str, list[Replica]] = {}
        for replica in self._replicas.waiting():
            found.setdefault(self._store.server_of(replica.fingerprint), []).append(replica)
        return found

    def _closed_for(self, server: str) -> float:
        return max(breaker.retry_in for breaker in self._store.at(server))  # what is stored is read first

    async def finish(self, budget: float) -> None:
        """Write all changes that wait or are on their way, within `budget` seconds."""
        self._finishing = True
        tasks = [task for task in (self._task, *self._rounds.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        servers = self._by_server()
        for server in servers:  # this is the last chance, and nobody else waits behind it
            for breaker in self._store.at(server):
                breaker.reset()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(budget):
                while self._replicas.are_writing:
                    self._changed.clear()
                    await self._changed.wait()
                await asyncio.gather(*(self._empty(server, budget) for server in servers))

    async def _empty(self, server: str, budget: float) -> None:
        """Write what waits for one server, until nothing does."""
        while mine := self._by_server().get(server):
            for at in range(0, len(mine), _AT_ONCE):
                some = mine[at : at + _AT_ONCE]
                done = await asyncio.gather(*(self._flush(replica.fingerprint, budget) for replica in some))
                if not all(done):
                    await asyncio.sleep(max(_PAUSE, min(self._closed_for(server), budget / 4)))
