"""A client of the user's own with hardly any connections: our lanes share them, and no agent hears of it."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from session_reuse import SaveOutcome, SessionManager, reusable_session
from tests.harness.servers import RedisServer
from tests.sharing.worker import SETTINGS

AGENTS = 40
LARGE = 150_000
"""Bytes that do not compress below what makes a value take the lane of its own."""


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_lanes_share_a_pool_that_is_smaller_than_they_are(redis_server: RedisServer, most: int) -> None:
    """Forty agents, a few with large states, over one connection: all are saved, all are reused."""
    client = redis.asyncio.Redis.from_url(redis_server.url, max_connections=most, retry=Retry(NoBackoff(), 0))
    async with client, SessionManager(client, compression="none", **SETTINGS) as manager:

        async def agent(number: int) -> tuple[bool, bool, SaveOutcome | None]:
            async with reusable_session(f"site/{number}", "agent", manager=manager) as session:
                session.data["n"] = session.data.get("n", 0) + 1
                session.data["pad"] = "x" * (LARGE if number % 10 == 0 else 100)
            return session.reused, session.degraded, session.save_outcome

        first = await asyncio.gather(*map(agent, range(AGENTS)))
        assert first == [(False, False, SaveOutcome.SAVED)] * AGENTS
        again = await asyncio.gather(*map(agent, range(AGENTS)))
        assert again == [(True, False, SaveOutcome.SAVED)] * AGENTS
