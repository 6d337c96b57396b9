"""Saves of one agent that overlap, and saves after its end."""

from __future__ import annotations

import asyncio

import pytest

from session_reuse import LifecycleError, Outcome, SaveOutcome
from session_reuse.testing import MemoryStore, state_with_cookie
from tests.harness.polling import until
from tests.lifecycle.worlds import NAME, Process, login_of, processes, stored


async def on_its_way(process: Process, work: asyncio.Task[SaveOutcome], before: int) -> None:
    """Wait until a save has been sent and is not answered yet."""
    await until(lambda: process.way.calls.count("commit") > before, message="the save was sent")
    assert not work.done()


@pytest.mark.parametrize("item", ["note", "cookie"])
async def test_what_is_deleted_during_a_checkpoint_stays_deleted(item: str) -> None:
    """A checkpoint is on its way when the body deletes and ends. The exit is the later save."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await one.log_in("kept", kept=1)
        async with one.enter() as session:
            session.data["deleted"] = 1
            session.storage_state["cookies"] += state_with_cookie(name="deleted")["cookies"]
            sent = one.way.calls.count("commit")
            one.way.latency = 0.05
            task = asyncio.ensure_future(session.checkpoint())
            await on_its_way(one, task, sent)
            if item == "note":
                del session.data["deleted"]
            else:
                del session.storage_state["cookies"][-1]
        assert await task is SaveOutcome.SAVED
        assert session.save_outcome is SaveOutcome.SAVED
    found = stored(memory)
    assert len(found.storage_state["cookies"]) == (1 if item == "cookie" else 2)
    assert ("deleted" in found.data) is (item == "cookie")
    assert found.data["kept"] == 1


async def test_what_is_deleted_during_a_checkpoint_that_fails_stays_deleted() -> None:
    """The same while the store goes away: both saves wait, in their order."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await one.log_in("kept", kept=1)
        async with one.enter() as session:
            session.data["deleted"] = 1
            sent = one.way.calls.count("commit")
            one.way.latency = 0.05
            one.cut()
            task = asyncio.ensure_future(session.checkpoint())
            await on_its_way(one, task, sent)
            del session.data["deleted"]
            session.data["work"] = 1
        assert await task is SaveOutcome.PENDING
        assert session.save_outcome is SaveOutcome.PENDING
        one.heal()
        assert await session.settled() in {SaveOutcome.SAVED, SaveOutcome.MERGED, SaveOutcome.UNCHANGED}
        await until(lambda: not one.manager.stats().pending)
    assert stored(memory).data == {"kept": 1, "work": 1}


async def test_checkpoints_at_once_lose_nothing() -> None:
    """Saves of one session that overlap are written in their order, whatever each of them saw."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        async with one.enter() as session:
            saving = []
            for number in range(10):
                session.data[f"note-{number}"] = number
                saving.append(asyncio.ensure_future(session.checkpoint()))
                await asyncio.sleep(0)
            outcomes = await asyncio.gather(*saving)
        assert set(outcomes) <= {SaveOutcome.SAVED, SaveOutcome.UNCHANGED}
    assert stored(memory).data == {f"note-{number}": number for number in range(10)}


async def test_a_refused_checkpoint_is_carried_on_by_the_exit() -> None:
    """What a skipped checkpoint held is in the next save as well, if that is good."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await one.log_in("good")
        async with one.enter() as session:
            session.data["early"] = 1
            session.mark_bad("captcha")
            assert await session.checkpoint() is SaveOutcome.SKIPPED
            session.mark_good()
            session.data["late"] = 1
        assert session.save_outcome is SaveOutcome.SAVED
    assert stored(memory).data == {"early": 1, "late": 1}


async def test_a_refused_checkpoint_is_carried_on_by_the_one_after_it() -> None:
    """With what others have saved it was too large, and the next one, which is not, was made while it was on its way."""
    memory = MemoryStore()
    async with processes(memory, max_state_bytes=4000) as (one, other):
        await one.log_in()
        async with one.enter() as session:
            async with other.enter() as theirs:
                theirs.data["theirs"] = "x" * 2000
            session.data.update(early=1, large="y" * 2000)
            sent = one.way.calls.count("commit")
            one.way.latency = 0.05
            first = asyncio.ensure_future(session.checkpoint())
            await on_its_way(one, first, sent)
            del session.data["large"]
            session.data["late"] = 1
            second = asyncio.ensure_future(session.checkpoint())
            assert await first is SaveOutcome.SKIPPED
            assert await second is SaveOutcome.MERGED
            found = stored(memory).data
    assert found.pop("theirs")
    assert found == {"early": 1, "late": 1}


async def test_a_checkpoint_after_the_exit_is_an_error() -> None:
    """The session was left. A save after that is a mistake, and would store what the agent did not mean to."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        async with one.enter() as session:
            session.storage_state = state_with_cookie(value="mine")
        before = memory.peek(NAME)
        session.data["after"] = 1
        with pytest.raises(LifecycleError, match="was left before"):
            await session.checkpoint()
    assert memory.peek(NAME) == before


async def test_a_session_that_was_left_is_saved_by_its_manager() -> None:
    """`manager.save` is the way to save it after all."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        async with one.enter() as session:
            session.storage_state = state_with_cookie(value="mine")
        session.data["after"] = 1
        assert await one.manager.save(session) is SaveOutcome.SAVED
    found = stored(memory)
    assert (login_of(found), found.data) == ("mine", {"after": 1})


async def test_a_save_is_written_over_an_ancestor_after_a_fail_over() -> None:
    """The server has lost this holder's last saves. Its next save contains them, and is written in one go."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await one.log_in("good", first=1)
        ancestor = memory.peek(NAME)
        assert ancestor is not None
        async with one.enter() as session:
            for number in range(3):
                session.data[f"note-{number}"] = number
                await session.checkpoint()
            memory.put(NAME, ancestor)
            session.data["last"] = 1
            commits = one.way.calls.count("commit")
        assert session.save_outcome is SaveOutcome.SAVED
        assert one.way.calls.count("commit") == commits + 1
    assert stored(memory).data == {"first": 1, "note-0": 0, "note-1": 1, "note-2": 2, "last": 1}


async def test_a_save_is_not_written_over_what_is_no_ancestor() -> None:
    """A save of someone else that this holder has not seen is merged, however low its version is."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await one.log_in("good", first=1)
        ancestor = memory.peek(NAME)
        assert ancestor is not None
        async with one.enter() as session:
            for number in range(3):
                session.data[f"note-{number}"] = number
                await session.checkpoint()
            memory.put(NAME, ancestor)
            async with other.enter() as theirs:
                theirs.data["theirs"] = 1
            session.data["last"] = 1
        assert session.save_outcome is SaveOutcome.MERGED
    found = stored(memory)
    assert found.data["theirs"] == 1
    assert found.data["last"] == 1


async def test_an_agent_saves_again_what_a_new_login_has_replaced() -> None:
    """Its checkpoint waited, and another agent found that login not to work. The exit does not call it saved."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        async with one.enter() as session:
            one.cut()
            session.storage_state, session.data["work"] = state_with_cookie(value="doubted"), 1
            assert await session.checkpoint() is SaveOutcome.PENDING
            async with one.enter(verify=lambda given: login_of(given) == "new") as other:
                assert other.outcome is Outcome.UNVERIFIED
                other.storage_state = state_with_cookie(value="new")
                one.heal()
            await until(lambda: memory.peek(NAME) is not None, message="the new login was stored")
            assert login_of(stored(memory)) == "new"
            assert "work" not in stored(memory).data
        assert session.save_outcome is SaveOutcome.SAVED
    assert login_of(stored(memory)) == "new"
    assert stored(memory).data == {"work": 1}
