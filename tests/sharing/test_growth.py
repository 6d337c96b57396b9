"""What is kept beside the sessions does not grow forever, whether or not a clean-up job runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from itertools import islice

import pytest
from prometheus_client import CollectorRegistry

from session_reuse import BrowserSession, SaveOutcome, SessionManager, reusable_session
from tests.harness.polling import until
from tests.harness.servers import RedisCluster, RedisServer
from tests.harness.stored import KEYS
from tests.sharing.traces import MakeManager, kinds, raw, save_many

DAY = 86_400_000
NAMES = (f"shop/{number}" for number in range(1000))
FIRST, SECOND, THIRD = islice((name for name in NAMES if KEYS.of(name).deadlines == KEYS.deadline_bucket(0)), 3)
"""Names whose deadlines are in one bucket."""


async def test_index_entries_end_without_a_clean_up_job(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """Entries that are overdue for more than a day go as new ones come, and the whole index ends a day after its last entry."""
    manager = await make_manager(servers.url, ttl=60.0)
    bucket, now = KEYS.of(FIRST).deadlines, time.time() * 1000
    with raw(servers, bucket) as client:
        client.zadd(bucket, {f"gone/{number}": now - DAY - 60_000 - number for number in range(25)})
        client.zadd(bucket, {"due/0": now - 1000})
        await save_many(manager, [FIRST])
        assert client.zcard(bucket) == 25 + 2 - 10
        assert 60_000 + DAY < client.pttl(bucket) <= 60_000 + 2 * DAY
        await save_many(manager, [SECOND, THIRD])
        assert {name.decode() for name in client.zrange(bucket, 0, -1)} == {"due/0", FIRST, SECOND, THIRD}


async def test_the_index_outlives_sessions_that_a_clean_up_job_prolongs(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """A session lives on by restores alone, which do not write the index: the clean-up keeps the bucket for it."""
    manager = await make_manager(servers.url, ttl=3600.0)
    await save_many(manager, ["shop/0"])
    bucket = KEYS.of("shop/0").deadlines
    with raw(servers, bucket) as client:
        client.zadd(bucket, {"shop/0": time.time() * 1000 - 1000})
        client.pexpire(bucket, 60_000)
        assert (await manager.cleanup_once()).prolonged == 1
        assert client.pttl(bucket) > 3_500_000 + DAY


async def test_a_job_that_starts_late_finds_sessions_whose_entries_were_trimmed(
    redis_server: RedisServer, make_manager: MakeManager
) -> None:
    """No job ran for days, and a session lived on without its entry: its end is told of anyway."""
    told: list[str] = []
    manager = await make_manager(redis_server.url, ttl=2.0, on_expired=told.append, cleanup_interval=0.2)
    await save_many(manager, ["shop/0"])
    with redis_server.client() as client:
        client.delete(KEYS.of("shop/0").deadlines)
    job = asyncio.create_task(manager.cleanup())
    await until(lambda: told == ["shop/0"], message="its end is told of")
    assert kinds(redis_server)["affinity"] == 0
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)


async def test_a_clean_up_on_a_dead_store_says_so_once(
    own_redis: RedisServer, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning for each kind of failure while the store is away, however often it is tried, and then it works again."""
    told: list[str] = []
    settings = {"ttl": 0.3, "cleanup_interval": 0.1, "on_expired": told.append}

    def failures() -> float:
        labels = [{"op": "cleanup", "reason": reason} for reason in ("unavailable", "timeout")]
        return sum(registry.get_sample_value("session_degraded_total", each) or 0.0 for each in labels)

    async with SessionManager(own_redis.url, registry=registry, **settings) as manager:
        job = asyncio.create_task(manager.cleanup())
        own_redis.kill()
        await until(lambda: failures() > 20, message="it tries again and again")
        warned = [line for line in caplog.messages if "cleanup_failed" in line]
        assert warned
        assert len(warned) == len(set(warned))
        own_redis.start()
        await until(lambda: saved(manager), message="a session is saved")
        await until(lambda: told, message="the clean-up works again")
        job.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await job


async def saved(manager: SessionManager) -> bool:
    """Return whether a save reaches the store."""
    return await manager.save(BrowserSession("shop/alice", "agent")) is SaveOutcome.SAVED


async def test_an_agent_for_each_run_does_not_make_the_list_of_agents_grow(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """200 agents use one session: the latest are listed, and an eviction takes their affinity along."""
    manager = await make_manager(servers.url)
    for number in range(200):
        assert await manager.save(BrowserSession("shop/alice", f"agent-{number}", data={"n": number})) == "saved"
    agents = KEYS.of("shop/alice").agents
    with raw(servers, agents) as client:
        assert client.zrange(agents, -1, -1) == [b"agent-199"]
        assert client.zcard(agents) <= 64
    assert await manager.evict("shop/alice")
    assert await manager.affinity("agent-199") is None
    assert kinds(servers)["agents"] == 0


@pytest.mark.alone("no command takes the server 0.2 s")
async def test_a_list_of_agents_of_an_earlier_version_is_replaced(
    redis_server: RedisServer, make_manager: MakeManager
) -> None:
    """A set of 100,000 agents stands there: saves go on, and an eviction does not hold up the server."""
    manager = await make_manager(redis_server.url)
    await save_many(manager, ["shop/alice"])
    agents = KEYS.of("shop/alice").agents
    with redis_server.client() as client:
        client.delete(agents)
        client.sadd(agents, *(f"agent-{number}" for number in range(100_000)))
        client.config_set("slowlog-log-slower-than", 200_000)
        client.slowlog_reset()
        async with reusable_session("shop/alice", "last", manager=manager) as session:
            session.data["n"] = 2
        assert session.save_outcome is SaveOutcome.SAVED
        assert await manager.evict("shop/alice")
        assert client.slowlog_len() == 0
