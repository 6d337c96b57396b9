"""A fail-over has lost a new login: the server holds the one before again. Agents that have the new one bring it back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakeredis.aioredis import FakeRedis

from session_reuse import BrowserSession, SaveOutcome
from session_reuse.testing import MemoryStore, state_with_cookie
from tests.lifecycle.worlds import NAME, Process, login_of, processes, stored


async def log_in_again(session: BrowserSession) -> None:
    """Replace the login that the agent has refused."""
    session.storage_state = state_with_cookie(value="new")
    assert await session.checkpoint() is SaveOutcome.SAVED


def doubts() -> Any:
    """Return a check that refuses what is restored, and passes from then on."""
    verdicts = iter([False, True, True])
    return lambda _: next(verdicts)


async def first_login(process: Process, memory: MemoryStore) -> bytes:
    """Store a login. Return its stored form, for a fail-over to come back to."""
    await process.log_in("old", old=1)
    value = memory.peek(NAME)
    assert value is not None
    return value


@pytest.mark.parametrize("changes", [True, False], ids=["changed", "unchanged"])
async def test_it_is_brought_back_by_an_agent_that_vouches_for_it(changes: bool) -> None:
    """Changed or not. Others that have it go on with it, since it is the login that it was."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        ancestor = await first_login(one, memory)
        async with one.enter(verify=doubts()) as session:
            await log_in_again(session)
            entered = other.enter()
            theirs = await entered.__aenter__()
            memory.put(NAME, ancestor)
            if changes:
                session.data["mine"] = 1
        assert session.save_outcome is SaveOutcome.SAVED
        theirs.data["theirs"] = 1
        await entered.__aexit__(None, None, None)
        assert theirs.save_outcome in {SaveOutcome.SAVED, SaveOutcome.MERGED}
    found = stored(memory)
    assert (login_of(found), found.data) == ("new", {"theirs": 1, "mine": 1} if changes else {"theirs": 1})


async def test_it_is_brought_back_over_a_retired_one() -> None:
    """Nobody vouches for it, but nothing better is stored."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await one.log_in("old")
        for _ in range(3):
            async with one.enter() as session:
                session.mark_bad("captcha")
        retired = memory.peek(NAME)
        assert retired is not None
        async with one.enter() as session:
            await log_in_again(session)
            memory.put(NAME, retired)
        assert session.save_outcome is SaveOutcome.SAVED
    assert login_of(stored(memory)) == "new"


async def test_without_a_witness_the_stored_login_stands() -> None:
    """An agent that was given the lost login does not know whether it still works. Its save is refused, and it hears so."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        ancestor = await first_login(one, memory)
        async with one.enter(verify=doubts()) as session:
            await log_in_again(session)
        async with other.enter() as theirs:
            memory.put(NAME, ancestor)
            theirs.storage_state = state_with_cookie(value="refreshed")
        assert theirs.save_outcome is SaveOutcome.STALE
    assert login_of(stored(memory)) == "old"


async def test_a_later_login_stands() -> None:
    """Somebody has replaced it since. The agent vouches for a login that is the older one."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await one.log_in("old")
        async with one.enter(verify=doubts()) as session:
            await log_in_again(session)
            async with other.enter(verify=doubts()) as theirs:
                theirs.storage_state = state_with_cookie(value="newest")
            assert theirs.save_outcome is SaveOutcome.SAVED
            session.storage_state = state_with_cookie(value="refreshed")
        assert session.save_outcome is SaveOutcome.STALE
    assert login_of(stored(memory)) == "newest"


async def test_it_comes_back_with_what_a_part_does_not_see() -> None:
    """An agent that sees a part of a retired session has logged in again: the rest stays where it was."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        async with one.enter() as session:
            session.storage_state = state_with_cookie(value="old")
            session.storage_state["cookies"] += state_with_cookie(value="rest", domain="other.example")["cookies"]
        for _ in range(3):
            async with one.enter() as session:
                session.mark_bad("captcha")
        retired = memory.peek(NAME)
        assert retired is not None
        async with one.enter(allowed_domains=["shop.example"]) as session:
            session.mark_good()
            await log_in_again(session)
            memory.put(NAME, retired)
        assert session.save_outcome is SaveOutcome.SAVED
    assert {cookie["value"] for cookie in stored(memory).storage_state["cookies"]} == {"new", "rest"}


async def test_one_that_is_too_old_by_now_replaces_nothing() -> None:
    """A save that has waited for longer than its time to live would end what is stored at once."""
    memory = MemoryStore()
    async with processes(memory, 1, ttl=0.5) as (one,):
        ancestor = await first_login(one, memory)
        async with one.enter(verify=doubts()) as session:
            await log_in_again(session)
            one.cut()
            session.data["mine"] = 1
        await asyncio.sleep(0.6)
        memory.put(NAME, ancestor, ttl=1000)
        one.heal()
        assert await session.settled() in {SaveOutcome.STALE, SaveOutcome.MERGED}
    assert login_of(stored(memory)) == "old"


async def test_a_login_that_was_replaced_before_its_reply_is_not_taken_for_the_next_one() -> None:
    """The store holds the login of another agent, which remembers the id of this one's save."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await one.log_in("old")
        async with one.enter(verify=doubts()) as session:
            one.way.after = True  # the reply is lost
            one.cut()
            session.storage_state = state_with_cookie(value="new")
            assert await session.checkpoint() is SaveOutcome.PENDING
            assert login_of(stored(memory)) == "new"
            async with other.enter(verify=doubts()) as theirs:
                theirs.storage_state = state_with_cookie(value="newest")
            assert theirs.save_outcome is SaveOutcome.SAVED
            one.heal()
            assert await session.settled() is SaveOutcome.SAVED
            session.storage_state = state_with_cookie(value="refreshed")
        assert session.save_outcome is SaveOutcome.STALE
    assert login_of(stored(memory)) == "newest"


async def test_a_login_that_was_invalidated_stays_so_where_the_store_forgets_it() -> None:
    """Its agent has heard that its save is stale. After an emptied server it does not replace a login made since."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        async with one.enter() as session:
            session.storage_state = state_with_cookie(value="invalidated")
            await other.manager.evict(NAME)
            assert await session.checkpoint() is SaveOutcome.STALE
            await _flushed(memory)
            await other.log_in("later")
        assert session.save_outcome is SaveOutcome.STALE
    assert login_of(stored(memory)) == "later"


async def _flushed(memory: MemoryStore) -> None:
    """Have the server lose all that it holds."""
    async with FakeRedis(server=memory.server) as client:
        await client.flushall()
