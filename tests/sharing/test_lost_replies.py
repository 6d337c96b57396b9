"""Replies that never come and writes that come too late, through a proxy that fails on command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from session_reuse import SaveOutcome, SessionManager, reusable_session
from tests.harness.fault_proxy import Cut, FaultProxy
from tests.harness.polling import until
from tests.harness.servers import HOST, RedisServer
from tests.harness.stored import header_in


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[FaultProxy]:
    """Stand in front of the empty shared server."""
    async with FaultProxy((HOST, redis_server.port)) as running:
        yield running


@pytest.fixture
async def through_proxy(proxy: FaultProxy) -> AsyncIterator[SessionManager]:
    """A manager that reaches the server through the proxy, with sessions stored and all scripts known."""
    async with SessionManager(proxy.url, registry=CollectorRegistry(), attempt_timeout=1.0, lanes=1) as manager:
        for number in range(2):
            async with reusable_session("shop", "agent", manager=manager) as session:
                session.data["n"] = number
        yield manager


def version(server: RedisServer) -> int:
    """Return how many saves the stored session counts."""
    with server.client() as client:
        return header_in(client.get("browser:session:shop")).version


@pytest.mark.parametrize("how", [Cut.HANG, Cut.RESET, Cut.CLOSE])
async def test_a_save_whose_reply_is_lost_counts_once(
    redis_server: RedisServer, proxy: FaultProxy, through_proxy: SessionManager, how: Cut
) -> None:
    """The server has applied it and the client never knew: the retry is recognised, and nothing is merged twice."""
    before = version(redis_server)
    async with reusable_session("shop", "agent", manager=through_proxy) as session:
        session.data["n"] = 10
        proxy.drop_replies(how=how, of="EVALSHA")
    assert proxy.cuts == 1
    assert session.save_outcome is SaveOutcome.SAVED
    assert version(redis_server) == before + 1


async def test_a_save_that_waits_after_a_lost_reply_counts_once(
    redis_server: RedisServer, proxy: FaultProxy, through_proxy: SessionManager
) -> None:
    """With every retry's reply lost as well it waits in memory, gets through later, and still counts once."""
    before = version(redis_server)
    async with reusable_session("shop", "agent", manager=through_proxy) as session:
        session.data["n"] = 10
        proxy.drop_replies(100, how=Cut.RESET, of="EVALSHA")
    assert session.save_outcome is SaveOutcome.PENDING
    await proxy.heal()
    await until(lambda: through_proxy.stats().pending == 0, message="the save gets through")
    assert version(redis_server) == before + 1


async def test_a_save_that_is_made_again_replaces_nothing_later(
    redis_server: RedisServer, proxy: FaultProxy, through_proxy: SessionManager, manager: SessionManager
) -> None:
    """Its reply is lost, and so many others save meanwhile that the stored header does not name it any more."""
    before = version(redis_server)
    async with reusable_session("shop", "agent", manager=through_proxy) as session:
        session.data["n"] = 10
        proxy.drop_replies(how=Cut.HANG, of="EVALSHA")
        saving = asyncio.create_task(session.checkpoint())
        await until(lambda: version(redis_server) == before + 1, message="the save is applied")
        for number in range(5):
            async with reusable_session("shop", manager=manager) as other:
                other.data["n"] = 20 + number
        await saving
    async with reusable_session("shop", manager=manager) as found:
        assert found.data["n"] == 24


@asynccontextmanager
async def held_up(proxy: FaultProxy) -> AsyncIterator[None]:
    """Hold up what clients send, and let it land at the end, also what was given up. Nothing that is sent later lands."""
    landing = asyncio.Event()

    async def hold(_: list[str]) -> None:
        await (asyncio.Event() if landing.is_set() else landing).wait()

    proxy.on_commands = hold
    yield
    reached = proxy.uploaded
    landing.set()
    await until(lambda: proxy.uploaded > reached, message="the late write lands")


async def test_a_write_that_lands_late_is_refused(
    redis_server: RedisServer, proxy: FaultProxy, manager: SessionManager
) -> None:
    """It was given up and is still on its way while another saves: when it lands it changes nothing newer."""
    async with reusable_session("shop", manager=manager) as first:
        first.data["n"] = "first"
    slow = {"attempt_timeout": 2.0, "save_timeout": 0.5, "close_timeout": 0.1, "registry": None}
    async with SessionManager(proxy.url, **slow) as late, reusable_session("shop", manager=late) as session:  # type: ignore[arg-type]
        session.data["n"] = "late"
        async with held_up(proxy):
            assert await session.checkpoint() is SaveOutcome.PENDING
            session.discard()
            async with reusable_session("shop", manager=manager) as other:
                other.data["n"] = "newer"
            assert other.save_outcome is SaveOutcome.SAVED
            stored = version(redis_server)
        async with reusable_session("shop", manager=manager) as found:
            assert found.data == {"n": "newer"}
        assert version(redis_server) == stored


async def test_a_late_write_does_not_undo_an_invalidation(proxy: FaultProxy, manager: SessionManager) -> None:
    """A first save on its way when the session is invalidated everywhere brings nothing to life."""
    slow = {"attempt_timeout": 2.0, "save_timeout": 0.5, "close_timeout": 0.1, "registry": None}
    async with SessionManager(proxy.url, **slow) as late, reusable_session("shop", manager=late) as session:  # type: ignore[arg-type]
        session.data["n"] = 1
        async with held_up(proxy):
            assert await session.checkpoint() is SaveOutcome.PENDING
            session.discard()
            await manager.evict("shop")
        assert await manager.restore("shop") is None
