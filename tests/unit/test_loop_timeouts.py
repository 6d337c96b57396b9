"""Time-outs while the event loop is late, and while it is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

import pytest

from session_reuse._resilience.loop_timeouts import LoopTimeouts
from tests.harness.polling import until

pytestmark = pytest.mark.alone("deadlines of 0.05 s")


async def within(timeouts: LoopTimeouts, seconds: float, work: Awaitable[object]) -> object:
    """Wait for work, so many seconds at most."""
    with timeouts.until(timeouts.time() + seconds):
        return await work


async def test_silence_ends_in_time() -> None:
    """Work that never ends is cancelled at its deadline, and its task can go on."""
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await within(LoopTimeouts(), 0.05, asyncio.get_running_loop().create_future())
    assert 0.045 < time.monotonic() - began < 1.0
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_busy_loop_is_not_a_dead_store() -> None:
    """Replies that arrived while the loop was late for longer than the timeout are still taken."""
    timeouts, loop = LoopTimeouts(), asyncio.get_running_loop()
    reply = loop.create_future()
    loop.call_later(0.01, reply.set_result, "there")
    loop.call_soon(time.sleep, 0.3)
    assert await within(timeouts, 0.05, reply) == "there"


@pytest.mark.parametrize(("turns", "seconds", "limit"), [(300, 0.004, 1.0), (10, 0.3, 0.15)])
async def test_the_turns_of_a_busy_loop_are_not_a_dead_store(turns: int, seconds: float, limit: float) -> None:
    """Many short turns, or the few long ones of thousands of agents, are hardly any time. Replies are read between two turns."""
    timeouts, loop = LoopTimeouts(), asyncio.get_running_loop()
    reply = loop.create_future()

    async def work() -> None:
        for _ in range(turns):
            time.sleep(seconds)  # noqa: ASYNC251  (the loop is to be busy)
            await asyncio.sleep(0)
        reply.set_result("there")

    working = asyncio.create_task(work())
    assert await within(timeouts, limit, reply) == "there"  # less than the turns take together
    await working


async def test_a_loop_that_is_always_busy_does_not_wait_for_ever() -> None:
    """Some of the time counts: a frozen store is noticed anyway."""
    timeouts, done = LoopTimeouts(), asyncio.Event()

    async def work() -> None:
        while not done.is_set():
            time.sleep(0.002)  # noqa: ASYNC251  (as above)
            await asyncio.sleep(0)

    working = asyncio.create_task(work())
    with pytest.raises(TimeoutError):
        await within(timeouts, 0.05, asyncio.get_running_loop().create_future())
    done.set()
    await working


async def test_a_cancellation_of_the_callers_own_stays_one() -> None:
    """Who cancels a task that waits gets a cancelled task, not one that timed out."""
    timeouts = LoopTimeouts()
    task = asyncio.create_task(within(timeouts, 5.0, asyncio.get_running_loop().create_future()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nothing_limited_costs_nothing() -> None:
    """The timer ends with the last limit, and the clock goes on without it."""
    timeouts = LoopTimeouts()
    await within(timeouts, 1.0, asyncio.sleep(0))
    before = timeouts.time()
    await until(lambda: timeouts._due == float("inf"), message="the timer has ended")
    await asyncio.sleep(0.02)
    assert timeouts.time() - before >= 0.02


async def test_work_that_turns_our_cancellation_into_its_own_error_has_timed_out() -> None:
    """A client that answers a cancellation with its own error does not hide that time was up."""

    async def stubborn() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise ConnectionError from None

    with pytest.raises(TimeoutError):
        await within(LoopTimeouts(), 0.02, stubborn())
