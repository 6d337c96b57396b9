"""Deadlines while the event loop is held up, and while it is not."""

from __future__ import annotations

import asyncio
import time

import pytest

from session_reuse.store.watch import Watch


async def test_a_silent_store_is_given_up_in_time() -> None:
    """Work that never ends is cancelled at its deadline, and its task can go on."""
    watch = Watch()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await watch.within(watch.deadline(0.05), asyncio.get_running_loop().create_future())
    assert 0.045 < time.monotonic() - began < 1.0
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_busy_loop_is_not_a_dead_store() -> None:
    """Replies that arrived while the loop was held up for longer than the timeout are still taken."""
    watch, loop = Watch(), asyncio.get_running_loop()
    reply = loop.create_future()
    loop.call_later(0.01, reply.set_result, "there")
    loop.call_soon(time.sleep, 0.3)
    assert await watch.within(watch.deadline(0.05), reply) == "there"


async def test_a_cancellation_of_the_callers_own_stays_one() -> None:
    """Who cancels a task that waits gets a cancelled task, not one that timed out."""
    watch = Watch()

    async def wait() -> None:
        await watch.within(watch.deadline(5.0), asyncio.get_running_loop().create_future())

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nothing_in_flight_costs_nothing() -> None:
    """The timer ends with the last that it watches."""
    watch = Watch()
    await watch.within(watch.deadline(1.0), asyncio.sleep(0))
    loop = asyncio.get_running_loop()
    give_up = loop.time() + 5.0
    while watch._timer is not None and loop.time() < give_up:
        await asyncio.sleep(0.005)
    assert watch._timer is None


async def test_work_that_turns_our_cancellation_into_its_own_error_has_timed_out() -> None:
    """A client that answers a cancellation with an error of its own does not hide that time was up."""
    watch = Watch()

    async def stubborn() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise ConnectionError from None

    with pytest.raises(TimeoutError):
        await watch.within(watch.deadline(0.02), stubborn())
