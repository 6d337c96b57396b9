"""How often a visit waits for the server, counted by a proxy that holds each reply back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from session_reuse import SaveOutcome, SessionManager, reusable_session
from tests.harness.fault_proxy import Fault, FaultProxy
from tests.harness.polling import until
from tests.harness.servers import RedisServer
from tests.harness.stored import KEYS
from tests.transport.visits import DEFAULTS, outcomes, visit, visits

NAME = "shop/1"
FAR = {**DEFAULTS, "attempt_timeout": 5.0, "restore_timeout": 10.0, "save_timeout": 10.0}
MOST_POLLS = 200
"""Commands a second with which a waiter may ask for a lease that has no end."""


@pytest.fixture
async def far(proxy: FaultProxy) -> AsyncIterator[SessionManager]:
    """A manager with open connections, loaded scripts and a stored session, 50 ms away from the store."""
    async with SessionManager(proxy.url, **FAR) as manager:
        for exclusive in (False, True, True):
            async with reusable_session(NAME, "agent", manager=manager, exclusive=exclusive) as session:
                session.data["n"] = session.data.get("n", 0) + 1
        proxy.latency = 0.05
        yield manager


async def round_trips(proxy: FaultProxy, work: Awaitable[Any]) -> tuple[int, Any]:
    """Return how often requests were sent after a reply had come, and the result. Those of one write are one."""
    delivered: set[int] = set()

    async def note(_names: list[str]) -> None:
        delivered.add(proxy.delivered)

    proxy.on_commands = note
    result = await work
    proxy.on_commands = None
    return len(delivered), result


async def test_agents_that_start_together_share_round_trips(far: SessionManager, proxy: FaultProxy) -> None:
    """None of their sessions is stored, so each looks twice. No further connection is opened for them."""
    opened = proxy.accepted
    names = [f"new/{number}" for number in range(64)]
    count, found = await round_trips(proxy, visits(far, names, save=False))
    assert outcomes(found) == {"missing": len(names)}
    assert (count, proxy.accepted) == (2, opened)


@pytest.mark.parametrize("exclusive", [False, True])
async def test_an_enter_and_a_save_are_one_round_trip_each(
    far: SessionManager, proxy: FaultProxy, exclusive: bool
) -> None:
    """Also with a lease: it comes with the state, and is given back with the save."""
    for change in (1, 0):
        scope = reusable_session(NAME, "agent", manager=far, exclusive=exclusive)
        count, session = await round_trips(proxy, scope.__aenter__())
        assert (count, session.reused) == (1, True)
        session.data["n"] += change
        count, _ = await round_trips(proxy, scope.__aexit__(None, None, None))
        assert count == 1
        assert session.save_outcome is (SaveOutcome.SAVED if change else SaveOutcome.UNCHANGED)


async def test_two_visits_are_more_than_one_round_trip(far: SessionManager, proxy: FaultProxy) -> None:
    """The counter counts."""
    count, _ = await round_trips(proxy, visit(far, NAME))
    assert count == 2


async def test_a_connection_that_takes_longer_than_an_enter_serves_the_next(proxy: FaultProxy) -> None:
    """Its set-up (here: SELECT) goes on behind the enter that has given up. No second one is opened."""
    budgets = {"connect_timeout": 5.0, "attempt_timeout": 0.15, "restore_timeout": 0.3}
    async with SessionManager(f"{proxy.url.removesuffix('0')}3", **DEFAULTS, **budgets) as manager:
        await proxy.switch(Fault.BLACK_HOLE)
        first = await visit(manager, NAME, save=False)
        assert first.outcome.degraded
        await proxy.heal()
        await until(lambda: proxy.delivered > 0)
        second = await visit(manager, NAME, save=False)
        assert not second.outcome.degraded
        assert proxy.accepted == 1


async def test_a_lease_that_never_ends_is_not_asked_for_all_the_time(redis_server: RedisServer) -> None:
    """Something else has put a value without a time to live under the lease."""
    with redis_server.client() as client:
        client.set(KEYS.of(NAME).lease, "a value of something else")
        async with SessionManager(redis_server.url, **DEFAULTS) as manager:
            waiting = asyncio.create_task(visit_exclusively(manager, wait=2.0))
            commands = [client.info("stats")["total_commands_processed"]]
            await asyncio.sleep(1.0)
            commands.append(client.info("stats")["total_commands_processed"])
            assert 0 < commands[1] - commands[0] < MOST_POLLS
            await waiting


async def visit_exclusively(manager: SessionManager, wait: float) -> None:
    """Wait for a lease that is not free."""
    async with reusable_session(NAME, manager=manager, exclusive=True, wait=wait) as session:
        session.discard()
