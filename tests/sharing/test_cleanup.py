"""What expired sessions leave behind goes away, whether or not anybody has heard them expire."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from session_reuse import BrowserSession, ConfigurationError, SessionManager, reusable_session
from session_reuse._cleanup.job import CleanupJob
from session_reuse._cleanup.reconcile import changes_for
from session_reuse._store.redis.deadlines import IndexEntry
from tests.harness.polling import until
from tests.harness.probes import parts_of
from tests.harness.servers import HOST, RedisCluster, RedisServer
from tests.harness.stored import KEYS
from tests.sharing.processes import workers
from tests.sharing.traces import MakeManager, config_set, kinds, primaries, raw, save_many

MANY = 1000
SOON = 3.0
"""Seconds. A save that waits for longer than its time to live is given up, and one of a thousand waited for a second (2026-11-26)."""
NAMES = [f"shop/{number}" for number in range(MANY)]
LIVE = [f"live/{number}" for number in range(20)]


@asynccontextmanager
async def cleaning(manager: SessionManager) -> AsyncIterator[None]:
    """Run the clean-up job."""
    job = asyncio.create_task(manager.cleanup())
    try:
        yield
    finally:
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


async def gone(servers: RedisServer | RedisCluster, *, live: int = 0, timeout: float = 60.0) -> None:
    """Wait until only the live sessions and their traces are there."""
    expected = Counter(dict.fromkeys(("session", "affinity", "agents", "deadlines"), live) if live else {})
    await until(lambda: kinds(servers) == expected, timeout=timeout, message=f"no traces are left of {kinds(servers)}")


async def expired(servers: RedisServer | RedisCluster, live: int = 0) -> None:
    """Wait until the sessions have ended, without touching them."""
    await until(lambda: kinds(servers)["session"] <= live, interval=0.05, message="the sessions expire")


@given(left=st.none() | st.integers(-2, 10**9), due=st.booleans())
def test_a_session_that_may_live_is_never_taken_for_expired(left: int | None, *, due: bool) -> None:
    """Only a proven absence expires an entry. What could not be asked is left for the next time."""
    changes = changes_for([IndexEntry("a", "1")], [left], 60.0, due=due)
    assert any(new is None for _, new in changes) == (left == -2)
    assert not changes or left == -2 or (due and left is not None)


@pytest.mark.slow
async def test_sessions_that_expire_unheard_leave_no_trace(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """1,000 expire with no listener: the next clean-up finds all, tells of each once, and touches no live one."""
    told: list[str] = []
    registry = CollectorRegistry()
    manager = await make_manager(servers.url, on_expired=told.append, registry=registry)
    brief = await make_manager(servers.url, ttl=SOON)
    await asyncio.gather(save_many(brief, NAMES), save_many(manager, LIVE))
    await expired(servers, live=len(LIVE))
    report = await manager.cleanup_once()
    assert report.expired == MANY
    assert Counter(told) == Counter(NAMES)
    await gone(servers, live=len(LIVE))
    assert registry.get_sample_value("session_expired_total") == MANY
    assert (await manager.cleanup_once()).expired == 0
    for name in LIVE:
        assert await manager.affinity(f"agent-of-{name}") == name


@pytest.mark.slow
async def test_several_workers_share_the_work(servers: RedisServer | RedisCluster, make_manager: MakeManager) -> None:
    """Three processes and two jobs of this one clean up at once: each session is told of exactly once."""
    told: list[str] = []
    brief = await make_manager(servers.url, ttl=SOON)
    ours = [await make_manager(servers.url, on_expired=told.append, cleanup_interval=0.2) for _ in range(2)]
    async with workers(3, "clean", url=servers.url, interval=0.2) as others, cleaning(ours[0]), cleaning(ours[1]):
        await asyncio.gather(*(other.says() for other in others))

        async def listen(other: Any) -> None:
            while True:
                told.append((await other.says())["expired"])

        listeners = [asyncio.create_task(listen(other)) for other in others]
        await save_many(brief, NAMES[:300])
        await until(lambda: len(told) >= 300, message="all are told of")
        await gone(servers)
        for listener in listeners:
            listener.cancel()
    assert Counter(told) == Counter(NAMES[:300])


@pytest.mark.slow
async def test_a_restart_that_forgets_the_setting_is_noticed(own_redis: RedisServer, make_manager: MakeManager) -> None:
    """The server comes back without notifications: the job subscribes, sets them again and reconciles what it missed."""
    told: list[str] = []
    settings = {"cleanup_interval": 3600.0, "configure_notifications": True}
    manager = await make_manager(own_redis.url, on_expired=told.append, **settings)
    brief = await make_manager(own_redis.url, ttl=2 * SOON)  # none expires before the server is killed
    async with cleaning(manager):
        await until(lambda: notifies(own_redis), message="the setting is made")
        await save_many(brief, NAMES)
        own_redis.kill()
        own_redis.start()
        await until(lambda: notifies(own_redis), message="the setting is made again")
        await until(lambda: len(told) == MANY, message="all are told of")
        await gone(own_redis)
    assert Counter(told) == Counter(NAMES)


def notifies(server: RedisServer) -> bool:
    """Return whether the server sends the events."""
    with server.client() as client:
        return set("Exge") <= set(
            client.config_get("notify-keyspace-events")["notify-keyspace-events"].replace("A", "gxe")
        )


@pytest.mark.slow
async def test_it_works_where_config_is_forbidden(
    own_redis: RedisServer, make_manager: MakeManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Managed Redis allows no CONFIG: one warning, no failure, and the reconcile does all the work."""
    with own_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "agent", "on", ">word", "~browser:*", "&*", "+@all", "-config")
    url = f"redis://agent:word@{HOST}:{own_redis.port}/0"
    told: list[str] = []
    manager = await make_manager(url, on_expired=told.append, cleanup_interval=0.3, configure_notifications=True)
    brief = await make_manager(url, ttl=SOON)
    async with cleaning(manager):
        await save_many(brief, NAMES)
        await until(lambda: len(told) == MANY, message="all are told of")
        await gone(own_redis)
    assert Counter(told) == Counter(NAMES)
    assert caplog.text.count("session_reuse.notifications_off") == 1
    assert "session_reuse.cleanup_failed" not in caplog.text


async def test_the_setting_is_left_alone_unless_asked(redis_server: RedisServer, make_manager: MakeManager) -> None:
    """Without `configure_notifications` nothing is configured. With it what others have set stays."""
    config_set(redis_server, "notify-keyspace-events", "Kl")
    async with cleaning(await make_manager(redis_server.url)):
        await until(lambda: subscribers(redis_server) == 3, message="the job listens all the same")
        assert not notifies(redis_server)
    async with cleaning(await make_manager(redis_server.url, configure_notifications=True)):
        await until(lambda: notifies(redis_server), message="the setting is made")
    with redis_server.client() as client:
        assert set("Kl") <= set(client.config_get("notify-keyspace-events")["notify-keyspace-events"])
    config_set(redis_server, "notify-keyspace-events", "")


def subscribers(server: RedisServer) -> int:
    """Return how many of the event channels someone listens to."""
    with server.client() as client:
        return len(client.pubsub_channels("__keyevent@0__:*"))


async def test_an_event_is_followed_at_once(servers: RedisServer | RedisCluster, make_manager: MakeManager) -> None:
    """With notifications on, a session that goes before its deadline is found long before the next reconcile."""
    told: list[str] = []
    settings = {"cleanup_interval": 3600.0, "configure_notifications": True}
    manager = await make_manager(servers.url, on_expired=told.append, **settings)
    await save_many(manager, ["early", "stays"])
    async with cleaning(manager):
        await until(lambda: all(map(notifies, primaries(servers))), message="the setting is made")
        await until(lambda: all(subscribers(node) == 3 for node in primaries(servers)), message="the job listens")
        with raw(servers, "browser:session:early") as client:
            client.delete("browser:session:early")
        await until(lambda: told == ["early"], message="the session is told of")
        await gone(servers, live=1)
    config_set(servers, "notify-keyspace-events", "")


@pytest.mark.cluster
@pytest.mark.slow
async def test_it_goes_on_after_a_cluster_failover(make_manager: MakeManager) -> None:
    """A primary dies under the listener: 1,000 sessions that expire afterwards leave no trace, on any node.

    A list of agents whose node dies between two steps of a clean-up ends on its own, an hour later.
    """
    told: list[str] = []
    with RedisCluster() as cluster:
        settings = {"cleanup_interval": 0.5, "configure_notifications": True}
        manager = await make_manager(cluster.url, on_expired=told.append, **settings)
        brief = await make_manager(cluster.url, ttl=5.0)
        async with cleaning(manager):
            await asyncio.gather(save_many(brief, NAMES), save_many(manager, LIVE))
            await asyncio.to_thread(cluster.kill_primary_of, "browser:session:shop/1")
            await until(lambda: len(set(told)) >= MANY - 5, message="those that survived are told of")
            live = dict.fromkeys(("session", "affinity", "deadlines"), len(LIVE))
            await until(lambda: kinds(cluster) - Counter(agents=MANY) == live, message="no traces are left")
    # What a primary had not replicated when it died is lost with it: such a session was never there for the successor.
    assert Counter(told).most_common(1)[0][1] == 1
    assert not set(told) & set(LIVE)


async def test_a_slid_session_is_not_touched(servers: RedisServer | RedisCluster, make_manager: MakeManager) -> None:
    """Restores prolong a session and leave the index alone: when its entry is due it gets its new deadline."""
    told: list[str] = []
    manager = await make_manager(servers.url, ttl=60.0, on_expired=told.append)
    await save_many(manager, ["slid", "endless"])
    with raw(servers, "browser:session:endless") as client:
        client.persist("browser:session:endless")
    for name in ("slid", "endless"):  # entries of a minute ago
        bucket = KEYS.of(name).deadlines
        with raw(servers, bucket) as client:
            client.zincrby(bucket, -60_000, name)
    bucket = KEYS.of("slid").deadlines
    with raw(servers, bucket) as client:
        before = client.zscore(bucket, "slid")
        async with reusable_session("slid", manager=manager) as session:
            session.discard()
        assert client.zscore(bucket, "slid") == before

        async def looked_again() -> bool:
            await manager.cleanup_once()
            return bool(client.zscore(bucket, "slid") > before)

        await until(looked_again, message="the entry gets a new deadline")
        assert client.zscore(bucket, "slid") - before > 50_000
    assert told == []
    assert kinds(servers)["session"] == 2


async def test_a_session_that_comes_back_is_indexed_again(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """It expired under its holder, was cleaned up, and is saved again: the index knows it, and its end is told of too."""
    told: list[str] = []
    manager = await make_manager(servers.url, ttl=1.5, on_expired=told.append)
    await save_many(manager, ["shop"])
    async with reusable_session("shop", "agent", manager=manager) as session:
        with raw(servers, "browser:session:shop") as client:
            client.delete("browser:session:shop")
        await until(cleaned(manager), message="the traces are removed")
        assert kinds(servers)["deadlines"] == 0
        session.data["n"] = 2
    assert kinds(servers)["deadlines"] == 1
    await until(cleaned(manager), message="its second end is noticed")
    assert told == ["shop", "shop"]
    await gone(servers)


def cleaned(manager: SessionManager) -> Callable[[], Any]:
    """Return a condition: one pass of the clean-up has found something."""

    async def once() -> int:
        return (await manager.cleanup_once()).expired

    return once


async def test_an_entry_lost_in_a_failover_is_repaired(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """The walk over all sessions enters those that the index has lost, and nothing else."""
    manager = await make_manager(servers.url)
    await save_many(manager, NAMES[:200])
    for name in NAMES[:50]:
        with raw(servers, KEYS.of(name).deadlines) as client:
            client.zrem(KEYS.of(name).deadlines, name)
    with raw(servers, "browser:session:not ours") as client:
        client.set("browser:session:not ours", "x")
    services = await parts_of(manager)
    job = CleanupJob(services.store, manager.config, services.telemetry)
    assert await job.repair() == 50
    assert kinds(servers)["deadlines"] == 200
    assert await job.repair() == 0


async def test_a_callback_that_fails_stops_nothing(redis_server: RedisServer, make_manager: MakeManager) -> None:
    """It raises, plain or async, for every second session: all are told of, and all traces go."""
    told: list[str] = []

    async def tell(fingerprint: str) -> None:
        told.append(fingerprint)
        if len(told) % 2:
            raise RuntimeError(fingerprint)

    manager = await make_manager(redis_server.url, ttl=1.5, on_expired=tell)
    await save_many(manager, NAMES[:20])
    await expired(redis_server)
    await manager.cleanup_once()
    assert Counter(told) == Counter(NAMES[:20])
    await gone(redis_server)


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, type("Ended", (BaseException,), {})])
async def test_a_callback_that_is_cancelled_or_exits_ends_no_job(
    redis_server: RedisServer, make_manager: MakeManager, error: type[BaseException]
) -> None:
    """A CancelledError of it ended the reconcile without a word, and no session was found any more."""
    told: list[str] = []

    def tell(fingerprint: str) -> None:
        told.append(fingerprint)
        if len(told) == 1:
            raise error

    manager = await make_manager(redis_server.url, ttl=0.3, on_expired=tell, cleanup_interval=0.1)
    async with cleaning(manager):
        for name in NAMES[:2]:
            await save_many(manager, [name])
            await until(functools.partial(told.__contains__, name), timeout=10.0, message="the job goes on")


async def test_the_job_leaves_a_small_pool_to_the_agents(redis_server: RedisServer, make_manager: MakeManager) -> None:
    """Its listener kept the only connection, so that no agent could save."""
    budgets = {"restore_timeout": 2.0, "save_timeout": 2.0, "attempt_timeout": 1.0}
    manager = await make_manager(f"{redis_server.url}?max_connections=1", **budgets)
    async with cleaning(manager):
        await until(lambda: subscribers(redis_server) == 3, message="the job listens")
        async with reusable_session("shop/alice", manager=manager) as session:
            session.data["n"] = 1
        assert (session.outcome, session.save_outcome) == ("missing", "saved")


async def test_an_outage_does_not_end_the_job(own_redis: RedisServer, make_manager: MakeManager) -> None:
    """Redis is away when the job starts and again in the middle: it goes on when Redis is back."""
    told: list[str] = []
    own_redis.stop()
    manager = await make_manager(own_redis.url, ttl=0.3, on_expired=told.append, cleanup_interval=0.2)
    async with cleaning(manager):
        for name in NAMES[:2]:
            await asyncio.to_thread(own_redis.start)
            await until(functools.partial(saved, manager, name), message="saves work again")
            await until(functools.partial(told.__contains__, name), message="the job goes on")
            own_redis.stop()
        own_redis.start()


async def saved(manager: SessionManager, name: str) -> bool:
    """Return whether a session could be saved."""
    return str(await manager.save(BrowserSession(name, data={"n": 1}))) == "saved"


async def test_closing_the_manager_ends_the_job(redis_server: RedisServer, make_manager: MakeManager) -> None:
    """The job returns. It neither hangs nor tries forever on a closed connection."""
    manager = await make_manager(redis_server.url)
    job = asyncio.create_task(manager.cleanup())
    await until(lambda: subscribers(redis_server) == 3, message="the job listens")
    await manager.aclose()
    async with asyncio.timeout(60.0):
        await job


async def test_foreign_things_in_the_index_do_no_harm(redis_server: RedisServer, make_manager: MakeManager) -> None:
    """A member that no fingerprint makes, a bucket that is no sorted set: the others are cleaned up anyway."""
    told: list[str] = []
    manager = await make_manager(redis_server.url, ttl=1.5, on_expired=told.append)
    await save_many(manager, NAMES[:50])
    await expired(redis_server)
    with redis_server.client() as client:
        client.zadd(KEYS.of(NAMES[0]).deadlines, {"": 1.0, "x" * 600: 2.0, "with space": 3.0, b"\xff": 4.0})
        await manager.cleanup_once()
        assert Counter(told) == Counter(NAMES[:50])
        assert kinds(redis_server)["deadlines"] == 0
        broken = KEYS.of(NAMES[1]).deadlines
        client.delete(broken)
        client.set(broken, "x")
        other = next(name for name in NAMES if KEYS.of(name).deadlines != broken)
        await save_many(manager, [other])
        await until(lambda: client.exists(f"browser:session:{other}") == 0)
        with pytest.raises(Exception, match="holds another type"):
            await manager.cleanup_once()
        assert told[-1] == other


async def test_it_needs_a_redis() -> None:
    """A store of another kind is refused by name, not by an attribute that is missing."""

    class Double:
        enter = aclose = servers = None

    manager = SessionManager(Double(), registry=None)
    with pytest.raises(ConfigurationError, match="Double"):
        await manager.cleanup()
