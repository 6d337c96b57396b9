"""`pending` is a promise: a save that waits is written, merged, or reported, and its agent can wait for that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from session_reuse import BrowserSession, SaveOutcome
from session_reuse._telemetry import Event
from session_reuse.pytest_plugin import LoggedEvent
from session_reuse.testing import Fault, MemoryStore, assert_fresh, state_with_cookie
from tests.harness.probes import parts_of
from tests.lifecycle.worlds import NAME, Process, processes, stored


async def waiting(process: Process, name: str = NAME, **data: Any) -> BrowserSession:
    """Leave a session whose save waits."""
    process.cut()
    async with process.enter(name) as session:
        session.data.update(data or {"n": 1})
    assert session.save_outcome is SaveOutcome.PENDING
    return session


async def test_before_the_first_save_there_is_nothing_to_wait_for() -> None:
    """Neither a session of one's own nor one that was just entered has an outcome."""
    assert await BrowserSession(NAME).settled() is None
    async with processes(MemoryStore(), 1) as (one,), one.enter() as session:
        assert await session.settled() is None
        session.discard()


async def test_a_save_that_was_written_at_once_is_settled() -> None:
    """The outcome is the one that the exit has told."""
    async with processes(MemoryStore(), 1) as (one,):
        async with one.enter() as session:
            session.data["n"] = 1
            assert await session.checkpoint() is SaveOutcome.SAVED
            assert await session.settled() is SaveOutcome.SAVED
        assert await session.settled() is SaveOutcome.UNCHANGED


async def test_a_save_that_becomes_too_large_beside_another_says_so() -> None:
    """The reason of the loss is its size, not a lease that was never there."""
    memory = MemoryStore()
    async with processes(memory, max_state_bytes=3000) as (one, other):
        await one.log_in()
        session = await waiting(one, mine="x" * 1800)
        async with other.enter() as second:
            second.data["theirs"] = "y" * 1100
        assert await other.manager.restore(NAME) is not None
        one.heal()
        assert await session.settled() is SaveOutcome.SKIPPED
        ((_, why),) = one.lost
        assert "max_state_bytes" in why


async def test_a_save_that_waits_is_settled_when_the_store_is_back() -> None:
    """`settled` waits until then."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        session = await waiting(one, n=1)
        settling = asyncio.ensure_future(session.settled())
        await asyncio.sleep(0)
        assert not settling.done()
        one.heal()
        assert await settling is SaveOutcome.SAVED
        assert one.lost == []
    assert stored(memory).data == {"n": 1}


async def test_every_save_of_a_long_outage_is_settled() -> None:
    """Saves that were combined meanwhile come to the same end, and each agent hears of its own."""
    async with processes(MemoryStore(), 1) as (one,):
        sessions = [await waiting(one, **{f"note-{number}": number}) for number in range(20)]
        settling = [asyncio.ensure_future(session.settled()) for session in sessions]
        one.heal()
        outcomes = await asyncio.gather(*settling)
        assert set(outcomes) <= {SaveOutcome.SAVED, SaveOutcome.MERGED}
        found = await one.manager.restore(NAME)
        assert found is not None
        assert found.data == {f"note-{number}": number for number in range(20)}


async def test_a_close_during_the_outage_reports_what_is_lost() -> None:
    """Nothing that waits is dropped without a word: `settled`, `on_lost` and the statistics say so."""
    one = Process(MemoryStore(), close_timeout=0.05)
    session = await waiting(one)
    settling = asyncio.ensure_future(session.settled())
    await one.manager.aclose()
    assert await settling is SaveOutcome.LOST
    assert [fingerprint for fingerprint, _ in one.lost] == [NAME]
    assert one.manager.stats().lost == 1


async def test_what_changes_nothing_is_not_reported_as_lost() -> None:
    """An agent that left the session as it was has lost no work."""
    one = Process(MemoryStore(), close_timeout=0.05)
    await one.log_in()
    one.cut()
    async with one.enter() as session:
        pass
    assert session.save_outcome is SaveOutcome.PENDING
    await one.manager.aclose()
    assert await session.settled() is SaveOutcome.LOST
    assert one.lost == []
    assert one.manager.stats().lost == 0


@pytest.mark.parametrize("leaves", [False, True], ids=["while it writes", "while an agent leaves"])
async def test_a_cancelled_close_reports_what_is_lost(leaves: bool) -> None:
    """It has no second chance, and neither have saves that are made after it."""
    one, asked = Process(MemoryStore(), close_timeout=60.0), asyncio.Event()

    async def verify(_session: BrowserSession) -> bool:
        asked.set()
        return await asyncio.Event().wait()

    async def leave() -> None:
        async with one.enter("leaving", verify=verify) as session:
            session.data["n"] = 1

    session = await waiting(one)
    settling = asyncio.ensure_future(session.settled())
    if leaves:
        leaving = asyncio.ensure_future(leave())
        await asked.wait()
    async with one.enter("late") as late:
        late.data["n"] = 1
        closing = asyncio.ensure_future(one.manager.aclose())
        await asyncio.sleep(0.01)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
    async with asyncio.timeout(5.0):
        assert await settling is SaveOutcome.LOST
    assert late.save_outcome is SaveOutcome.LOST
    if leaves:
        await asyncio.gather(leaving, return_exceptions=True)
    assert {NAME, "late"} <= {fingerprint for fingerprint, _ in one.lost}
    assert one.manager.stats().lost == len(one.lost)


async def test_a_close_after_the_outage_writes_what_waits() -> None:
    """The close is the last chance, and uses it."""
    memory = MemoryStore()
    one = Process(memory)
    session = await waiting(one, n=1)
    one.heal()
    await one.manager.aclose()
    assert await session.settled() is SaveOutcome.SAVED
    assert memory.peek(NAME) is not None
    assert one.lost == []


@pytest.mark.parametrize("bound", ["pending_max", "pending_max_bytes"])
async def test_what_gives_way_to_others_is_reported(bound: str) -> None:
    """Beyond the bounds of memory the save that waits longest is given up, and its agent hears of it."""
    config: dict[str, Any] = {"pending_max": 2} if bound == "pending_max" else {"pending_max_bytes": 4_600}
    async with processes(MemoryStore(), 1, close_timeout=0.05, **config) as (one,):
        first = await waiting(one, "shop.example/0", note="x" * 800)
        settling = asyncio.ensure_future(first.settled())
        for number in range(1, 3):
            await waiting(one, f"shop.example/{number}", note="x" * 800)
        assert await settling is SaveOutcome.LOST
        assert [fingerprint for fingerprint, _ in one.lost] == ["shop.example/0"]
        assert one.manager.stats().lost == 1
        assert one.manager.stats().pending == 2


async def test_what_gave_way_is_saved_again_by_the_next_save_of_its_agent() -> None:
    """It was reported as lost. The agent still has it, and its exit with the store back brings it, also as the only change."""
    memory = MemoryStore()
    async with processes(memory, 1, pending_max=1) as (one,):
        await one.log_in()
        async with one.enter(agent="first") as session:
            one.cut()
            session.data["n"] = 1
            assert await session.checkpoint() is SaveOutcome.PENDING
            session.data["m"] = 2
            assert await session.checkpoint() is SaveOutcome.PENDING
            await waiting(one, "shop.example/other", n=1)
            assert await session.settled() is SaveOutcome.LOST
            one.heal()
        assert await session.settled() in {SaveOutcome.SAVED, SaveOutcome.MERGED}
        assert stored(memory).data == {"n": 1, "m": 2}


async def test_what_gave_way_is_as_old_as_it_was() -> None:
    """What another process has changed since is later, and stays."""
    memory = MemoryStore()
    async with processes(memory, pending_max=1) as (one, other):
        await one.log_in(n=0)
        async with one.enter(agent="first") as session:
            one.cut()
            session.data["n"] = 1
            assert await session.checkpoint() is SaveOutcome.PENDING
            await waiting(one, "shop.example/other", n=1)
            async with other.enter() as theirs:
                theirs.data["n"] = 2
            session.data["m"] = 1
            one.heal()
        assert await session.settled() in {SaveOutcome.SAVED, SaveOutcome.MERGED}
        assert stored(memory).data == {"n": 2, "m": 1}


async def test_a_callback_that_raises_reaches_nobody(session_reuse_events: list[LoggedEvent]) -> None:
    """`on_lost` is the application's own: whatever it raises, the agent goes on and the others are reported too."""
    told = []

    def broken(fingerprint: str, _why: str) -> None:
        told.append(fingerprint)
        raise RuntimeError("broken")

    one = Process(MemoryStore(), on_lost=broken, close_timeout=0.05)
    await waiting(one, "a")
    await waiting(one, "b")
    await one.manager.aclose()
    assert sorted(told) == ["a", "b"]
    failed = [event.fields for event in session_reuse_events if event.event == Event.CALLBACK_FAILED]
    assert sorted(str(fields["fingerprint"]) for fields in failed) == ["a", "b"]


async def test_a_cancelled_wait_cancels_no_save() -> None:
    """An agent that does not want to wait any longer loses nothing."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        session = await waiting(one, n=1)
        settling = asyncio.ensure_future(session.settled())
        await asyncio.sleep(0)
        settling.cancel()
        await asyncio.gather(settling, return_exceptions=True)
        one.heal()
        assert await session.settled() is SaveOutcome.SAVED


async def test_an_exit_that_was_interrupted_is_settled() -> None:
    """The exit goes on in the background. `settled` waits for its save, and returns what became of it."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await other.log_in("good")
        async with one.enter(exclusive=True) as late:
            late.data["n"] = 1
        assert await late.settled() is SaveOutcome.SAVED
        scope = one.enter(exclusive=True)
        late = await scope.__aenter__()
        await other.manager.evict(NAME)
        late.data["n"] = 2
        leaving = scope.__aexit__(None, None, None)
        leaving.send(None)
        with pytest.raises(KeyboardInterrupt):
            leaving.throw(KeyboardInterrupt())
        assert late.save_outcome is None
        assert await late.settled() is SaveOutcome.STALE


@pytest.mark.parametrize("in_task", [False, True])
async def test_a_verify_that_waits_for_the_last_save_does_not_wait_for_its_own_exit(*, in_task: bool) -> None:
    """`verify` runs inside the exit, and so do its tasks."""

    async def verify(session: BrowserSession) -> bool:
        await (asyncio.create_task(session.settled()) if in_task else session.settled())
        return True

    async with processes(MemoryStore(), 1, verify_timeout=5.0) as (one,):
        async with one.enter(verify=verify) as session:
            session.storage_state = state_with_cookie()
        assert await session.settled() is SaveOutcome.SAVED


async def test_an_exclusive_save_that_waited_too_long_is_refused() -> None:
    """Its lease has gone to another holder, who has saved: the late save changes nothing, and its agent hears of it."""
    memory = MemoryStore()
    async with processes(memory, lease_ttl=30.0, attempt_timeout=0.2) as (one, other):
        await other.log_in("good", x=1)
        async with one.enter(exclusive=True) as late:
            late.data["x"] = "late"
            one.cut()
        assert late.save_outcome is SaveOutcome.PENDING
        memory.advance(31)
        async with other.enter(exclusive=True) as session:
            assert session.reused
            session.data["x"] = 2
        assert session.save_outcome is SaveOutcome.SAVED
        one.heal()
        assert await late.settled() is SaveOutcome.STALE
        assert [fingerprint for fingerprint, _ in one.lost] == [NAME]
    found = stored(memory)
    assert found.data == {"x": 2}
    assert found.storage_state == state_with_cookie(value="good")


async def test_an_exclusive_save_that_waited_is_written_when_nobody_came_between() -> None:
    """Its lease was given back, and its token is still the highest."""
    memory = MemoryStore()
    async with processes(memory, 1, attempt_timeout=0.2) as (one,):
        await one.log_in("good")
        async with one.enter(exclusive=True) as late:
            late.data["late"] = 1
            one.cut()
        assert late.save_outcome is SaveOutcome.PENDING
        one.heal()
        assert await late.settled() is SaveOutcome.SAVED
        async with one.enter(exclusive=True) as session:
            assert session.data == {"late": 1}


@pytest.mark.parametrize("end", ["discard", "mark_bad", "verify"])
async def test_an_exit_that_saves_nothing_is_settled_as_skipped(end: str) -> None:
    """A checkpoint before it was saved. The last save is the exit's."""
    verdicts = iter([True, end != "verify"])
    async with processes(MemoryStore(), 1) as (one,):
        await one.log_in()
        async with one.enter(verify=lambda _: next(verdicts)) as session:
            session.data["n"] = 1
            assert await session.checkpoint() is SaveOutcome.SAVED
            if end == "discard":
                session.discard()
            if end == "mark_bad":
                session.mark_bad("captcha")
        assert session.save_outcome is await session.settled() is SaveOutcome.SKIPPED


async def exclusive_save_that_waits(one: Process) -> BrowserSession:
    """Leave an exclusive session that could not be saved, in a store that takes all requests but saves."""
    await one.log_in("good")
    async with one.enter(exclusive=True) as late:
        late.data["late"] = 1
        one.way.fail, one.way.only = Fault.UNAVAILABLE, frozenset({"commit"})
    assert late.save_outcome is SaveOutcome.PENDING
    return late


async def test_the_next_exclusive_agent_of_a_process_finds_what_waits() -> None:
    """What waits is written before the next lease is taken, which would refuse it."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        late = await exclusive_save_that_waits(one)
        one.heal()
        (await parts_of(one.manager)).guarded.at().write.reset()
        async with one.enter(exclusive=True) as session:
            assert session.data == {"late": 1}
            session.discard()
        assert await late.settled() is SaveOutcome.SAVED
        assert one.lost == []


async def test_no_new_lease_is_taken_over_a_save_that_waits() -> None:
    """It would refuse the save. An enter that cannot write it starts as with a store that is away, and nothing is lost."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        late = await exclusive_save_that_waits(one)
        async with one.enter(exclusive=True) as session:
            assert_fresh(session, "unavailable")
        one.heal()
        assert await late.settled() is SaveOutcome.SAVED
        assert one.lost == []
    assert stored(memory).data == {"late": 1}


async def test_a_new_lease_waits_for_a_save_on_its_way() -> None:
    """What waits is being written. The next exclusive agent finds it."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        late = await exclusive_save_that_waits(one)
        one.heal()
        one.way.latency = 0.05
        parts = await parts_of(one.manager)
        parts.guarded.at().write.reset()
        flushing = asyncio.ensure_future(parts.writer.flush(NAME, 1.0))
        await asyncio.sleep(0.01)
        async with one.enter(exclusive=True) as session:
            assert session.data == {"late": 1}
            session.discard()
        assert await flushing
        assert await late.settled() is SaveOutcome.SAVED


async def test_an_agent_that_waits_for_the_lease_of_its_own_process_leaves_its_save_alone() -> None:
    """The holder could not save. Its lease is free, and its save waits: the next agent writes it, or goes without."""
    memory = MemoryStore()
    async with processes(memory, 1, attempt_timeout=0.25, restore_timeout=1.0) as (one,):
        await one.log_in("good")
        async with one.enter(exclusive=True) as late:
            late.data["late"] = 1
            entering = asyncio.ensure_future(one.enter(exclusive=True, wait=5, save="never").__aenter__())
            await asyncio.sleep(0.05)
            one.way.fail, one.way.only = Fault.UNAVAILABLE, frozenset({"commit"})
        assert late.save_outcome is SaveOutcome.PENDING
        assert_fresh(await entering, "unavailable")
        one.heal()
        assert await late.settled() is SaveOutcome.SAVED
        assert one.lost == []


async def test_an_exit_without_a_lease_is_settled_as_refused() -> None:
    """A checkpoint before it was saved. The store has lost the lease, another agent has taken it, and the holder knows."""
    memory = MemoryStore()
    async with processes(memory, lease_ttl=0.3) as (one, other):
        async with one.enter(exclusive=True) as session:
            session.data["n"] = 1
            assert await session.checkpoint() is SaveOutcome.SAVED
            memory.advance(100_000)
            async with other.enter(exclusive=True) as theirs:
                theirs.data["n"] = 2
                await asyncio.sleep(0.3)  # a renewal
            session.data["n"] = 3
        assert session.save_outcome is SaveOutcome.STALE
        assert await session.settled() is SaveOutcome.STALE
