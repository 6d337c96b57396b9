"""Saves that wait are written side by side, at a pace, and one server or session does not hold up the others."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from session_reuse import SaveOutcome
from session_reuse.testing import Fault, FaultyStore, MemoryStore
from tests.harness.polling import until
from tests.harness.probes import parts_of
from tests.lifecycle.worlds import NAME, Process, processes, stored

MANY = 12


class Slow(FaultyStore):
    """A store that holds operations of one kind back until it is told to go on, and counts them."""

    def __init__(self, store: Any, held: str) -> None:
        super().__init__(store)
        self.held = held
        self.go_on = asyncio.Event()
        self.inside = self.most = 0

    def __getattr__(self, name: str) -> Any:
        """Return an operation of the store within, behind the hold."""
        work = super().__getattr__(name)
        return partial(self.hold, work) if name == self.held else work

    async def hold(self, work: Any, *args: Any, **options: Any) -> Any:
        """Do the work once the hold has ended."""
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.go_on.wait()
        finally:
            self.inside -= 1
        return await work(*args, **options)


async def left_in_an_outage(process: Process, count: int) -> None:
    """Leave so many sessions whose saves wait."""
    process.cut()
    for number in range(count):
        async with process.enter(f"shop.example/{number}") as session:
            session.data["n"] = number
        assert session.save_outcome is SaveOutcome.PENDING


async def test_saves_that_wait_are_written_side_by_side() -> None:
    """A commit that takes long, for WAIT or for its size, does not make the next session wait."""
    memory = MemoryStore()
    async with processes(memory, 1, save_timeout=120.0) as (one,):
        await left_in_an_outage(one, MANY)
        one.way = slow = Slow(memory, "commit")
        (await parts_of(one.manager)).guarded.store = slow
        (await parts_of(one.manager)).guarded.at().write.reset()
        # A failed flush doubles the pause between two sessions, to 2 s in the end, and a busy machine sees many of them.
        await until(lambda: slow.inside > MANY / 2, message="several commits are under way at once")
        slow.go_on.set()
        await until(lambda: one.manager.stats().pending == 0, message="all are written")
        assert slow.most <= 16
        assert one.lost == []


async def test_a_close_writes_side_by_side_what_waits() -> None:
    """The budget of the close is for all sessions together."""
    memory = MemoryStore()
    one = Process(memory, save_timeout=120.0, close_timeout=120.0)
    await left_in_an_outage(one, MANY)
    one.way = slow = Slow(memory, "commit")
    (await parts_of(one.manager)).guarded.store = slow
    closing = asyncio.ensure_future(one.manager.aclose())
    await until(lambda: slow.inside > MANY / 2, message="several commits are under way at once")
    slow.go_on.set()
    await closing
    assert one.lost == []


async def test_nothing_of_a_session_is_reused_that_its_process_has_invalidated() -> None:
    """An agent entered with it, in an outage, while the invalidation was under way: its save is stale, and none starts from it."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await one.log_in("old", n=1)
        slow = Slow(memory, "invalidate")
        (await parts_of(one.manager)).guarded.store = slow
        evicting = asyncio.ensure_future(one.manager.evict(NAME))
        await until(lambda: slow.inside == 1, message="the invalidation is under way")
        async with one.enter() as meanwhile:
            assert meanwhile.reused
            slow.go_on.set()
            assert await evicting
            slow.fail = Fault.UNAVAILABLE
        assert meanwhile.save_outcome is SaveOutcome.STALE
        async with one.enter() as session:
            assert not session.reused
            session.discard()
    assert memory.peek(NAME) is None


async def test_more_sessions_may_wait_than_a_process_usually_has() -> None:
    """5,000 agents that leave in an outage lose nothing: what bounds them is bytes."""
    memory = MemoryStore()
    async with processes(memory, 1, close_timeout=20.0) as (one,):
        await left_in_an_outage(one, 300)
        assert one.manager.stats().pending == 300
        assert one.lost == []
        one.heal()
    assert stored(memory, "shop.example/299").data == {"n": 299}
    assert one.lost == []


async def test_a_save_whose_agent_was_cancelled_behind_an_earlier_one_is_reported() -> None:
    """It was in the queue of its process, not in the outbox. Refused later, it is not lost without a word."""
    memory = MemoryStore()
    async with processes(memory, save_timeout=20.0) as (one, other):
        await other.log_in("stored")
        (await parts_of(one.manager)).guarded.store = slow = Slow(memory, "commit")
        async with one.enter() as behind:
            behind.data["behind"] = 1
            async with one.enter() as ahead:
                ahead.data["ahead"] = 1
                saving = asyncio.ensure_future(ahead.checkpoint())
                await until(lambda: slow.inside == 1, message="the earlier save is on its way")
                waiting = asyncio.ensure_future(behind.checkpoint())
                replica = (await parts_of(one.manager)).writer.replicas.of(NAME)
                await until(lambda: bool(replica.arriving), message="the later save is behind it")
                waiting.cancel()
                await asyncio.wait({waiting})
                ahead.discard()
            behind.discard()
            await other.manager.evict(NAME)
            slow.go_on.set()
            assert await saving is SaveOutcome.STALE
            assert await behind.settled() is SaveOutcome.STALE
        await until(lambda: one.lost != [], message="the later save is reported")
        assert [name for name, _ in one.lost] == [NAME]
        assert one.manager.stats().lost == 1
