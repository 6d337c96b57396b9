"""Cancellation at every await of enter, exit, checkpoint and invalidate, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from session_reuse import BrowserSession, SaveOutcome, SessionManager, reusable_session
from tests.chaos.stepping import CancelAt, cancelled_at
from tests.harness.polling import until
from tests.harness.probes import breakers_of, has_probe_out, in_use, parts_of, pool_of, runtime, waiting_of
from tests.harness.servers import RedisServer

NAME = "shop.example/alice"
MOST_SUSPENSIONS = 60
Once = Callable[[int], Awaitable[bool]]


@pytest.fixture
async def manager(redis_server: RedisServer, registry: CollectorRegistry) -> AsyncIterator[SessionManager]:
    """A manager whose breakers are half-open at the next call, so that a lost permit would show."""
    async with SessionManager(redis_server.url, registry=registry) as manager:
        await manager.save(BrowserSession(NAME, "agent", data={"n": 0}))
        yield manager


def half_open(manager: SessionManager) -> None:
    """Make the next call of each direction a probe."""
    for breaker in breakers_of(manager):
        breaker.open_now(1e-9)


async def cold(manager: SessionManager) -> None:
    """Close the manager's connections, so that connecting is among the awaits."""
    await pool_of(manager).disconnect()


async def nothing_leaked(manager: SessionManager, redis_server: RedisServer) -> None:
    """No task, no lease, no permit, no connection but the idle ones."""
    services = runtime(manager)
    await until(lambda: not services.tasks, message="our tasks ended")
    for breaker in breakers_of(manager):
        assert not has_probe_out(breaker), "a permit was lost"
    with redis_server.client() as client:
        assert not client.exists(f"browser:lease:{{browser:session:{NAME}}}"), "the lease was left behind"
    pool = pool_of(manager)
    lanes = services.store.topology.lanes
    await until(lambda: in_use(pool) == lanes.connections, message="no connection was lost")
    for breaker in breakers_of(manager):
        breaker.reset()
    async with reusable_session(NAME, "agent", manager=manager) as session:
        assert session.reused
        session.discard()


async def at_every_await(once: Once) -> int:
    """Try with the first suspension, the second, and so on, until there are no more. Return how many there were."""
    for suspension in range(1, MOST_SUSPENSIONS):
        if not await once(suspension):
            return suspension - 1
    raise AssertionError("it never ends")


@pytest.mark.parametrize("exclusive", [False, True], ids=["shared", "exclusive"])
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("fingerprint", [NAME, None], ids=["named", "by affinity"])
async def test_cancelled_enter_leaves_nothing_behind(
    manager: SessionManager, redis_server: RedisServer, exclusive: bool, warm: bool, fingerprint: str | None
) -> None:
    """An enter cancelled at any await propagates the cancellation, and the next enter finds everything free."""

    async def once(suspension: int) -> bool:
        half_open(manager)
        if not warm:
            await cold(manager)
        visit = reusable_session(fingerprint, "agent", manager=manager, exclusive=exclusive)
        reached, error = await cancelled_at(visit.__aenter__(), suspension)
        if reached:
            assert isinstance(error, asyncio.CancelledError), f"suspension {suspension}: {error!r}"
        else:
            await visit.__aexit__(None, None, None)
        await nothing_leaked(manager, redis_server)
        return reached

    assert await at_every_await(once) >= 1


@pytest.mark.parametrize("exclusive", [False, True], ids=["shared", "exclusive"])
async def test_cancelled_exit_saves_all_the_same(
    manager: SessionManager, redis_server: RedisServer, exclusive: bool
) -> None:
    """An exit cancelled at any await re-raises, and the save arrives without its caller."""

    async def once(suspension: int) -> bool:
        visit = reusable_session(NAME, "agent", manager=manager, exclusive=exclusive)
        session = await visit.__aenter__()
        session.data["n"] = suspension
        half_open(manager)
        reached, error = await cancelled_at(visit.__aexit__(None, None, None), suspension)
        assert isinstance(error, asyncio.CancelledError) is reached
        await nothing_leaked(manager, redis_server)
        found = await manager.restore(NAME)
        assert found is not None
        assert found.data["n"] == suspension
        return reached

    assert await at_every_await(once) >= 1


@pytest.mark.parametrize("exclusive", [False, True], ids=["shared", "exclusive"])
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
async def test_second_cancel_keeps_the_save_for_later(
    manager: SessionManager, redis_server: RedisServer, exclusive: bool, warm: bool
) -> None:
    """The save of a cancelled body that is itself cancelled at any await waits in memory and arrives."""

    async def once(suspension: int) -> bool:
        visit = reusable_session(NAME, "agent", manager=manager, exclusive=exclusive)
        stepping = _step_leaving((await parts_of(manager)).tasks, suspension)
        session = await visit.__aenter__()
        session.data["n"] = suspension
        half_open(manager)
        if not warm:
            await cold(manager)
        first = asyncio.CancelledError()
        _, error = await cancelled_at(visit.__aexit__(type(first), first, None), MOST_SUSPENSIONS)
        reached = stepping[0].reached
        assert isinstance(error, asyncio.CancelledError) is reached
        await until(lambda: not waiting_of(manager), message="what waited was flushed")
        await nothing_leaked(manager, redis_server)
        found = await manager.restore(NAME)
        assert found is not None
        assert found.data["n"] == suspension, f"lost at suspension {suspension}"
        return reached

    assert await at_every_await(once) >= 1


def _step_leaving(tasks: Any, suspension: int) -> list[CancelAt]:
    """Have the next leaving task cancelled at a suspension."""
    spawn, made = tasks.spawn, []

    def stepping(work: Any, name: str) -> Any:
        if name != "leave":
            return spawn(work, name)
        tasks.spawn = spawn
        made.append(CancelAt(work, suspension))

        async def run() -> Any:
            return await made[0]

        return spawn(run(), name)

    tasks.spawn = stepping
    return made


async def test_bodys_own_exception_wins_over_a_cancelled_save(manager: SessionManager) -> None:
    """What the body raised comes out, whether its save works or not."""
    with pytest.raises(ZeroDivisionError):
        async with reusable_session(NAME, "agent", manager=manager) as session:
            session.data["n"] = 7
            _ = 1 / 0
    found = await manager.restore(NAME)
    assert found is not None
    assert found.data["n"] == 7


async def test_cancelled_checkpoint_loses_no_work(manager: SessionManager, redis_server: RedisServer) -> None:
    """A checkpoint cancelled at any await propagates. Its save, or the one at exit, arrives."""

    async def once(suspension: int) -> bool:
        async with reusable_session(NAME, "agent", manager=manager) as session:
            session.data["n"] = suspension
            half_open(manager)
            reached, error = await cancelled_at(session.checkpoint(), suspension)
            assert isinstance(error, asyncio.CancelledError) is reached
        assert session.save_outcome in {SaveOutcome.SAVED, SaveOutcome.MERGED, SaveOutcome.UNCHANGED}
        await until(lambda: not waiting_of(manager), message="what waited was flushed")
        await nothing_leaked(manager, redis_server)
        found = await manager.restore(NAME)
        assert found is not None
        assert found.data["n"] == suspension
        return reached

    assert await at_every_await(once) >= 1


async def test_cancelled_invalidate_never_half_deletes(manager: SessionManager, redis_server: RedisServer) -> None:
    """An invalidate cancelled at any await has deleted the session or has not, and can be repeated."""

    async def once(suspension: int) -> bool:
        await manager.save(BrowserSession(NAME, "agent", data={"n": suspension}))
        half_open(manager)
        reached, error = await cancelled_at(manager.evict(NAME, "test"), suspension)
        assert isinstance(error, asyncio.CancelledError) is reached
        await manager.evict(NAME, "again")
        assert await manager.restore(NAME) is None
        await manager.save(BrowserSession(NAME, "agent", data={"n": suspension}))
        await nothing_leaked(manager, redis_server)
        return reached

    assert await at_every_await(once) >= 1
