"""The scenario: cycles of all agents, and the kill of Redis in the middle."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Final, Self

from examples.demo.agents import Agent, Phase
from examples.demo.plan import Plan
from examples.demo.private_redis import PrivateRedis
from examples.demo.record import Run, Start
from session_reuse import SessionManager, reusable_session
from session_reuse.outcome import Outcome

_STAGGER: Final = 0.4
_KILL_AFTER: Final = 0.45
"""Share of the starts that have ended when Redis is killed."""
_PATIENCE: Final = 5.0
"""Seconds that Redis stays dead at most until both a save and a start have met the outage."""
_WITH_SESSION: Final = frozenset({Phase.OPENING, Phase.LOGGING_IN, Phase.WORKING})
_IDLE: Final = frozenset({Phase.WAITING, Phase.DONE})
_POLL: Final = 0.005


class Observer:
    """Receives the events of a scenario, as a context manager. This base class ignores them."""

    def __enter__(self) -> Self:
        """Begin to observe."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""

    def moved(self, start: Start, phase: Phase) -> None:
        """Receive the new activity of an agent."""

    def ended(self, start: Start) -> None:
        """Receive the end of an agent start."""

    def redis_killed(self, pid: int) -> None:
        """Receive the kill of Redis."""

    def redis_back(self, pid: int, seconds: float) -> None:
        """Receive the return of Redis, with the seconds that it was dead."""


class Scenario:
    """One run of the demo.

    Args:
        plan: settings of the run.
        manager: keeps the sessions.
        agent: does the work of the agents.
        redis: the server to kill, or None for no outage.
        observer: receives the events.
    """

    def __init__(
        self, plan: Plan, manager: SessionManager, agent: Agent, redis: PrivateRedis | None, observer: Observer
    ) -> None:
        self._plan = plan
        self._manager = manager
        self._agent = agent
        self._redis = redis
        self._observer = observer
        self._run = Run(agent.name)
        self._phases = [Phase.WAITING] * plan.agents
        self._outcomes: set[Outcome] = set()
        self._may_start = asyncio.Event()
        self._may_start.set()
        self._began = monotonic()

    async def run(self, found: int) -> Run:
        """Run all agents to their end.

        Args:
            found: number of sessions of an earlier run.
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
            self._observer.ended(start)
            self._move(start, Phase.WAITING)
            if cycle + 1 < self._plan.cycles:
                await asyncio.sleep(pauses.uniform(0.1, 0.6))
                await self._may_start.wait()
        self._move(start, Phase.DONE)

    async def _cycle(self, start: Start) -> None:
        account = self._plan.accounts[start.agent]
        self._move(start, Phase.ENTERING)
        session = None
        try:
            async with reusable_session(
                self._agent.fingerprint(account), f"agent-{account}", manager=self._manager
            ) as session:
                start.entered, start.outcome = self._now(), session.outcome
                self._outcomes.add(session.outcome)
                await self._agent.work(session, account, partial(self._move, start))
        except Exception as error:  # noqa: BLE001  (a failed agent is a result of the run)
            start.error = type(error).__name__
        if session is not None:
            start.save = session.save_outcome

    def _move(self, start: Start, phase: Phase) -> None:
        if phase is Phase.LOGGING_IN:
            start.logged_in = True
        if phase is Phase.WORKING:
            start.ready = self._now()
        self._phases[start.agent] = phase
        self._observer.moved(start, phase)

    # The outage ------------------------------------------------------------------------------------------------------

    async def _outage(self, redis: PrivateRedis) -> None:
        await self._until(lambda: len(self._run.starts) >= self._plan.starts * _KILL_AFTER)
        self._may_start.clear()
        await self._until(self._is_good_moment)
        async with redis.dead() as pid:
            self._run.killed_at = killed_at = self._now()
            self._observer.redis_killed(pid)
            self._may_start.set()
            await asyncio.sleep(self._plan.outage)
            await self._until(self._has_shown_both, limit=_PATIENCE)
        self._run.back_at = self._now()
        self._observer.redis_back(redis.pid, self._run.back_at - killed_at)

    def _is_good_moment(self) -> bool:
        """Return whether one agent works and another is idle, or all are about to start."""
        idle = sum(phase in _IDLE for phase in self._phases)
        return idle == len(self._phases) or (idle > 0 and not _WITH_SESSION.isdisjoint(self._phases))

    def _has_shown_both(self) -> bool:
        """Return whether a start and a save have met the outage."""
        has_degraded = any(outcome.degraded for outcome in self._outcomes)
        has_kept = self._manager.stats().pending > 0
        return (has_kept and has_degraded) or all(phase is Phase.DONE for phase in self._phases)

    async def _until(self, condition: Callable[[], bool], limit: float = math.inf) -> None:
        """Wait until a condition is true, at most `limit` seconds."""
        latest = self._now() + limit
        while not condition() and self._now() < latest:
            await asyncio.sleep(_POLL)

    async def _settle(self) -> None:
        """Wait for the saves that were kept during the outage."""
        give_up = monotonic() + self._manager.config.close_timeout
        while self._manager.stats().pending and monotonic() < give_up:
            await asyncio.sleep(_POLL)
        stats = self._manager.stats()
        self._run.recovered, self._run.lost = stats.flushed, stats.lost + stats.pending
