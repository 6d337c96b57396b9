"""While the store is away, agents work on what this process knows, within limits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from session_reuse import Outcome, SaveOutcome, StoreError, reusable_session
from session_reuse.testing import (
    Fault,
    FaultyStore,
    MemoryStore,
    assert_fresh,
    assert_reused,
    memory_manager,
    state_with_cookie,
)
from tests.harness.polling import until
from tests.harness.probes import parts_of
from tests.lifecycle.worlds import NAME, Process, login_of, processes, stored


async def test_the_last_known_state_is_reused() -> None:
    """An agent starts logged in, and is told that its state may be stale."""
    async with processes(MemoryStore(), 1) as (one,):
        await one.log_in("known", step=1)
        one.cut()
        async with one.enter() as session:
            assert_reused(session)
            assert session.stale
            assert not session.degraded
            assert (login_of(session), session.data) == ("known", {"step": 1})
            session.discard()
        one.heal()
        async with one.enter() as session:
            assert_reused(session)
            assert not session.stale


async def test_a_session_that_was_only_read_is_reused_too() -> None:
    """What counts is what the store said last, not who wrote it."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await other.log_in("known")
        assert await one.manager.restore(NAME) is not None
        one.cut()
        async with one.enter() as session:
            assert_reused(session)
            assert login_of(session) == "known"
            session.discard()


async def test_many_agents_in_one_outage_need_the_room_of_a_few() -> None:
    """What the first of them noted is stored in the end: their changes become one, and none gives way for room."""
    memory = MemoryStore()
    async with processes(memory, 1, pending_max_bytes=1_000_000) as (one,):
        await one.log_in("known")
        one.cut()
        for number in range(40):
            async with one.enter() as session:
                session.data[f"note {number}"] = True
                session.data["page"] = f"{number}" * 10_000
            assert session.save_outcome is SaveOutcome.PENDING
        one.heal()
        assert await session.settled() in {SaveOutcome.SAVED, SaveOutcome.MERGED}
        assert one.lost == []
    assert [f"note {number}" in stored(memory).data for number in range(40)] == [True] * 40


async def test_each_agent_sees_what_the_one_before_has_left() -> None:
    """Changes that wait are a part of what this process knows, and all of them are stored in the end."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await one.log_in("known")
        one.cut()
        for number in range(12):
            async with one.enter() as session:
                assert_reused(session)
                assert session.data == ({"step": number - 1} if number else {})
                session.data["step"] = number
            assert session.save_outcome is SaveOutcome.PENDING
        one.heal()
        assert await session.settled() in {SaveOutcome.SAVED, SaveOutcome.MERGED}
        assert one.manager.stats().pending == 0
    found = stored(memory)
    assert (login_of(found), found.data) == ("known", {"step": 11})


async def test_an_agent_between_two_outages_sees_what_still_waits() -> None:
    """The store is back, but the changes of this process are not written yet: the next agent has them anyway."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await one.log_in("known")
        async with one.enter() as session:
            session.data["mine"] = 1
            one.way.fail, one.way.only = "unavailable", frozenset({"commit"})  # type: ignore[assignment]
        assert session.save_outcome is SaveOutcome.PENDING
        async with other.enter() as session:
            session.data["theirs"] = 1
        async with one.enter() as session:
            assert_reused(session)
            assert not session.stale
            assert session.data == {"mine": 1, "theirs": 1}
            session.discard()


async def finds_now_and_away(one: Process, data: dict[str, int]) -> None:
    """The next agent is given these notes, and so is one after the store has gone."""
    for away in (False, True):
        async with one.enter() as session:
            assert (session.stale, session.data) == (away, data)
            session.discard()
        one.cut()
        one.way.only = frozenset({"enter", "commit", "read"})


async def test_what_still_waits_does_not_hide_what_others_have_stored_since() -> None:
    """The next agents find what will be stored: the server's clock decides for them as for the save, in an outage too."""
    async with processes(MemoryStore()) as (one, other):
        await one.log_in("known", step=0)
        one.way.fail, one.way.only = "unavailable", frozenset({"commit"})  # type: ignore[assignment]
        async with one.enter() as session:
            session.data["step"] = 1
        async with other.enter() as later:
            later.data["step"] = 2
        await finds_now_and_away(one, {"step": 2})


async def test_what_is_stored_without_a_reply_does_not_hide_what_others_have_stored_since() -> None:
    """Its save still waits, but the stored session names it: the next agents find what it has become, in an outage too."""
    async with processes(MemoryStore()) as (one, other):
        await one.log_in("known")
        one.way.fail, one.way.only, one.way.after = "unavailable", frozenset({"commit"}), True  # type: ignore[assignment]
        async with one.enter() as session:
            session.data.update({"step": 1, "banner": "seen"})
        assert session.save_outcome is SaveOutcome.PENDING
        async with other.enter() as later:
            assert later.data.pop("banner") == "seen"
            later.data["step"] = 2
        await finds_now_and_away(one, {"step": 2})
        assert await session.settled() is SaveOutcome.SAVED


async def test_what_still_waits_is_not_shown_after_an_invalidation_elsewhere() -> None:
    """Its save will be refused, so an agent that enters meanwhile is given the new login alone."""
    async with processes(MemoryStore()) as (one, other):
        one.cut()
        async with one.enter() as session:
            session.data["late"] = 1
        assert session.save_outcome is SaveOutcome.PENDING
        one.way.only = frozenset({"commit"})
        await other.log_in("old")
        await other.manager.evict(NAME)
        await other.log_in("new")
        async with one.enter() as next_one:
            assert (login_of(next_one), next_one.data) == ("new", {})
            next_one.discard()
        one.heal()
        assert await session.settled() is SaveOutcome.STALE


async def test_nothing_is_reused_where_it_is_switched_off() -> None:
    """`reuse_while_away=0` starts fresh."""
    async with processes(MemoryStore(), 1, reuse_while_away=0.0) as (one,):
        await one.log_in("known")
        one.cut()
        async with one.enter() as session:
            assert_fresh(session, Outcome.UNAVAILABLE)
            assert session.degraded
            session.discard()


async def test_what_is_known_for_too_long_is_not_reused() -> None:
    """After `reuse_while_away` seconds without the store an agent starts fresh."""
    async with processes(MemoryStore(), 1, reuse_while_away=0.3) as (one,):
        await one.log_in("known")
        one.cut()

        async def fresh() -> bool:
            async with one.enter() as session:
                session.discard()
            return not session.reused

        await until(fresh, message="the replica was too old")


@pytest.mark.parametrize("limit", ["option", "config", "header"])
async def test_max_age_holds_while_the_store_is_away(limit: str) -> None:
    """A session that is too old is not reused only because no one can ask for a newer one."""
    config: dict[str, Any] = {"max_age": 3600.0} if limit != "option" else {}
    options: dict[str, Any] = {"max_age": 3600.0} if limit == "option" else {}
    if limit == "header":
        options = {"max_age": 1e9}  # the header knows when the session retires
    async with processes(MemoryStore(), 1, **config) as (one,):
        await one.log_in("known")
        one.cut()
        async with one.enter(**options) as session:
            assert_reused(session)
            session.discard()
        runtime, wall = await parts_of(one.manager), time.time
        runtime.clock.wall = lambda: wall() + 7200.0
        async with one.enter(**options) as session:
            assert not session.reused
            session.discard()


async def test_bad_marks_made_while_the_store_is_away_count() -> None:
    """The agents of this process do not go on with a login that they have marked bad themselves."""
    async with processes(MemoryStore(), 1, retire_after_bad=2) as (one,):
        await one.log_in("known")
        one.cut()
        for number in range(3):
            async with one.enter() as session:
                assert session.reused is (number < 2)
                if session.reused:
                    session.mark_bad("captcha")
                else:
                    session.discard()
        one.heal()
        await until(lambda: not one.manager.stats().pending, message="the marks were written")
        async with one.enter() as session:
            assert_fresh(session, Outcome.RETIRED)
            session.discard()


async def test_max_uses_holds_while_the_store_is_away() -> None:
    """A session whose uses are used up is not reused."""
    async with processes(MemoryStore(), 1) as (one,):
        await one.log_in("known")
        for _ in range(2):
            async with one.enter(max_uses=2) as session:
                assert_reused(session)
        async with one.enter(max_uses=2) as session:
            assert_fresh(session, Outcome.RETIRED)
            session.discard()
        one.cut()
        async with one.enter(max_uses=2) as session:
            assert not session.reused
            session.discard()


async def test_verify_is_asked_of_a_stale_state() -> None:
    """A state that may be stale is the one to look at."""
    async with processes(MemoryStore(), 1) as (one,):
        await one.log_in("known")
        one.cut()
        async with one.enter(verify=lambda _: False) as session:
            assert_fresh(session, Outcome.UNVERIFIED)
            session.discard()


async def test_an_exclusive_agent_starts_fresh() -> None:
    """Exclusive means a lease or nothing, also when changes of this process wait."""
    async with processes(MemoryStore(), 1, save_timeout=1.0) as (one,):
        await one.log_in("known")
        one.cut()
        async with one.enter() as session:
            session.data["n"] = 1
        for _ in range(2):
            async with one.enter(exclusive=True) as session:
                assert_fresh(session)
                assert session.degraded
                session.discard()


async def test_a_strict_agent_gets_the_error() -> None:
    """With `strict` trouble of the store is not hidden behind what this process knows."""
    async with processes(MemoryStore(), 1) as (one,):
        await one.log_in("known")
        one.cut()
        with pytest.raises(StoreError):
            await one.enter(strict=True).__aenter__()


@pytest.mark.parametrize("answered", [True, False])
async def test_an_evicted_session_is_not_reused(answered: bool) -> None:
    """After an eviction this process does not use the session, also when the store did not confirm it."""
    async with processes(MemoryStore(), 1) as (one,):
        await one.log_in("known")
        if answered:
            assert await one.manager.evict(NAME)
        one.cut()
        if not answered:
            with pytest.raises(StoreError):
                await one.manager.evict(NAME)
        async with one.enter() as session:
            assert_fresh(session, Outcome.UNAVAILABLE)
            session.discard()


async def test_an_eviction_by_another_process_that_was_seen_counts() -> None:
    """The last thing that the store said is that there is nothing."""
    async with processes(MemoryStore()) as (one, other):
        await one.log_in("known")
        await other.manager.evict(NAME)
        async with one.enter() as session:
            assert_fresh(session, Outcome.MISSING)
            session.discard()
        one.cut()
        async with one.enter() as session:
            assert_fresh(session, Outcome.UNAVAILABLE)
            session.discard()


@pytest.mark.parametrize("login_after", [True, False])
async def test_what_is_saved_late_is_refused_after_an_invalidation(login_after: bool) -> None:
    """An agent worked on a state that was invalidated meanwhile: its work is reported, and nothing is brought back."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await one.log_in("old")
        one.cut()
        async with one.enter() as session:
            assert session.stale
            session.data["late"] = 1
        assert session.save_outcome is SaveOutcome.PENDING
        await other.manager.evict(NAME)
        if login_after:
            await other.log_in("new")
        one.heal()
        assert await session.settled() is SaveOutcome.STALE
        assert [fingerprint for fingerprint, _ in one.lost] == [NAME]
        async with one.enter() as session:
            assert session.reused is login_after
            assert session.data == {}
            session.discard()
    if login_after:
        assert login_of(stored(memory)) == "new"
    else:
        assert memory.peek(NAME) is None


async def test_a_newer_save_of_another_process_stays() -> None:
    """What was saved elsewhere during the outage is later than what was changed here before it."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await one.log_in("known", x=1)
        one.cut()
        async with one.enter() as session:
            session.data.update(x=2, mine=1)
        async with other.enter() as theirs:
            theirs.data["x"] = 3
            theirs.storage_state = state_with_cookie(value="rotated")
        one.heal()
        assert await session.settled() is SaveOutcome.MERGED
    found = stored(memory)
    assert (login_of(found), found.data) == ("rotated", {"x": 3, "mine": 1})


async def test_an_eviction_forgets_what_waits(caplog: pytest.LogCaptureFixture) -> None:
    """Changes of this process that wait do not come back after its own eviction. Their agents hear of it."""
    memory = MemoryStore()
    process = Process(memory)
    await process.log_in("old")
    process.way.fail, process.way.only = "unavailable", frozenset({"commit"})  # type: ignore[assignment]
    async with process.enter() as session:
        session.data["late"] = 1
    assert session.save_outcome is SaveOutcome.PENDING
    assert await process.manager.evict(NAME)
    assert await session.settled() is SaveOutcome.STALE
    process.heal()
    assert process.manager.stats().pending == 0
    assert memory.peek(NAME) is None
    await process.manager.aclose()


async def test_a_change_that_two_processes_have_read_from_disk_counts_once(tmp_path: Path) -> None:
    """What the second process deletes does not come back when the first one writes its own change."""
    async with processes(MemoryStore(), spool_dir=tmp_path / "spool", encryption_keys=[b"k" * 32]) as (one, other):
        one.cut()
        other.cut()
        async with one.enter() as first:
            first.data["n"] = 1
            first.storage_state = state_with_cookie()
        assert first.save_outcome is SaveOutcome.SPOOLED
        async with other.enter() as second:
            assert second.data == {"n": 1}
            del second.data["n"]
            second.storage_state = {"cookies": [], "origins": []}
        assert second.save_outcome is SaveOutcome.SPOOLED
        other.heal()
        assert await second.settled() is SaveOutcome.SAVED
        one.heal()
        assert await first.settled() is SaveOutcome.SAVED
        found = await one.manager.restore(NAME)
        assert found is not None
        assert (found.data, found.storage_state["cookies"]) == ({}, [])


@pytest.mark.parametrize("sliding", [True, False])
async def test_a_session_whose_time_to_live_is_over_is_not_reused(
    monkeypatch: pytest.MonkeyPatch, sliding: bool
) -> None:
    """The store would have dropped it. `reuse_while_away` alone would keep it for an hour."""
    async with processes(MemoryStore(), 1, ttl=60.0, sliding=sliding) as (one,):
        await one.log_in("known")
        one.cut()
        for later, is_reused in (50.0, True), (20.0, False):
            clock_gettime, wall = time.clock_gettime, time.time
            monkeypatch.setattr(time, "clock_gettime", lambda which, real=clock_gettime, by=later: real(which) + by)
            monkeypatch.setattr(time, "time", lambda real=wall, by=later: real() + by)
            async with one.enter() as session:
                assert session.reused is is_reused
                session.discard()


async def test_what_one_manager_has_invalidated_no_other_of_the_process_reuses() -> None:
    """They share a store. Also what waits of that login is given up."""
    way = FaultyStore(MemoryStore())
    one, other = memory_manager(way), memory_manager(way, close_timeout=0.1)
    async with one, other:
        async with reusable_session(NAME, manager=one) as session:
            session.storage_state = state_with_cookie()
        way.fail = Fault.UNAVAILABLE
        async with reusable_session(NAME, manager=one) as session:
            assert_reused(session)
            session.data["late"] = True
        assert session.save_outcome is SaveOutcome.PENDING
        with pytest.raises(StoreError):
            await other.evict(NAME)
        async with reusable_session(NAME, manager=one) as left:
            assert_fresh(left)
            left.discard()
        assert await session.settled() is SaveOutcome.STALE
        way.heal()
        async with reusable_session(NAME, manager=one) as session:  # the store was not reached, and has it all the same
            assert_reused(session)
        way.fail = Fault.UNAVAILABLE
        async with reusable_session(NAME, manager=one) as session:
            assert_reused(session)
            session.discard()
