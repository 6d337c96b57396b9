"""One behaviour over all stores: a store in memory and a real server do the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from session_reuse import BrowserSession, Outcome, SaveOutcome, SessionManager, reusable_session
from session_reuse._store.interface import CommitOutcome
from session_reuse.testing import Store, assert_fresh, assert_reused, assert_saved, state_with_cookie
from tests.harness.polling import until
from tests.kit.actions import CREATED_AT, HOUR, NAME, header_of, invalidate, keep, logged_in, save, value_of
from tests.kit.stores import Kit


async def test_a_saved_session_comes_back(manager: SessionManager) -> None:
    """What one agent leaves, the next one finds."""
    await logged_in(manager, step=1)
    async with reusable_session(NAME, "agent-2", manager=manager) as session:
        assert_reused(session)
        assert session.data == {"step": 1}
        assert session.storage_state == state_with_cookie()
    assert_saved(session, SaveOutcome.UNCHANGED)


async def test_nothing_there_is_not_an_error(manager: SessionManager) -> None:
    """An unknown name is a miss and nothing else."""
    async with reusable_session(NAME, manager=manager) as session:
        assert_fresh(session, Outcome.MISSING)
        session.discard()
    assert await manager.restore(NAME) is None


async def test_a_session_ends_with_its_time_to_live(store: Store) -> None:
    """What no one uses ends when its time is over, and not before."""
    await save(store, ttl=1.0)
    assert await value_of(store) is not None

    async def gone() -> bool:
        return await value_of(store) is None

    await until(gone)


async def test_an_enter_starts_the_time_to_live_anew(store: Store) -> None:
    """A session in use does not expire, one that is only looked at does."""
    await save(store, ttl=5.0)
    entered = await store.enter(NAME, ttl=HOUR, timeout=10)
    assert entered.value is not None
    (listed,) = [each async for each in store.sessions(timeout=10)]
    assert listed.ttl is not None
    assert listed.ttl > HOUR - 60
    await store.read(NAME, timeout=10)
    await store.enter(NAME, ttl=None, timeout=10)
    (listed,) = [each async for each in store.sessions(timeout=10)]
    assert listed.ttl is not None
    assert HOUR - 60 < listed.ttl <= HOUR


async def test_concurrent_agents_lose_no_update(manager: SessionManager) -> None:
    """Every agent's change arrives, however many leave at once."""
    await logged_in(manager)

    async def agent(number: int) -> None:
        async with reusable_session(NAME, f"agent-{number}", manager=manager) as session:
            await asyncio.sleep(0)
            session.data[f"note-{number}"] = number
        assert_saved(session)

    await asyncio.gather(*(agent(number) for number in range(12)))
    async with reusable_session(NAME, manager=manager) as session:
        assert session.data == {f"note-{number}": number for number in range(12)}


async def test_two_managers_merge(over: Callable[..., SessionManager]) -> None:
    """Agents of different processes do not overwrite each other. Deletions stick."""
    one, two = over(), over()
    await logged_in(one, kept=1, dropped=1)
    async with reusable_session(NAME, manager=one) as first, reusable_session(NAME, manager=two) as second:
        first.data["one"] = 1
        del second.data["dropped"]
    assert_saved(first, SaveOutcome.MERGED)
    assert_saved(second, SaveOutcome.SAVED)
    async with reusable_session(NAME, manager=one) as session:
        assert session.data == {"kept": 1, "one": 1}


async def test_an_unchanged_save_prolongs_what_is_there_and_nothing_else(store: Store) -> None:
    """An unchanged session lives on. One that has ended or was invalidated is reported as such."""
    agents = (("agent-1", NAME),)
    assert (await keep(store, ttl=HOUR, agents=agents)).outcome is CommitOutcome.GONE
    await save(store, ttl=5.0)
    assert (await keep(store, ttl=HOUR, agents=agents)).outcome is CommitOutcome.UNCHANGED
    (listed,) = [each async for each in store.sessions(timeout=10)]
    assert listed.ttl is not None
    assert listed.ttl > HOUR - 60
    assert await store.affinity("agent-1", timeout=10) == NAME
    await invalidate(store)
    assert (await keep(store, ttl=HOUR, agents=agents)).outcome is CommitOutcome.STALE
    assert await value_of(store) is None


async def test_affinity_follows_the_last_use_and_goes_with_the_session(manager: SessionManager) -> None:
    """An agent finds its last session again, and no dead one."""
    await logged_in(manager, "a", "agent-1")
    await logged_in(manager, "b", "agent-1")
    await logged_in(manager, "b", "agent-2")
    assert await manager.affinity("agent-1") == "b"
    async with reusable_session(agent_id="agent-1", manager=manager) as session:
        assert session.fingerprint == "b"
        assert_reused(session)
    await manager.evict("a")
    assert await manager.affinity("agent-1") == "b"
    await manager.evict("b")
    assert await manager.affinity("agent-1") is None
    assert await manager.affinity("agent-2") is None


async def test_health_is_shared_and_starts_anew_with_a_login(over: Callable[..., SessionManager]) -> None:
    """Bad marks of different managers add up. A new login starts without them."""
    managers = [over(), over(), over()]
    await logged_in(managers[0])
    for manager in managers:
        async with reusable_session(NAME, manager=manager) as session:
            session.mark_bad("captcha")
    async with reusable_session(NAME, manager=managers[0]) as session:
        assert_fresh(session, Outcome.RETIRED)
        session.storage_state = state_with_cookie(value="new")
    assert_saved(session, SaveOutcome.SAVED)
    (summary,) = [each async for each in managers[1].sessions()]
    assert summary.error_score == 0
    async with reusable_session(NAME, manager=managers[1]) as session:
        assert_reused(session)
        session.mark_good()


async def test_a_mark_meant_for_another_login_is_refused(store: Store) -> None:
    """Bad marks of an old login do not retire the new one that has replaced it."""
    await save(store)
    assert (await keep(store, "1" * 12, ttl=0, score_change=10)).score == 10
    assert (await keep(store, "2" * 12, ttl=0, score_change=-30)).score == 0
    late = await keep(store, "3" * 12, ttl=0, score_change=10, created_at=CREATED_AT + 1)
    assert late.outcome is CommitOutcome.STALE
    assert (await header_of(store)).score == 0


async def test_uses_are_counted_only_where_somebody_counts(manager: SessionManager) -> None:
    """A session that may be used twice is not handed out a third time."""
    await logged_in(manager)
    for _ in range(2):
        async with reusable_session(NAME, manager=manager, max_uses=2) as session:
            assert_reused(session)
    async with reusable_session(NAME, manager=manager, max_uses=2) as session:
        assert_fresh(session, Outcome.RETIRED)
    async with reusable_session("unknown", manager=manager, max_uses=2) as session:
        assert_fresh(session, Outcome.MISSING)
        session.discard()


async def test_a_listing_shows_each_session_and_nothing_in_it(kit: Kit, manager: SessionManager) -> None:
    """Names, versions, times and sizes. A value that is none of ours is listed as such."""
    names = ["a", "b c", "{d}", "ä"]
    for name in names:
        await logged_in(manager, name)
    await kit.plant("broken", b"not ours")
    await kit.plant("list", 7)
    found = {summary.fingerprint: summary async for summary in manager.sessions()}
    assert sorted(found) == sorted([*names, "broken", "list"])
    assert found["a"].version == 1
    assert found["a"].size > 176
    assert found["broken"].version is None
    assert found["list"].version is None
    assert "test" not in repr(found["a"])


async def test_the_stored_form_is_the_same_everywhere(manager: SessionManager, store: Store) -> None:
    """A value of one store is read by `BrowserSession.import_`, as that of any other is."""
    await logged_in(manager, step=1)
    value = await value_of(store)
    assert value is not None
    assert BrowserSession.import_(value).data == {"step": 1}
