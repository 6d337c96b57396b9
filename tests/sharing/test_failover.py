"""Primaries that die: no exception, no enter beyond its budget, no save lost, no fencing token twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from types import SimpleNamespace
from typing import NoReturn

import pytest
import redis.asyncio
from redis.asyncio import Sentinel

from session_reuse import Outcome, SaveOutcome, SessionManager, reusable_session
from session_reuse._store.redis.store import RedisStore
from session_reuse._store.redis.topology import SentinelTopology
from tests.harness.lag import Lag
from tests.harness.polling import until
from tests.harness.probes import connections_of, fencing_token, parts_of, runtime
from tests.harness.servers import HOST, RedisCluster, RedisServer, SentinelGroup
from tests.harness.stored import KEYS
from tests.sharing.traces import MakeManager, save_many

AGENTS = 100
BUDGET = 0.5
PAUSE = 0.2
"""Between two visits of an agent: two times a hundred without one would keep a core busy, and each other waiting."""
LEEWAY = 0.5
"""What a loaded machine may add to a budget, besides what its event loop stands still."""


class Run:
    """Agents that work until told to stop."""

    def __init__(self, manager: SessionManager, lag: Lag) -> None:
        self.manager = manager
        self.lag = lag
        self.tokens: dict[str, list[int]] = {}
        self.enters: Counter[str] = Counter()
        self.saves: Counter[str] = Counter()
        self.longest = 0.0
        self.rounds = 0
        self.ending = False
        self.last: dict[str, int] = {}

    async def agent(self, number: int) -> None:
        """Work on one session. Every tenth agent has it for itself."""
        name, exclusive = f"shop/{number}", number % 10 == 0
        while not self.ending:
            visit = reusable_session(name, f"agent-{number}", manager=self.manager, exclusive=exclusive)
            began = monotonic()
            session = await visit.__aenter__()
            self.longest = max(self.longest, monotonic() - began - self.lag.since(began))
            self.enters[session.outcome] += 1
            self.note_token(name, visit)
            self.rounds += 1
            if session.reused:
                session.data["round"] = self.last[name] = self.rounds
            else:
                session.discard()
            await visit.__aexit__(None, None, None)
            self.saves[str(session.save_outcome)] += 1
            await asyncio.sleep(PAUSE)

    def note_token(self, name: str, visit: reusable_session) -> None:
        """Keep the fencing token the store has given. One that came with a waiting save was noted before."""
        token = fencing_token(visit)
        if token is not None:
            self.tokens.setdefault(name, []).append(token)


async def ran_through(manager: SessionManager, failover: Callable[[], object]) -> Run:
    """Run agents before, during and after a fail-over, and see that all is well afterwards."""
    names = [f"shop/{number}" for number in range(AGENTS)]
    await until(lambda: all_saved(manager, names), message="the sessions are stored")
    run = Run(manager, Lag())
    async with run.lag.watched():
        agents = [asyncio.create_task(run.agent(number)) for number in range(AGENTS)]
        await until(lambda: run.rounds > 2 * AGENTS)
        await asyncio.to_thread(failover)
        reused = run.enters[Outcome.REUSED]
        await until(lambda: run.enters[Outcome.REUSED] > reused + 2 * AGENTS, message="agents work again")
        run.ending = True
        await asyncio.gather(*agents)
    await until(lambda: manager.stats().pending == 0, timeout=40.0, message="waiting saves get through")
    return run


async def all_saved(manager: SessionManager, names: list[str]) -> bool:
    """Store the sessions. After an earlier fail-over it may take a moment until that works."""
    try:
        await save_many(manager, names)
    except AssertionError:
        return False
    return True


async def verified(run: Run, manager: SessionManager) -> None:
    """See that the last change of each agent is there, and that no token was given out twice."""
    assert run.longest < BUDGET + LEEWAY
    assert set(run.saves) <= {
        SaveOutcome.SAVED,
        SaveOutcome.MERGED,
        SaveOutcome.PENDING,
        SaveOutcome.SKIPPED,
        SaveOutcome.STALE,
    }
    for name, number in run.last.items():
        session = await manager.restore(name)
        assert session is not None, name
        assert session.data.get("round") == number, name
    for tokens in run.tokens.values():
        assert tokens == sorted(set(tokens))
    assert manager.stats().lost == 0


@asynccontextmanager
async def started(group: RedisCluster | SentinelGroup) -> AsyncIterator[RedisCluster | SentinelGroup]:
    """Run servers without holding up the event loop while they start and end."""
    await asyncio.to_thread(group.start)
    try:
        yield group
    finally:
        await asyncio.to_thread(group.close)


def fail_over(group: RedisCluster | SentinelGroup) -> None:
    """Kill a primary, and wait until another has taken over."""
    if isinstance(group, RedisCluster):
        group.kill_primary_of("browser:session:shop/1")
    else:
        group.failover()


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.alone("enters have 0.5 s while twelve servers elect a primary")
async def test_agents_live_through_a_failover(make_manager: MakeManager) -> None:
    """A primary is killed while 100 agents work: none sees an exception, waiting saves arrive, tokens only grow.

    On a Cluster and behind Sentinel, side by side.
    """

    async def live_through(group: RedisCluster | SentinelGroup) -> None:
        async with started(group):
            settings = {
                "restore_timeout": BUDGET,
                "attempt_timeout": 0.25,
                "wait_replicas": 1,
                "lease_ttl": 5.0,
            }
            manager = await make_manager(group.url, **settings)
            run = await ran_through(manager, lambda: fail_over(group))
            await verified(run, await make_manager(group.url))

    async with asyncio.TaskGroup() as both:
        for group in (RedisCluster(), SentinelGroup()):
            both.create_task(live_through(group))


@pytest.mark.alone("saves reach the new primary within 3 s")
async def test_a_demoted_master_is_left(make_manager: MakeManager) -> None:
    """After an orderly change the old master goes on as one for seconds: what is saved to it would be lost."""
    with SentinelGroup() as group:
        manager = await make_manager(group.url)
        await save_many(manager, ["shop"])
        old = group.primary
        with group.sentinels[0].client() as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", group.name)
        await until(lambda: group.primary is not old, message="the sentinels name another master")
        began = monotonic()

        await until(lambda: changed(group.primary, manager), timeout=5.0, message="saves reach the new master")
        assert monotonic() - began < 3.0


async def changed(server: RedisServer, manager: SessionManager) -> bool:
    """Save once, and return whether this server knows of it."""
    with server.client() as client:
        before = client.getrange("browser:session:shop", 0, 175)
        async with reusable_session("shop", manager=manager) as session:
            session.data["after"] = monotonic()
        return bool(client.getrange("browser:session:shop", 0, 175) != before)


@pytest.mark.cluster
@pytest.mark.alone("half of the enters take less than 0.1 s")
async def test_a_frozen_primary_holds_up_its_own_sessions_only(
    cluster: RedisCluster, make_manager: MakeManager
) -> None:
    """Sessions of the other primaries are reused as fast as ever, while one does not answer at all."""
    manager = await make_manager(cluster.url, attempt_timeout=0.25, restore_timeout=0.5, save_timeout=0.5)
    names = [f"shop/{number}" for number in range(30)]
    await save_many(manager, names)
    frozen = cluster.primary_of("browser:session:shop/0")
    elsewhere = [name for name in names if cluster.primary_of(f"browser:session:{name}") is not frozen]
    frozen.pause()
    async with reusable_session("shop/0", manager=manager) as session:
        assert session.stale  # from what this process knows
        session.discard()
    took = []
    for name in elsewhere:
        began = monotonic()
        async with reusable_session(name, manager=manager) as session:
            assert session.reused, (name, session.outcome)
            session.discard()
        took.append(monotonic() - began)
    frozen.resume()

    assert sorted(took)[len(took) // 2] < 0.1


@pytest.mark.cluster
async def test_an_uncovered_slot_loses_nothing(cluster: RedisCluster, make_manager: MakeManager) -> None:
    """Without a node for its slot a session starts from what the process knows and its save waits. The others go on, and it arrives later."""
    manager = await make_manager(cluster.url, restore_timeout=3.0, save_timeout=3.0)
    await save_many(manager, ["here", "there"])
    owner = cluster.primary_of("browser:session:here")
    slot = redis.crc.key_slot(b"browser:session:here")
    everywhere(cluster, "DELSLOTS", slot)
    await until(lambda: uncovered(manager, "here"), message="the client knows")
    async with reusable_session("here", manager=manager) as session:
        assert session.stale  # from what this process knows
    async with reusable_session("there", manager=manager) as session:
        assert session.reused
    async with reusable_session("new", manager=manager) as session:
        session.data["n"] = 1
    with owner.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTS", slot)
    await until(lambda: manager.stats().pending == 0, message="what waits gets through")

    async def back() -> bool:
        return await manager.restore("here") is not None

    await until(back, message="the session is there again")


def everywhere(cluster: RedisCluster, *words: object) -> None:
    """Give all nodes a CLUSTER command."""
    for node in cluster.nodes:
        with node.client() as client:
            try:
                client.execute_command("CLUSTER", *words)
            except redis.ResponseError:
                continue  # a replica has no slots of its own to lose


async def uncovered(manager: SessionManager, name: str) -> bool:
    """Return whether the store cannot be asked for this session."""
    async with reusable_session(name, manager=manager) as session:
        session.discard()
    return session.degraded or session.stale


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.alone("the store answers 2 s after the election")
async def test_recovery_takes_no_longer_than_the_failover(make_manager: MakeManager) -> None:
    """The store answers again as soon as there is a new primary: the client learns of it on its own."""

    async def recover(group: RedisCluster | SentinelGroup) -> None:
        async with started(group):
            store = (await parts_of(await make_manager(group.url))).store
            assert isinstance(store, RedisStore)
            await until(answers(store), message="the store answers at first")
            await asyncio.to_thread(fail_over, group)
            began = monotonic()
            await until(answers(store), interval=0.02, message="the store answers again")
            took = monotonic() - began - lag.since(began)
            assert took < 2.0

    lag = Lag()
    async with lag.watched(), asyncio.TaskGroup() as both:
        for group in (RedisCluster(), SentinelGroup()):
            both.create_task(recover(group))


def answers(store: RedisStore) -> Callable[[], Awaitable[bool]]:
    """Return a condition: the store answers an enter."""

    async def entered() -> bool:
        try:
            await store.enter("shop/1", ttl=60.0, timeout=0.5)
        except Exception:  # noqa: BLE001
            return False
        return True

    return entered


async def test_a_reset_connection_to_a_sentinel_does_not_alarm_anybody() -> None:
    """The sentinels are asked again later, whatever class of error a Python makes of a write to a reset connection."""

    async def reset() -> NoReturn:
        raise AttributeError("'NoneType' object has no attribute '_add_writer'")

    pool = SimpleNamespace(master_address=None, get_master_address=reset, sentinel_manager=Sentinel([]))
    await SentinelTopology(SimpleNamespace(connection_pool=pool), lanes=1).check(timeout=1.0)


@pytest.mark.alone("saves reach the new master within 3 s, and the enter of a new process takes 0.5 s")
async def test_a_silent_sentinel_hides_no_new_master(make_manager: MakeManager) -> None:
    """The host of the old master is frozen, with the sentinel that was asked first: the others name the new master."""
    with SentinelGroup() as group:
        manager = await make_manager(group.url)
        await save_many(manager, ["shop"])
        store = (await parts_of(manager)).store
        assert isinstance(store, RedisStore)
        first = store.client.connection_pool.sentinel_manager.sentinels[0].connection_pool.connection_kwargs["port"]
        group.sentinels.sort(key=lambda sentinel: sentinel.port == first)  # the group is asked by its first one
        group.sentinels[-1].pause()
        old = group.primary
        old.pause()
        await until(lambda: group.primary is not old, timeout=30.0, message="the sentinels name another master")
        began = monotonic()

        await until(lambda: changed(group.primary, manager), timeout=10.0, message="saves reach the new master")
        assert monotonic() - began < 3.0
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in reversed(group.sentinels))
        async with reusable_session("shop", manager=await make_manager(f"redis+sentinel://{hosts}/main")) as session:
            assert session.reused, session.outcome


async def test_no_sentinel_is_forgotten(make_manager: MakeManager) -> None:
    """While the first sentinel is away, connections that look for the master at once must not lose another."""
    with SentinelGroup() as group:
        store = (await parts_of(await make_manager(group.url))).store
        assert isinstance(store, RedisStore)
        pool = store.client.connection_pool
        known = set(pool.sentinel_manager.sentinels)
        group.sentinels[0].kill()
        await asyncio.gather(*(pool.get_master_address() for _ in range(8)))

        await store.topology.check(timeout=2.0)

        assert set(pool.sentinel_manager.sentinels) == known


@pytest.mark.cluster
async def test_connections_to_a_node_that_has_left_are_closed(make_manager: MakeManager) -> None:
    """A dead primary's connections go when another has taken over, not when the manager is closed."""
    with RedisCluster() as cluster:
        manager = await make_manager(cluster.url, wait_replicas=0)
        await save_many(manager, ["shop/1"])
        store = (await parts_of(manager)).store
        assert isinstance(store, RedisStore)
        dead = cluster.kill_primary_of("browser:session:shop/1")
        connection = runtime(manager).connection
        assert connection is not None
        connections = connections_of(connection.client.get_node("127.0.0.1", dead.port))
        assert connections

        await until(answers(store), message="the store answers")
        await until(
            lambda: not any(connection.is_connected for connection in connections),
            message="all are closed",
        )


@pytest.mark.cluster
async def test_a_client_that_was_not_initialized_is_closed(cluster: RedisCluster) -> None:
    """redis-py takes such a client for one that was never used, and would close nothing."""
    client = redis.asyncio.RedisCluster.from_url(cluster.nodes[0].url)
    store = RedisStore(client, KEYS)
    await store.read("shop", timeout=2.0)
    manager = client.nodes_manager
    await store.aclose()

    nodes = [*manager.nodes_cache.values(), *manager.startup_nodes.values()]
    connections = [connection for node in nodes for connection in connections_of(node)]
    assert connections
    assert not any(connection.is_connected for connection in connections)
