"""Connections that have died without a word: a login is not lost, and a dead server is noticed as soon as ever."""

from __future__ import annotations

import asyncio

import pytest

from session_reuse import Outcome, SaveOutcome, SessionManager
from tests.harness.fault_proxy import Cut, FaultProxy
from tests.harness.lag import Lag
from tests.harness.servers import RedisCluster, RedisServer
from tests.transport.visits import DEFAULTS, breakers, outcomes, visit, visits

pytestmark = pytest.mark.alone("an enter has 0.3 s, and a silent server is noticed within 0.15 s")

NAMES = [f"shop/{number}" for number in range(30)]


@pytest.mark.parametrize("at_once", [1, 30])
@pytest.mark.parametrize("save", [False, True], ids=["enter", "enter and save"])
async def test_a_half_open_connection_costs_no_login(proxy: FaultProxy, lag: Lag, at_once: int, save: bool) -> None:
    """A balancer has forgotten all connections: the same commands go out on a fresh one, within one attempt."""
    async with SessionManager(proxy.url, **DEFAULTS) as manager:
        await visits(manager, NAMES)
        for _ in range(3):
            proxy.cut(Cut.HANG)
            found = await visits(manager, NAMES[:at_once], save=save)
            assert outcomes(found) == {"reused": at_once}
            assert {one.saved for one in found} == ({SaveOutcome.SAVED} if save else {None})
            slowest = max(found, key=lambda one: one.entered_in)
            assert slowest.entered_in - lag.since(slowest.began) < 0.3
        assert breakers(manager) == {"closed"}


async def test_connections_that_die_while_others_answer_blame_nobody(proxy: FaultProxy) -> None:
    """The server speaks on another connection, so what was on the dead one is sent again."""
    async with SessionManager(proxy.url, **DEFAULTS) as manager:
        await visits(manager, NAMES)
        for _ in range(6):
            proxy.cut_replies(0, Cut.HANG, times=1)
            found = await visits(manager, NAMES, save=False)
            assert outcomes(found) == {"reused": len(NAMES)}
        assert breakers(manager) == {"closed"}


async def given_back(monkeypatch: pytest.MonkeyPatch, manager: SessionManager) -> None:
    """Use the store, and wait until the idle connections are in their pool."""
    monkeypatch.setattr("session_reuse._store.redis.batching._IDLE_FOR", 0.05)
    await visits(manager, NAMES)
    await asyncio.sleep(0.3)


async def test_connections_that_die_in_the_pool_cost_no_login(
    proxy: FaultProxy, lag: Lag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has used them for a while, and a balancer has forgotten all of them meanwhile."""
    async with SessionManager(proxy.url, **DEFAULTS) as manager:
        for _ in range(3):
            await given_back(monkeypatch, manager)
            proxy.cut(Cut.HANG)
            found = [await visit(manager, name, save=False) for name in NAMES[:5]]
            assert outcomes(found) == {"reused": 5}
            assert max(one.entered_in - lag.since(one.began) for one in found) < 0.3
        assert breakers(manager) == {"closed"}


async def test_connections_that_the_server_has_closed_cost_no_login(
    servers: RedisServer | RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `timeout` for idle connections has passed, or it was restarted."""
    async with SessionManager(servers.url, **DEFAULTS) as manager:
        for _ in range(3):
            await given_back(monkeypatch, manager)
            for server in servers.nodes if isinstance(servers, RedisCluster) else [servers]:
                with server.client() as client:
                    client.execute_command("CLIENT", "KILL", "TYPE", "normal")
            found = await visits(manager, NAMES, save=False)
            assert outcomes(found) == {"reused": len(NAMES)}
        assert breakers(manager) == {"closed"}


async def test_a_frozen_server_is_noticed_after_one_attempt(own_redis: RedisServer, lag: Lag) -> None:
    """The second connection does not lengthen the wait: 150 ms, and after a few agents none at all."""
    async with SessionManager(own_redis.url, **DEFAULTS, close_timeout=0.1) as manager:
        await visits(manager, NAMES)
        own_redis.pause()
        try:
            found = await visits(manager, NAMES[:5], save=False)
            assert outcomes(found) == {"timeout": 5}
            assert max(one.entered_in - lag.since(one.began) for one in found) < 0.25
            assert (await visit(manager, save=False)).outcome is Outcome.CIRCUIT_OPEN
        finally:
            own_redis.resume()


async def test_a_server_that_does_not_end_its_tls_connections_disturbs_no_close() -> None:
    """It is frozen. redis-py gives up before we do, as the URL gives it less time, and raises."""
    with RedisServer(tls=True) as server:
        manager = SessionManager(f"{server.url}&socket_connect_timeout=0.1", connect_timeout=5.0)
        await visits(manager, NAMES[:1])
        server.pause()
        await manager.aclose()
        server.resume()
