"""Who does what when: the agents' cycles, and the kill in the middle. Must never print."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Final, Protocol

from session_reuse.api import reusable_session
from session_reuse.cli.demo.agents import Agent, Phase
from session_reuse.cli.demo.plan import Plan, fingerprint_of
from session_reuse.cli.demo.private_redis import PrivateRedis
from session_reuse.cli.demo.record import Run, Start
from session_reuse.manager import SessionManager
from session_reuse.outcome import SaveOutcome

_STAGGER: Final = 0.15
_KILL_AFTER: Final = 0.45
"""Share of the starts that are over when Redis is killed."""
_BEST_MOMENT: Final = 3.0
"""Seconds to wait for a moment in which one agent works and another is about to start: both sides of an outage show."""
_POLL: Final = 0.005


class Watcher(Protocol):
    """Is told what happens, as it happens."""

    def moved(self, start: Start, phase: Phase) -> None:
        """An agent does something else now."""

    def ended(self, start: Start) -> None:
        """An agent has ended."""

    def redis_killed(self, pid: int) -> None:
        """Redis is gone."""

    def redis_back(self, pid: int, seconds: float) -> None:
        """Redis answers again, after so long."""


class Choreography:
    """One run of the demo.

    Args:
        plan: what to do.
        manager: where the sessions are kept.
        agent: does the agents' work.
        redis: the server to kill; None leaves it alone.
        watcher: is told.
    """

    def __init__(
        self, plan: Plan, manager: SessionManager, agent: Agent, redis: PrivateRedis | None, watcher: Watcher
    ) -> None:
        self._plan = plan
        self._manager = manager
        self._agent = agent
        self._redis = redis
        self._watcher = watcher
        self._run = Run(agent.name)
        self._phases = [Phase.WAITING] * plan.agents
        self._kept: set[int] = set()
        self._began = monotonic()

    async def run(self, found: int) -> Run:
        """Run all agents to their end.

        Args:
            found: sessions that an earlier run has left.
        """
        self._run.found = found
        self._began = monotonic()
        async with asyncio.TaskGroup() as group:
            agents = [group.create_task(self._agent_life(number)) for number in range(self._plan.agents)]
            if self._redis is not None and self._plan.outage > 0:
                outage = group.create_task(self._outage(self._redis))
                await asyncio.gather(*agents)
                if self._run.killed_at is None:
                    outage.cancel()
        await self._settle()
        return self._run

    def _now(self) -> float:
        return monotonic() - self._began

    async def _agent_life(self, number: int) -> None:
        pauses = random.Random(number)
        await asyncio.sleep(number * _STAGGER)
        for cycle in range(self._plan.cycles):
            start = Start(number, cycle, self._now())
            await self._cycle(start)
            start.ended = self._now()
            self._run.starts.append(start)
            self._watcher.ended(start)
            self._move(start, Phase.WAITING)
            if cycle + 1 < self._plan.cycles:
                await asyncio.sleep(pauses.uniform(0.1, 0.4))
        self._move(start, Phase.DONE)

    async def _cycle(self, start: Start) -> None:
        account = self._plan.accounts[start.agent]
        self._move(start, Phase.ENTERING)
        session = None
        try:
            async with reusable_session(fingerprint_of(account), f"agent-{account}", manager=self._manager) as session:
                start.entered, start.outcome = self._now(), session.outcome
                await self._agent.work(session, account, partial(self._move, start))
        except Exception as error:  # noqa: BLE001  (an agent that fails is part of the picture)
            start.error = type(error).__name__
        if session is not None:
            start.save = session.save_outcome
        if start.save in {SaveOutcome.PENDING, SaveOutcome.SPOOLED}:
            self._kept.add(start.agent)

    def _move(self, start: Start, phase: Phase) -> None:
        if phase is Phase.LOGGING_IN:
            start.logged_in = True
        if phase is Phase.WORKING:
            start.ready = self._now()
        self._phases[start.agent] = phase
        self._watcher.moved(start, phase)

    # The outage ------------------------------------------------------------------------------------------------------

    async def _outage(self, redis: PrivateRedis) -> None:
        await self._until(lambda: len(self._run.starts) >= self._plan.starts * _KILL_AFTER)
        latest = self._now() + _BEST_MOMENT
        await self._until(lambda: self._is_best_moment() or self._now() > latest)

        def killed(pid: int) -> None:
            self._run.killed_at = self._now()
            self._watcher.redis_killed(pid)

        pid = await redis.outage(self._plan.outage, killed)
        self._run.back_at = self._now()
        self._watcher.redis_back(pid, self._run.back_at - (self._run.killed_at or 0.0))

    def _is_best_moment(self) -> bool:
        return Phase.WAITING in self._phases and (Phase.WORKING in self._phases or self._plan.agents == 1)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(_POLL)

    async def _settle(self) -> None:
        """Wait for the saves that were kept while Redis was away."""
        give_up = monotonic() + self._manager.config.close_timeout
        while self._manager.stats().pending and monotonic() < give_up:
            await asyncio.sleep(_POLL)
        stats = self._manager.stats()
        self._run.kept = len(self._kept)
        self._run.recovered, self._run.lost = stats.flushed, stats.lost + stats.pending
