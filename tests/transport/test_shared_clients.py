"""A client of the user's own: what is idle with us is there for the application."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from session_reuse import Outcome, SaveOutcome, SessionManager
from session_reuse._store.redis import batching
from tests.harness.polling import until
from tests.harness.probes import idle, in_use
from tests.harness.servers import RedisServer
from tests.transport.visits import DEFAULTS, outcomes, visit, visits

NAMES = [f"shop/{number}" for number in range(30)]


def client_of(server: RedisServer, most: int, **options: object) -> redis.asyncio.Redis:
    """Return a client with so many connections."""
    return redis.asyncio.Redis.from_url(server.url, max_connections=most, retry=Retry(NoBackoff(), 0), **options)  # type: ignore[no-any-return]


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("most", [1, 2, 3])
async def test_an_application_with_few_connections_has_them_while_we_are_idle(
    redis_server: RedisServer, most: int, protocol: int
) -> None:
    """Its own PING works after each of our visits, and ours work after each PING."""
    client = client_of(redis_server, most, protocol=protocol)
    async with client, SessionManager(client, **DEFAULTS) as manager:
        await visits(manager, NAMES)
        for _ in range(3):
            assert (await visit(manager)).outcome is Outcome.REUSED
            for _ in range(2):
                await until(client.ping, message="the application has a connection")
        assert outcomes(await visits(manager, NAMES, save=False)) == {"reused": len(NAMES)}


@pytest.mark.alone("a wait of 0.1 s for a connection fits into the default budgets")
async def test_an_application_that_is_busy_lets_us_wait(redis_server: RedisServer) -> None:
    """While it has the only connection for a moment, an enter waits for it."""
    client = client_of(redis_server, 1)
    async with client, SessionManager(client, **DEFAULTS) as manager:
        await visit(manager)
        theirs = await client.connection_pool.get_connection()

        async def give_back() -> None:
            await asyncio.sleep(0.1)
            await client.connection_pool.release(theirs)

        giving_back = asyncio.create_task(give_back())
        found = await visit(manager)
        await giving_back
        assert (found.outcome, found.saved) == (Outcome.REUSED, SaveOutcome.SAVED)


async def test_idle_lanes_give_their_connections_back(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there are plenty, after a while. They are used again afterwards."""
    monkeypatch.setattr(batching, "_IDLE_FOR", 0.5)
    client = client_of(redis_server, 10)
    async with client, SessionManager(client, **DEFAULTS) as manager:
        await visits(manager, NAMES)
        pool = client.connection_pool
        assert in_use(pool)
        await until(lambda: not in_use(pool), message="all are given back")
        opened = len(idle(pool))
        assert outcomes(await visits(manager, NAMES)) == {"reused": len(NAMES)}
        assert len(idle(pool)) + in_use(pool) == opened


async def test_a_connection_given_back_works_for_the_application(redis_server: RedisServer) -> None:
    """What we read by ourselves does not confuse redis-py's own reading afterwards."""
    client = client_of(redis_server, 1)
    async with client, SessionManager(client, **DEFAULTS) as manager:
        await visit(manager)
        await until(client.ping, message="the application has a connection")
        await client.set("theirs", b"x" * 300_000)
        assert len(await client.get("theirs") or b"") == 300_000
        assert (await visit(manager)).outcome is Outcome.REUSED
        async with client.pipeline() as pipeline:
            assert await pipeline.get("theirs").delete("theirs").execute() == [b"x" * 300_000, 1]
