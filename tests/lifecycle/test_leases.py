"""The exclusive lease of an agent that is alive."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from fakeredis import FakeRedis

from session_reuse import SaveOutcome, reusable_session
from session_reuse.testing import Fault, FaultyStore, MemoryStore, memory_manager
from tests.harness.polling import until
from tests.harness.stored import KEYS
from tests.lifecycle.worlds import NAME, Process, stored

TTL = 3.0


async def test_a_store_that_is_away_at_two_beats_costs_no_lease() -> None:
    """A failed beat is repeated soon, and not at the next third of the time to live: the lease would end before that."""
    memory = MemoryStore()
    way = FaultyStore(memory, fail=Fault.UNAVAILABLE, only={"renew"}, times=7)  # all attempts of two beats
    manager, other = memory_manager(way, lease_ttl=TTL), Process(memory)
    try:
        async with reusable_session(NAME, manager=manager, exclusive=True) as session:
            session.data["n"] = 2
            await asyncio.sleep(TTL + 0.3)
            async with other.enter(exclusive=True) as refused:
                assert refused.outcome == "busy"
        assert session.save_outcome is SaveOutcome.SAVED
        assert stored(memory).data == {"n": 2}
    finally:
        await manager.aclose()
        await other.manager.aclose()


@pytest.mark.parametrize("taken", ["by nobody", "and left", "and held"])
async def test_a_lease_that_is_lost_costs_the_save_where_another_agent_had_it(taken: str) -> None:
    """A server that restarts without data, or a process that stood still: the work is stored, unless somebody took over."""
    memory = MemoryStore()
    one, other = Process(memory, lease_ttl=0.15), Process(memory)
    await one.log_in()
    async with one.manager, other.manager, AsyncExitStack() as left_last:
        async with one.enter(exclusive=True) as session:
            session.data["n"] = 1
            FakeRedis(server=memory.server).delete(KEYS.of(NAME).lease)
            await until(lambda: "renew" in one.way.calls)
            if taken == "and left":
                async with other.enter(exclusive=True) as second:
                    second.data["theirs"] = 1
            elif taken == "and held":
                second = await left_last.enter_async_context(other.enter(exclusive=True))
            await asyncio.sleep(0.1)
        assert session.save_outcome is (SaveOutcome.SAVED if taken == "by nobody" else SaveOutcome.STALE)


async def test_a_lease_that_cannot_be_given_back_does_not_prolong_the_close() -> None:
    """Its release is repeated while the store is away. The close waits for `close_timeout`, not for `save_timeout` on top."""
    one = Process(MemoryStore(), save_timeout=30.0, close_timeout=0.1)
    async with one.enter(exclusive=True) as session:
        session.data["n"] = 1
        one.cut()
    async with asyncio.timeout(15):
        await one.manager.aclose()


async def test_an_agent_waits_for_the_exit_of_the_holder_before_it_in_its_process() -> None:
    """A save of the holder that is on its way would be stale, where its lease ends first: it may still have to wait."""
    one = Process(MemoryStore(), restore_timeout=4.0, save_timeout=4.0, attempt_timeout=2.0)

    async def hold() -> SaveOutcome | None:
        async with one.enter(exclusive=True) as session:
            session.data["n"] = 1
            one.way.latency, one.way.fail, one.way.only, one.way.times = (
                0.3,
                Fault.UNAVAILABLE,
                frozenset({"commit"}),
                1,
            )
        return session.save_outcome

    first = asyncio.create_task(hold())
    await until(lambda: "commit" in one.way.calls)
    async with one.enter(exclusive=True) as session:
        assert (session.outcome, session.data) == ("reused", {"n": 1})
    assert await first is SaveOutcome.SAVED
    await one.manager.aclose()


async def test_a_lease_is_renewed_as_long_as_its_manager_is_open(caplog: pytest.LogCaptureFixture) -> None:
    """After that, our own closed connections would look like an outage of the store."""
    manager = memory_manager(FaultyStore(MemoryStore()), lease_ttl=0.3)
    async with reusable_session(NAME, manager=manager, exclusive=True) as session:
        session.discard()
        await manager.aclose()
        assert not [task for task in asyncio.all_tasks() if "heartbeat" in task.get_name()]
    assert "degraded" not in caplog.text
