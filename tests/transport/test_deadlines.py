"""One deadline for an enter, whatever the store does and however many wait for it."""

from __future__ import annotations

import asyncio
import time

import pytest

from session_reuse import Outcome, SaveOutcome, SessionManager, reusable_session
from tests.harness.fault_proxy import Fault, FaultProxy
from tests.harness.lag import Lag
from tests.harness.servers import RedisServer
from tests.transport.visits import DEFAULTS, Visit, visit, visits

pytestmark = pytest.mark.alone("an enter may exceed its budget by 0.06 s")

LEEWAY = 0.06
"""Seconds for the work of so many agents that end at once."""


def overrun(found: list[Visit], budget: float, lag: Lag) -> float:
    """Return how much longer than its budget the longest enter took, without the machine's own delays."""
    return max(one.entered_in - lag.since(one.began) for one in found) - budget


@pytest.mark.parametrize(
    ("latency", "agents", "settings"),
    [
        (0.35, 64, {"attempt_timeout": 0.4, "restore_timeout": 1.0}),
        (0.13, 64, {}),
        (0.45, 1, {"attempt_timeout": 0.5}),
        (0.045, 64, {"attempt_timeout": 0.05, "restore_timeout": 0.1}),
        (0.13, 600, {}),
    ],
)
async def test_an_enter_ends_within_its_budget(
    proxy: FaultProxy, lag: Lag, latency: float, agents: int, settings: dict[str, float]
) -> None:
    """Queues, a second question, retries: no layer multiplies the time."""
    async with SessionManager(proxy.url, **DEFAULTS, close_timeout=0.1, **settings) as manager:
        await visit(manager, save=False)
        proxy.latency = latency
        found = await visits(manager, [f"shop/{number}" for number in range(agents)], save=False)
        proxy.latency = 0.0
        assert overrun(found, manager.config.restore_timeout, lag) < LEEWAY


@pytest.mark.parametrize("fault", [Fault.BLACK_HOLE, Fault.SYN_BLACK_HOLE, Fault.REFUSE, Fault.RESET])
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
async def test_an_enter_ends_within_its_budget_when_the_store_is_gone(
    proxy: FaultProxy, lag: Lag, fault: Fault, warm: bool
) -> None:
    """Also while connections are opened, by the first agent and by the fiftieth."""
    async with SessionManager(proxy.url, **DEFAULTS, close_timeout=0.1) as manager:
        if warm:
            await visit(manager, save=False)
        await proxy.switch(fault)
        if fault is Fault.RESET:  # which is for new connections only
            proxy.cut()
        found = await visits(manager, [f"shop/{number}" for number in range(50)], save=False)
        assert overrun(found, manager.config.restore_timeout, lag) < LEEWAY
        assert all(one.outcome.value in {"timeout", "unavailable", "circuit_open"} for one in found)


async def test_a_dripping_reply_does_not_hold_an_agent_up(proxy: FaultProxy, lag: Lag) -> None:
    """Progress lengthens an attempt, but not beyond the budget."""
    async with SessionManager(proxy.url, **DEFAULTS, compression="none", close_timeout=0.1) as manager:
        await visit(manager, pad="x" * 20_000)
        proxy.drip, proxy.tick = 50, 0.01
        found = [await visit(manager, save=False)]
        assert found[0].outcome.value == "timeout"
        assert overrun(found, manager.config.restore_timeout, lag) < LEEWAY


STALL = 0.6
"""Seconds for which the event loop is held up: longer than the budgets of these tests."""


async def test_a_stall_of_the_event_loop_takes_nothing_from_the_budget_of_an_enter(redis_server: RedisServer) -> None:
    """The loop is late between the two requests of an enter by affinity, and the session is reused."""
    async with SessionManager(redis_server.url, **DEFAULTS) as manager:
        async with reusable_session("shop/1", "agent", manager=manager) as session:
            session.data["n"] = 1
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, time.sleep, STALL)
        async with reusable_session(agent_id="agent", manager=manager) as session:
            assert session.outcome is Outcome.REUSED


async def test_a_stall_of_the_event_loop_takes_nothing_from_the_budget_of_a_save(redis_server: RedisServer) -> None:
    """The loop is late between the requests of a save that meets a conflict, and the change is merged."""
    settings = {**DEFAULTS, "save_timeout": 0.5, "restore_timeout": 0.4}
    async with (
        SessionManager(redis_server.url, **settings) as manager,
        SessionManager(redis_server.url, **settings) as other,
    ):
        await visit(manager)
        async with reusable_session("shop/1", manager=manager) as session:
            await visit(other)
            session.data["m"] = 1
            asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, time.sleep, STALL)
        assert session.save_outcome is SaveOutcome.MERGED
