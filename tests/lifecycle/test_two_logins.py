"""An agent that never saw the stored session does not mix its login with the stored one."""

from __future__ import annotations

import asyncio

import pytest

from session_reuse import BrowserSession, LifecycleError, Outcome, ProblemKind, SaveOutcome, reusable_session
from session_reuse.testing import Fault, MemoryStore, assert_fresh, assert_reused, state_with_cookie
from tests.harness.stored import header_in
from tests.lifecycle.worlds import NAME, Process, login_of, processes, stored


async def test_the_stored_login_stays_whole_and_notes_are_merged() -> None:
    """The agent entered while the store was away. When it leaves, the store is back and holds another login."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await other.log_in("stored", stored=1)
        one.cut()
        async with one.enter() as session:
            assert_fresh(session, Outcome.UNAVAILABLE)
            session.storage_state = state_with_cookie(value="mine")
            session.data["mine"] = 1
            one.heal()
        assert session.save_outcome is SaveOutcome.MERGED
        assert [problem.kind for problem in session.problems] == [ProblemKind.NOT_TAKEN]
    found = stored(memory)
    assert (login_of(found), found.data) == ("stored", {"stored": 1, "mine": 1})


async def test_a_login_that_is_not_taken_without_notes_is_skipped() -> None:
    """Where there are no notes nothing is written at all."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await other.log_in("stored")
        before = memory.peek(NAME)
        one.cut()
        async with one.enter() as session:
            session.storage_state = state_with_cookie(value="mine")
            one.heal()
        assert session.save_outcome is SaveOutcome.SKIPPED
    assert memory.peek(NAME) == before


async def test_a_login_that_waited_and_is_not_taken_is_reported_as_lost() -> None:
    """The agent was told `pending`. What was left out of it later is not left out without a word."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await other.log_in("stored", stored=1)
        one.cut()
        async with one.enter() as session:
            session.storage_state = state_with_cookie(value="mine")
            session.data["mine"] = 1
        assert session.save_outcome is SaveOutcome.PENDING
        one.heal()
        assert await session.settled() is SaveOutcome.MERGED
        assert [fingerprint for fingerprint, _ in one.lost] == [NAME]
        assert "another login" in one.lost[0][1]
    found = stored(memory)
    assert (login_of(found), found.data) == ("stored", {"stored": 1, "mine": 1})


@pytest.mark.parametrize("by", ["mark_good", "verify"])
async def test_a_vouched_younger_login_replaces_the_stored_one_as_a_whole(by: str) -> None:
    """Many sites end the old login when a new one is made, so nothing of the old one is kept."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await other.log_in("stored", stored=1)
        await asyncio.sleep(0.5)  # a loop that is held up for a moment does not make the younger login the older one
        one.cut()
        async with one.enter(verify=(lambda _: True) if by == "verify" else None) as session:
            session.storage_state = state_with_cookie(value="mine")
            session.data["mine"] = 1
            if by == "mark_good":
                session.mark_good()
            one.heal()
        assert session.save_outcome is SaveOutcome.SAVED
        assert not session.problems
    found = stored(memory)
    assert (login_of(found), found.data) == ("mine", {"mine": 1})


async def test_a_new_login_beside_one_that_waits_is_not_mixed_with_it() -> None:
    """A login that waits is doubted by the next agent. Its new login is one of its own: what others add to the first one stays out."""
    memory, verdicts = MemoryStore(), iter([False, True, False, True])
    async with processes(memory, 1) as (one,):
        await one.log_in("stored")
        async with one.enter(verify=lambda _: next(verdicts)) as first:
            assert_fresh(first, Outcome.UNVERIFIED)
            first.storage_state = state_with_cookie(value="first")
            one.cut()
        assert first.save_outcome is SaveOutcome.PENDING
        async with one.enter() as third:
            assert login_of(third) == "first"
            async with one.enter(verify=lambda _: next(verdicts)) as second:
                assert_fresh(second, Outcome.UNVERIFIED)
                second.storage_state = state_with_cookie(value="second")
            async with one.enter() as fourth:
                assert login_of(fourth) == "second"
            third.storage_state["cookies"].append({**third.storage_state["cookies"][0], "name": "of the first"})
        one.heal()
        await second.settled()
        await third.settled()
    found = stored(memory).storage_state["cookies"]
    assert {cookie["value"] for cookie in found} == {"second"}


async def test_a_new_login_replaces_one_that_was_stored_without_a_reply() -> None:
    """It is younger than the login that it was given and has not accepted, which is stored already."""
    memory, verdicts = MemoryStore(), iter([False, True, False, True])
    async with processes(memory, 1) as (one,):
        await one.log_in("stored")
        async with one.enter(verify=lambda _: next(verdicts)) as first:
            first.storage_state = state_with_cookie(value="first")
            one.way.after = True
            one.cut()
        assert login_of(stored(memory)) == "first"
        async with one.enter(verify=lambda _: next(verdicts)) as second:
            assert_fresh(second, Outcome.UNVERIFIED)
            second.storage_state = state_with_cookie(value="second")
        one.heal()
        assert await first.settled() is SaveOutcome.SAVED
        assert await second.settled() is SaveOutcome.SAVED
    assert login_of(stored(memory)) == "second"


@pytest.mark.parametrize("new", ["login", "", "nothing but a mark"])
async def test_a_login_that_is_refused_after_a_checkpoint_is_replaced_as_a_whole(new: str) -> None:
    """A check of the browser comes after the enter: what was saved before it belongs to the old login."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await one.log_in("stored")
        created_at = header_in(memory.peek(NAME)).created_at
        async with other.enter() as holder, one.enter() as session:
            if new != "nothing but a mark":
                session.data["before"] = 1
            await session.checkpoint()
            session.start_fresh(Outcome.UNVERIFIED)
            if new == "login":
                session.storage_state = state_with_cookie(value="new")
            holder.storage_state = state_with_cookie(value="rotated")
            async with one.enter() as third:
                assert login_of(third) == "stored"
        assert session.save_outcome is (SaveOutcome.SAVED if new == "login" else SaveOutcome.SKIPPED)
    assert (header_in(memory.peek(NAME)).created_at != created_at) is (new == "login")
    assert login_of(stored(memory)) == ("new" if new == "login" else "rotated")


async def test_a_vouched_login_is_not_younger_than_one_saved_after_its_enter() -> None:
    """Another agent saved to the stored login after ours had begun: it may be the newer one, and it stays."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        one.cut()
        async with one.enter() as session:
            await other.log_in("stored")
            session.storage_state = state_with_cookie(value="mine")
            session.mark_good()
            one.heal()
        assert session.save_outcome is SaveOutcome.SKIPPED
    assert login_of(stored(memory)) == "stored"


async def test_the_first_login_of_an_outage_is_stored_where_there_was_none() -> None:
    """Nothing is stored, so nothing can be mixed."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        one.cut()
        async with one.enter() as session:
            session.storage_state = state_with_cookie(value="mine")
        assert session.save_outcome is SaveOutcome.PENDING
        one.heal()
        assert await session.settled() is SaveOutcome.SAVED
        async with one.enter() as session:
            assert_reused(session)
            assert login_of(session) == "mine"


async def test_agents_of_one_outage_that_continue_each_other_lose_nothing() -> None:
    """The second agent starts from what the first one left. Both are one login, and both changes are stored."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        one.cut()
        async with one.enter() as first:
            first.storage_state = state_with_cookie(value="mine")
            first.data["first"] = 1
        async with one.enter() as second:
            assert_reused(second)
            second.data["second"] = 2
        one.heal()
        assert await first.settled() in {SaveOutcome.SAVED, SaveOutcome.MERGED}
        assert await second.settled() in {SaveOutcome.SAVED, SaveOutcome.MERGED}
        assert one.lost == []
    found = stored(memory)
    assert (login_of(found), found.data) == ("mine", {"first": 1, "second": 2})


async def test_two_processes_that_log_in_during_an_outage_do_not_mix() -> None:
    """The login that is written first stands. The other process's notes are merged."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        one.cut()
        other.cut()
        for process, name in ((one, "one"), (other, "other")):
            async with process.enter() as session:
                session.storage_state = state_with_cookie(name=name, value=name)
                session.data[name] = 1
            process.heal()
            await session.settled()
    found = stored(memory)
    assert [cookie["name"] for cookie in found.storage_state["cookies"]] == ["one"]
    assert found.data == {"one": 1, "other": 1}


async def test_an_agent_of_a_replaced_login_does_not_mix() -> None:
    """A session that was restored before a new login replaced it adds its notes, and none of its cookies."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await other.log_in("old")
        async with one.enter() as late:
            for _ in range(3):
                async with other.enter() as session:
                    session.mark_bad("logged out by the site")
            await other.log_in("new")
            late.storage_state = state_with_cookie(name="extra", value="old")
            late.data["late"] = 1
        assert late.save_outcome is SaveOutcome.MERGED
    found = stored(memory)
    assert [cookie["value"] for cookie in found.storage_state["cookies"]] == ["new"]
    assert found.data == {"late": 1}


async def test_a_lost_reply_hides_no_login_that_was_left_out() -> None:
    """Only the notes were stored, beside another login. The agent hears so, and its next save does not mix the two."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        one.cut()
        async with one.enter() as session:
            session.storage_state = state_with_cookie(name="mine")
            session.data["n"] = 1
            await other.log_in("good")
            one.way.fail, one.way.only, one.way.after = Fault.TIMEOUT, frozenset({"commit"}), True
            assert await session.checkpoint() is SaveOutcome.PENDING
            one.heal()
            assert await session.settled() is SaveOutcome.SAVED
            assert [name for name, _ in one.lost] == [NAME]
            session.storage_state = state_with_cookie(name="mine", value="later")
        assert await session.settled() in {SaveOutcome.SKIPPED, SaveOutcome.MERGED}
    found = stored(memory)
    assert (found.data, found.storage_state) == ({"n": 1}, state_with_cookie(value="good"))


async def test_a_copy_in_another_store_leaves_a_lent_session_as_it_is() -> None:
    """It stays confined to its domains, and is saved where it was entered."""
    here, there = MemoryStore(), MemoryStore()
    async with (
        processes(here, 1) as (one,),
        processes(there, 1) as (other,),
        one.enter(allowed_domains=["shop.example"]) as session,
    ):
        session.data["n"] = 1
        assert await other.manager.save(session) is SaveOutcome.SAVED
        assert session.allowed_domains == ("shop.example",)
        session.data["n"] = 2
        assert await session.checkpoint() is SaveOutcome.SAVED
    assert (stored(here).data, stored(there).data) == ({"n": 2}, {"n": 1})


def test_a_session_of_an_ended_loop_is_not_taken_for_one_made_by_hand() -> None:
    """What others have saved since would be lost: it is not known there."""
    memory = MemoryStore()
    manager = Process(memory).manager

    async def restored() -> BrowserSession:
        async with reusable_session(NAME, manager=manager) as session:
            session.data["n"] = 1
        found = await manager.restore(NAME)
        assert found is not None
        return found

    session = asyncio.run(restored())

    async def save() -> None:
        with pytest.raises(LifecycleError, match="restore it here"):
            await manager.save(session)
        await manager.aclose()

    asyncio.run(save())


@pytest.mark.parametrize("notes", [False, True], ids=["refused", "only its notes taken"])
async def test_a_new_login_that_stood_back_for_a_later_one_replaces_it_at_no_save(notes: bool) -> None:
    """The later one was made by hand, and goes on as the unusable one that both have found."""
    memory, verdicts = MemoryStore(), iter([False])
    async with processes(memory) as (one, other):
        await one.log_in("stored")
        async with one.enter(verify=lambda _: next(verdicts, True)) as session:
            session.storage_state = state_with_cookie(value="mine")
            session.data.update({"note": 1} if notes else {})
            one.cut()
            assert await session.checkpoint() is SaveOutcome.PENDING
            await asyncio.sleep(0.3)  # by the server's clock the other one is later
            by_hand = BrowserSession(NAME)
            by_hand.storage_state = state_with_cookie(value="by hand")
            await other.manager.save(by_hand)
            one.heal()
            await session.settled()
            session.storage_state = state_with_cookie(value="mine, refreshed")
    assert login_of(stored(memory)) == "by hand"
