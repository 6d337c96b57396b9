"""Thousands of agents at once on a healthy store: budgets are for a store that is slow, not for our own queue."""

from __future__ import annotations

import asyncio

import pytest

from session_reuse import SaveOutcome, SessionManager, reusable_session
from tests.harness.servers import RedisCluster, RedisServer
from tests.transport.visits import DEFAULTS, breakers

AGENTS = 5000


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.alone("5,000 agents use all of one core, and the server needs the other")
async def test_5000_agents_that_enter_and_leave_at_once_are_all_served(servers: RedisServer | RedisCluster) -> None:
    """With default settings, in one process: none lost, none degraded, none pending, and the breakers stay closed."""
    entered, leaving = asyncio.Event(), 0
    async with SessionManager(servers.url, **DEFAULTS) as manager:

        async def agent(number: int) -> tuple[bool, SaveOutcome | None]:
            nonlocal leaving
            async with reusable_session(f"shop/{number}", f"agent-{number}", manager=manager) as session:
                session.data["n"] = 1
                leaving += 1
                if leaving == AGENTS:
                    entered.set()
                await entered.wait()
            return session.degraded, session.save_outcome

        outcomes = await asyncio.gather(*map(agent, range(AGENTS)))
        assert manager.stats().lost == 0
        assert breakers(manager) == {"closed"}
    assert [each for each in outcomes if each != (False, SaveOutcome.SAVED)] == []
