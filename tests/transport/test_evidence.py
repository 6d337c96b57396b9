"""Breakers open on evidence of the server: one's own trouble is no one else's."""

from __future__ import annotations

import asyncio
import itertools

import pytest
import redis

from session_reuse import Outcome, SaveOutcome, SessionManager, reusable_session
from session_reuse.errors import StoreAuthError, StorePermissionError
from tests.harness.fault_proxy import FaultProxy
from tests.harness.servers import HOST, RedisCluster, RedisServer, SentinelGroup
from tests.transport.visits import DEFAULTS, breakers, outcomes, visit, visits

NAMES = [f"shop/{number}" for number in range(10)]


@pytest.fixture
async def stored(redis_server: RedisServer) -> RedisServer:
    """A server with sessions in it."""
    async with SessionManager(redis_server.url, **DEFAULTS) as manager:
        await visits(manager, [*NAMES, "bank/1"])
    return redis_server


def user(server: RedisServer, *rights: str) -> str:
    """Make a user with these rights and return its URL."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "agent", "reset", "on", ">pw", *rights)
    return f"redis://agent:pw@{HOST}:{server.port}/0"


@pytest.mark.parametrize("lacking", [("-eval", "-evalsha"), ("-rename",), ("-set",)], ids=["EVAL", "RENAME", "SET"])
async def test_a_command_that_is_not_allowed_stops_no_other(stored: RedisServer, lacking: tuple[str, ...]) -> None:
    """Without EVAL, or a command that a script runs, no session is saved, and every one is reused."""
    url = user(stored, "~browser:*", "+@all", *lacking)
    async with SessionManager(url, **DEFAULTS, close_timeout=0.1) as manager:
        for name in NAMES:
            found = await visit(manager, name)
            assert (found.outcome, found.saved) == (Outcome.REUSED, SaveOutcome.PENDING)
        assert breakers(manager) == {"closed"}


async def test_a_key_that_is_not_allowed_stops_no_other(stored: RedisServer) -> None:
    """A fingerprint outside of the user's prefix is `auth` each time, and all others are reused."""
    url = user(stored, "~browser:*shop/*", "~browser:deadlines:*", "+@all")
    async with SessionManager(url, **DEFAULTS, close_timeout=0.1) as manager:
        for name in NAMES:
            assert (await visit(manager, "bank/1", save=False)).outcome is Outcome.AUTH
            assert (await visit(manager, name)).outcome is Outcome.REUSED
        assert breakers(manager) == {"closed"}


async def test_a_wrong_password_is_auth_at_every_enter(stored: RedisServer) -> None:
    """The store is not asked for a while, and the outcome still names the reason."""
    user(stored, "~*", "+@all")
    async with SessionManager(f"redis://agent:wrong@{HOST}:{stored.port}/0", **DEFAULTS, close_timeout=0.1) as manager:
        found = [await visit(manager, save=False) for _ in range(5)]
        assert outcomes(found) == {"auth": 5}
        assert breakers(manager) == {"open"}


@pytest.mark.cluster
async def test_a_wrong_password_is_auth_on_a_cluster(cluster: RedisCluster) -> None:
    """Also before a node has told which slots it serves. So is a missing right to ask for that."""
    for node in cluster.nodes:
        user(node, "~*", "+@all", "-cluster")
    places = cluster.url.partition("://")[2]
    for password, error in (("wrong", StoreAuthError), ("pw", StorePermissionError)):
        url = f"redis+cluster://agent:{password}@{places}"
        async with SessionManager(url, **DEFAULTS, close_timeout=0.1) as manager:
            assert outcomes([await visit(manager, save=False) for _ in range(5)]) == {"auth": 5}
            with pytest.raises(error):
                await reusable_session("shop", manager=manager, strict=True).__aenter__()


async def test_a_wrong_password_is_auth_of_sentinels_too() -> None:
    """The sentinels have users of their own."""
    with SentinelGroup(replicas=0, sentinels=1) as group:
        with group.sentinels[0].client() as client:
            client.execute_command("ACL", "SETUSER", "default", ">pw")
        async with SessionManager(f"{group.url}?sentinel_password=wrong", **DEFAULTS, close_timeout=0.1) as manager:
            assert outcomes([await visit(manager, save=False) for _ in range(5)]) == {"auth": 5}
            assert breakers(manager) == {"open"}


@pytest.mark.alone("default budgets beside 120 saves that have 0.3 s")
async def test_saves_with_little_time_left_open_no_breaker(proxy: FaultProxy) -> None:
    """One busy session's queue uses its budget up. What is cut off then says nothing about the server."""
    async with SessionManager(proxy.url, **DEFAULTS, save_timeout=0.3, close_timeout=0.1) as manager:
        await visits(manager, ["hot", *NAMES])
        proxy.latency = 0.03
        numbers = itertools.count()

        async def hot() -> None:
            async with reusable_session("hot", manager=manager) as session:
                session.data[f"k{next(numbers) % 20}"] = next(numbers)

        busy = [asyncio.create_task(hot()) for _ in range(120)]
        for name in NAMES:
            found = await visit(manager, name)
            assert (found.outcome, found.saved) == (Outcome.REUSED, SaveOutcome.SAVED)
        await asyncio.gather(*busy)
        assert breakers(manager) == {"closed"}


@pytest.mark.cluster
async def test_a_slot_that_moves_opens_no_breaker(cluster: RedisCluster) -> None:
    """Keys of one slot are on two nodes for a while: its saves wait, the node's other sessions do not notice."""
    source = cluster.primary_of("browser:session:shop/1")
    target = next(node for node in cluster.nodes[:3] if node is not source)
    slot = redis.crc.key_slot(b"browser:session:shop/1")
    neighbours = [f"n/{number}" for number in range(60)]
    neighbours = [name for name in neighbours if cluster.primary_of(f"browser:session:{name}") is source]
    patience = {"attempt_timeout": 5.0, "restore_timeout": 15.0, "save_timeout": 15.0}
    async with SessionManager(cluster.url, **DEFAULTS, **patience) as manager:
        await visits(manager, ["shop/1", *neighbours])
        with source.client() as old, target.client() as new:
            ids = {
                node: str(client.execute_command("CLUSTER", "MYID"), "ascii")
                for node, client in ((source, old), (target, new))
            }
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
            try:
                for _ in range(6):
                    await visit(manager, "shop/1")
                    found = await visits(manager, neighbours)
                    assert outcomes(found) == {"reused": len(neighbours)}
                    assert {one.saved for one in found} == {SaveOutcome.SAVED}
                assert breakers(manager) == {"closed"}
            finally:
                for client in (old, new):
                    client.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
                await asyncio.sleep(0)
