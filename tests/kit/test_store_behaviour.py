"""One behaviour over all stores: memory, fakeredis and a real server must not be told apart by what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from session_reuse import BrowserSession, Outcome, SaveOutcome, SessionManager, reusable_session
from session_reuse.state.baseline import Expectation
from session_reuse.state.codec import Codec
from session_reuse.state.header import Header
from session_reuse.store.interface import (
    Busy,
    Commit,
    CommitOutcome,
    Committed,
    Entered,
    Lease,
    Store,
    Touch,
    TouchOutcome,
    WrongType,
)
from session_reuse.testing import assert_fresh, assert_reused, assert_saved, state_with_cookie
from tests.kit.stores import Kit
from tests.support.polling import until

NAME = "shop.example/alice"
HOUR = 3600.0


def payload(
    save_id: str = "a" * 12, version: int = 1, created_at: int = 1000, token: int = 0, name: str = NAME
) -> bytes:
    """Return a stored form with a header to order."""
    header = Header(save_ids=(save_id,), created_at=created_at, saved_at=2000, version=version, token=token)
    return Codec(compression="none").encode(b'{"x":1}', "o", header, f"browser:session:{name}")


async def save(store: Store, save_id: str = "a" * 12, *, version: int = 1, token: int = 0, **fields: Any) -> Committed:
    """Commit a payload."""
    value = payload(save_id, version, token=token)
    defaults = {"fingerprint": NAME, "value": value, "save_id": save_id, "expectation": Expectation.ABSENT}
    return await store.commit(Commit(**{**defaults, **fields}), timeout=2)


async def head(store: Store) -> Header:
    """Return the header of what is stored."""
    value = await store.read(NAME, timeout=2)
    assert value is not None
    return Header.decode(value)


async def logged_in(manager: SessionManager, name: str = NAME, agent: str | None = "agent-1", **data: Any) -> None:
    """Leave a stored session."""
    async with reusable_session(name, agent, manager=manager) as session:
        session.storage_state = state_with_cookie()
        session.data.update(data)


# Enter and save -----------------------------------------------------------------------------------------------------------


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
    """What nobody uses is gone when its time is over, and not before."""
    await save(store, ttl=0.1)
    assert await store.read(NAME, timeout=2) is not None

    async def gone() -> bool:
        return await store.read(NAME, timeout=2) is None

    await until(gone, timeout=3)


async def test_an_enter_starts_the_time_to_live_anew(store: Store) -> None:
    """A session in use does not expire, one that is only looked at does."""
    await save(store, ttl=0.15)
    entered = await store.enter(NAME, ttl=HOUR, timeout=2)
    assert entered.value is not None
    (listed,) = [each async for each in store.sessions(timeout=2)]
    assert listed.ttl is not None
    assert listed.ttl > HOUR - 60
    await store.read(NAME, timeout=2)
    await store.enter(NAME, ttl=None, timeout=2)
    (listed,) = [each async for each in store.sessions(timeout=2)]
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
    """Agents of different processes do not overwrite each other; deletions stick."""
    one, two = over(), over()
    await logged_in(one, kept=1, dropped=1)
    async with reusable_session(NAME, manager=one) as first, reusable_session(NAME, manager=two) as second:
        first.data["one"] = 1
        del second.data["dropped"]
    assert_saved(first, SaveOutcome.MERGED)
    assert_saved(second, SaveOutcome.SAVED)
    async with reusable_session(NAME, manager=one) as session:
        assert session.data == {"kept": 1, "one": 1}


# Commits ------------------------------------------------------------------------------------------------------------------


async def test_the_same_save_twice_counts_once(store: Store) -> None:
    """A save repeated because its reply was lost is recognised, also after it was overtaken."""
    assert (await save(store, "a" * 12)).outcome is CommitOutcome.SAVED
    assert (await save(store, "a" * 12)).outcome is CommitOutcome.DUPLICATE
    known = (await head(store)).revision.encode()
    later = Header(save_ids=("b" * 12, "a" * 12), created_at=1000, saved_at=3000, version=2)
    value = Codec(compression="none").encode(b"{}", "o", later, f"browser:session:{NAME}")
    done = await save(store, "b" * 12, expectation=Expectation.REVISION, known=known, value=value)
    assert done.outcome is CommitOutcome.SAVED
    assert (await save(store, "a" * 12)).outcome is CommitOutcome.DUPLICATE
    assert (await head(store)).version == 2


async def test_a_save_over_somebody_elses_is_a_conflict(store: Store) -> None:
    """Who has not seen the latest save is told, and changes nothing."""
    await save(store, "a" * 12)
    stale = b"000000000001" + b"z" * 12
    assert (
        await save(store, "b" * 12, expectation=Expectation.REVISION, known=stale)
    ).outcome is CommitOutcome.CONFLICT
    assert (await save(store, "c" * 12)).outcome is CommitOutcome.CONFLICT
    assert (await head(store)).save_ids == ("a" * 12,)


async def test_a_session_that_was_evicted_is_made_anew(store: Store) -> None:
    """A holder whose session has gone, without an invalidation, saves it again."""
    done = await save(store, expectation=Expectation.REVISION, known=b"000000000007" + b"z" * 12)
    assert done.outcome is CommitOutcome.RECREATED
    assert done.outcome.written


async def test_an_older_version_gives_way_after_a_fail_over(store: Store) -> None:
    """When the server has lost the save that a holder knows of, the holder's next save goes through."""
    await save(store, "a" * 12, version=2)
    known = b"000000000005" + b"z" * 12
    done = await save(store, "b" * 12, version=6, expectation=Expectation.REVISION, known=known, created_at=1000)
    assert done.outcome is CommitOutcome.RECOVERED
    done = await save(
        store, "c" * 12, expectation=Expectation.REVISION, known=b"000000000009" + b"z" * 12, created_at=7
    )
    assert done.outcome is CommitOutcome.CONFLICT


async def test_who_knows_nothing_overwrites_nothing(store: Store) -> None:
    """A session entered while the store was away never replaces a stored one."""
    assert (await save(store, "a" * 12, expectation=Expectation.UNKNOWN)).outcome is CommitOutcome.SAVED
    assert (await save(store, "b" * 12, expectation=Expectation.UNKNOWN)).outcome is CommitOutcome.EXISTS
    assert (await head(store)).save_ids == ("a" * 12,)


@pytest.mark.parametrize("damage", [b"not a session", b"SRS1", payload()[:200], payload(name="other"), 7, b""])
async def test_a_corrupt_value_is_set_aside(kit: Kit, manager: SessionManager, damage: Any) -> None:
    """Damage means a fresh start, a value kept for people to look at, and a good save in its place."""
    await kit.plant(NAME, damage)
    async with reusable_session(NAME, manager=manager) as session:
        assert_fresh(session, Outcome.CORRUPT)
        session.data["new"] = True
    assert_saved(session, SaveOutcome.SAVED)
    assert await kit.set_aside(NAME)
    async with reusable_session(NAME, manager=manager) as session:
        assert session.data == {"new": True}


async def test_a_corrupt_value_that_was_replaced_meanwhile_stays(kit: Kit) -> None:
    """What has become good in the meantime is not put aside as damaged."""
    await kit.plant(NAME, b"damaged")
    known = {"expectation": Expectation.CORRUPT, "known": b"damaged"}
    assert (await save(kit.store, "a" * 12, **known)).outcome is CommitOutcome.SAVED
    assert (await save(kit.store, "b" * 12, **known)).outcome is CommitOutcome.CONFLICT


async def test_a_wrong_type_is_said(kit: Kit) -> None:
    """A list under a session's key is an answer of its own, not an outage."""
    await kit.plant(NAME, 7)
    with pytest.raises(WrongType):
        await kit.store.enter(NAME, ttl=HOUR, timeout=2)
    with pytest.raises(WrongType):
        await kit.store.read(NAME, timeout=2)


# Leases -------------------------------------------------------------------------------------------------------------------


async def take(store: Store, holder: str, seconds: float = HOUR) -> Lease | Busy:
    """Ask for the lease."""
    entered = await store.enter(NAME, ttl=HOUR, timeout=2, lease=(holder, seconds))
    assert entered.lease is not None
    return entered.lease


async def test_a_lease_keeps_others_out_until_it_is_given_back(store: Store) -> None:
    """One exclusive holder at a time; who asks again keeps its token; only the holder gives it back."""
    mine = await take(store, "me")
    assert isinstance(mine, Lease)
    assert await take(store, "me") == mine
    other = await take(store, "other")
    assert isinstance(other, Busy)
    assert HOUR - 60 < other.left <= HOUR
    assert not await store.release(NAME, Lease(mine.token, "other"), timeout=2)
    assert not await store.release(NAME, Lease(mine.token + 1, "me"), timeout=2)
    assert await store.release(NAME, mine, timeout=2)
    assert isinstance(await take(store, "other"), Lease)


async def test_a_lease_taken_unheard_can_be_given_back(store: Store) -> None:
    """Who never got the answer to its enter does not block the session: the holder's name is enough."""
    await take(store, "me")
    assert await store.release(NAME, Lease(0, "me"), timeout=2)
    assert not await store.release(NAME, Lease(0, "me"), timeout=2)


async def test_tokens_grow(store: Store) -> None:
    """A later holder's token is higher, so that the store can tell who came last."""
    first = await take(store, "one", seconds=0.05)
    assert isinstance(first, Lease)

    async def taken() -> Entered | None:
        entered = await store.enter(NAME, ttl=HOUR, timeout=2, lease=("two", HOUR))
        return entered if isinstance(entered.lease, Lease) else None

    second = (await until(taken, timeout=3)).lease
    assert isinstance(second, Lease)
    assert second.token > first.token
    assert not await store.renew(NAME, first, HOUR, timeout=2)
    assert await store.renew(NAME, second, HOUR, timeout=2)


async def test_a_holder_that_was_replaced_changes_nothing(store: Store) -> None:
    """Fencing: the late save of an old holder is refused, whether the new one still holds the lease or has saved."""
    old = await take(store, "old", seconds=0.02)
    assert isinstance(old, Lease)

    async def replaced() -> Lease | None:
        lease = await take(store, "new")
        return lease if isinstance(lease, Lease) else None

    new = await until(replaced, timeout=3)
    assert (await save(store, "a" * 12, token=old.token, lease=old)).outcome is CommitOutcome.STALE
    done = await save(store, "b" * 12, token=new.token, lease=new, release=True)
    assert done.outcome is CommitOutcome.SAVED
    assert isinstance(await take(store, "third"), Lease)
    known = (await head(store)).revision.encode()
    late = await save(store, "c" * 12, lease=old, expectation=Expectation.REVISION, known=known)
    assert late.outcome is CommitOutcome.STALE
    touch = Touch(fingerprint=NAME, epoch=0, ttl=HOUR, lease=old)
    assert await store.touch(touch, timeout=2) is TouchOutcome.STALE


async def test_a_refused_save_gives_the_lease_back(store: Store) -> None:
    """An exclusive agent whose save is refused for good does not block the next one."""
    await save(store, "a" * 12)
    lease = await take(store, "me")
    assert isinstance(lease, Lease)
    done = await save(store, "b" * 12, lease=lease, release=True, expectation=Expectation.UNKNOWN)
    assert done.outcome is CommitOutcome.EXISTS
    assert isinstance(await take(store, "other"), Lease)


async def test_a_conflict_keeps_the_lease(store: Store) -> None:
    """A save that is merged and tried again must still be the exclusive one."""
    await save(store, "a" * 12)
    lease = await take(store, "me")
    assert isinstance(lease, Lease)
    assert (await save(store, "b" * 12, lease=lease, release=True)).outcome is CommitOutcome.CONFLICT
    assert isinstance(await take(store, "other"), Busy)


async def test_exclusive_agents_take_turns(manager: SessionManager) -> None:
    """Of two exclusive agents one is told to wait, and what it does is not stored."""
    await logged_in(manager)
    async with reusable_session(NAME, manager=manager, exclusive=True) as first:
        async with reusable_session(NAME, manager=manager, exclusive=True) as second:
            assert_fresh(second, Outcome.BUSY)
            second.data["mine"] = 1
        assert_saved(second, SaveOutcome.SKIPPED)
        first.data["done"] = 1
    async with reusable_session(NAME, manager=manager, exclusive=True) as third:
        assert third.data == {"done": 1}


# Invalidation -------------------------------------------------------------------------------------------------------------


async def test_an_invalidated_session_stays_dead(manager: SessionManager) -> None:
    """Who held it before the invalidation cannot bring it back; a login made afterwards is welcome."""
    await logged_in(manager)
    async with reusable_session(NAME, manager=manager) as late:
        assert await manager.evict(NAME)
        late.data["late"] = True
    assert_saved(late, SaveOutcome.STALE)
    assert await manager.restore(NAME) is None
    assert not await manager.evict(NAME)
    await logged_in(manager)
    async with reusable_session(NAME, manager=manager) as session:
        assert_reused(session)


async def test_a_tombstone_stops_those_who_entered_before(store: Store) -> None:
    """Whoever entered before the invalidation is refused, with and without a known state."""
    await store.invalidate(NAME, ttl=HOUR, timeout=2)
    assert (await save(store, age=5.0)).outcome is CommitOutcome.STALE
    assert (await save(store, age=5.0, expectation=Expectation.UNKNOWN)).outcome is CommitOutcome.STALE
    revision = {"expectation": Expectation.REVISION, "known": b"000000000001" + b"z" * 12, "epoch": 0}
    assert (await save(store, **revision)).outcome is CommitOutcome.STALE
    done = await save(store, age=0.0)
    assert done.outcome is CommitOutcome.SAVED
    assert (await head(store)).epoch == done.epoch > 0


async def test_an_invalidation_frees_the_lease_and_beats_its_token(store: Store) -> None:
    """The holder of a lease is out, too, and the next token is higher than the tombstone."""
    lease = await take(store, "me")
    assert isinstance(lease, Lease)
    await save(store, lease=lease)
    assert await store.invalidate(NAME, ttl=HOUR, timeout=2)
    assert not await store.renew(NAME, lease, HOUR, timeout=2)
    following = await take(store, "next")
    assert isinstance(following, Lease)
    assert following.token > lease.token


# Touch, affinity, health, listing -----------------------------------------------------------------------------------------


async def test_touching_prolongs_and_says_what_is_gone(store: Store) -> None:
    """An unchanged session lives on; one that is gone or invalidated is said to be."""
    touch = Touch(fingerprint=NAME, epoch=0, ttl=HOUR, agent_id="agent-1")
    assert await store.touch(touch, timeout=2) is TouchOutcome.GONE
    await save(store, ttl=1.0)
    assert await store.touch(touch, timeout=2) is TouchOutcome.UNCHANGED
    (listed,) = [each async for each in store.sessions(timeout=2)]
    assert listed.ttl is not None
    assert listed.ttl > HOUR - 60
    assert await store.affinity("agent-1", timeout=2) == NAME
    await store.invalidate(NAME, ttl=HOUR, timeout=2)
    assert await store.touch(touch, timeout=2) is TouchOutcome.STALE


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
    """Bad marks of different managers add up; a new login starts without them."""
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


async def test_a_mark_meant_for_another_session_is_ignored(store: Store) -> None:
    """Bad marks of an old login do not retire the new one that has replaced it."""
    await save(store)
    assert await store.mark(NAME, created_at=1000, epoch=0, change=10, timeout=2) == 10
    assert await store.mark(NAME, created_at=1000, epoch=0, change=-30, timeout=2) == 0
    assert await store.mark(NAME, created_at=1001, epoch=0, change=10, timeout=2) is None
    assert await store.mark(NAME, created_at=1000, epoch=9, change=10, timeout=2) is None
    assert await store.mark("nobody", created_at=1000, epoch=0, change=10, timeout=2) is None


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
    """Names, versions, times and sizes; a value that is none of ours is listed as such."""
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
    value = await store.read(NAME, timeout=2)
    assert value is not None
    assert BrowserSession.import_(value).data == {"step": 1}
