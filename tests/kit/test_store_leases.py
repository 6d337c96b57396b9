"""Leases, fencing and invalidation, over all stores: who may save, and who may not any more."""

from __future__ import annotations

import asyncio

import pytest

from session_reuse import Outcome, SaveOutcome, SessionBusyError, SessionManager, reusable_session
from session_reuse._store.interface import Busy, CommitOutcome, EnterReply, Lease, Precondition
from session_reuse.testing import Store, assert_fresh, assert_reused, assert_saved
from tests.harness.polling import until
from tests.kit.actions import (
    HOUR,
    NAME,
    header_of,
    invalidate,
    keep,
    logged_in,
    payload,
    save,
    save_next,
    take,
    value_of,
)
from tests.kit.stores import Kit


async def test_a_lease_keeps_others_out_until_it_is_given_back(store: Store) -> None:
    """One exclusive holder at a time. Who asks again keeps its token. Only the holder gives it back."""
    mine = await take(store, "me")
    assert isinstance(mine, Lease)
    assert await take(store, "me") == mine
    other = await take(store, "other")
    assert isinstance(other, Busy)
    assert HOUR - 60 < other.left <= HOUR
    assert not await store.release(NAME, Lease(mine.token, "third"), timeout=10)
    assert await store.release(NAME, mine, timeout=10)
    assert isinstance(await take(store, "other"), Lease)


async def test_a_lease_taken_unheard_can_be_given_back(store: Store) -> None:
    """Who never got the answer to its enter does not block the session: the holder's name is enough."""
    await take(store, "me")
    assert await store.release(NAME, Lease(0, "me"), timeout=10)
    assert not await store.release(NAME, Lease(0, "me"), timeout=10)


@pytest.mark.parametrize("saves", [True, False])
async def test_a_lease_that_a_repeated_request_took_anew_is_given_back(store: Store, *, saves: bool) -> None:
    """The first request was answered, an invalidation ended its lease, and the copy of the request took another one."""
    first = await take(store, "me")
    assert isinstance(first, Lease)
    await invalidate(store)
    again = await take(store, "me")
    assert isinstance(again, Lease)
    assert again.token > first.token
    if saves:
        assert (await save(store, lease=first, release=True)).outcome is CommitOutcome.STALE
    else:
        assert await store.release(NAME, first, timeout=10)
    assert isinstance(await take(store, "other"), Lease)


async def test_tokens_grow(store: Store) -> None:
    """A later holder's token is higher, so that the store can tell who came last."""
    first = await take(store, "one", seconds=0.05)
    assert isinstance(first, Lease)

    async def taken() -> EnterReply | None:
        entered = await store.enter(NAME, ttl=HOUR, timeout=10, lease=("two", HOUR))
        return entered if isinstance(entered.lease, Lease) else None

    second = (await until(taken)).lease
    assert isinstance(second, Lease)
    assert second.token > first.token
    assert not await store.renew(NAME, first, HOUR, timeout=10)
    assert await store.renew(NAME, second, HOUR, timeout=10)


async def test_a_holder_that_was_replaced_changes_nothing_after_the_next_lease_has_lapsed(store: Store) -> None:
    """The next holder was killed, or could not say that it has left. Its lease has ended by itself."""
    await save(store)
    first = await take(store, "one", seconds=0.05)
    assert isinstance(first, Lease)

    async def taken() -> Lease | None:
        second = await take(store, "two", seconds=0.2)
        return second if isinstance(second, Lease) else None

    second = await until(taken)
    assert (await header_of(store)).token == second.token

    await asyncio.sleep(0.3)
    assert not await store.renew(NAME, second, HOUR, timeout=10)
    assert (await save_next(store, "b" * 12, lease=first)).outcome is CommitOutcome.STALE


async def test_a_holder_that_was_replaced_changes_nothing(store: Store) -> None:
    """Fencing: the late save of an old holder is refused, whether the new one still holds the lease or has saved."""
    old = await take(store, "old", seconds=0.02)
    assert isinstance(old, Lease)

    async def replaced() -> Lease | None:
        lease = await take(store, "new")
        return lease if isinstance(lease, Lease) else None

    new = await until(replaced)
    assert (await save(store, "a" * 12, lease=old)).outcome is CommitOutcome.STALE
    done = await save(store, "b" * 12, lease=new, release=True)
    assert done.outcome is CommitOutcome.SAVED
    assert isinstance(await take(store, "third"), Lease)
    assert (await save_next(store, "c" * 12, lease=old)).outcome is CommitOutcome.STALE
    assert (await keep(store, lease=old)).outcome is CommitOutcome.STALE
    assert (await header_of(store)).save_ids == ("b" * 12,)


async def test_a_holder_that_was_replaced_changes_nothing_also_with_the_higher_token(kit: Kit) -> None:
    """A fail-over has lost its lease, and the clock of the new server is behind: the next token is lower."""
    new = await take(kit.store, "new")
    assert isinstance(new, Lease)
    old = Lease(new.token + 1, "old")
    assert (await save(kit.store, "a" * 12, lease=old, release=True)).outcome is CommitOutcome.STALE
    await kit.plant(NAME, payload())
    assert (await keep(kit.store, lease=old, release=True)).outcome is CommitOutcome.STALE
    assert (await keep(kit.store, "b" * 12, lease=new)).outcome is CommitOutcome.UNCHANGED


async def test_a_refused_save_gives_the_lease_back(store: Store) -> None:
    """An exclusive agent whose save is refused for good does not block the next one."""
    await invalidate(store)
    lease = await take(store, "me")
    assert isinstance(lease, Lease)
    assert (await save(store, lease=lease, release=True)).outcome is CommitOutcome.STALE
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
        with pytest.raises(SessionBusyError):
            await reusable_session(NAME, manager=manager, exclusive=True, on_busy="raise").__aenter__()
        first.data["done"] = 1
    async with reusable_session(NAME, manager=manager, exclusive=True) as third:
        assert third.data == {"done": 1}


async def test_an_invalidated_session_stays_dead(manager: SessionManager) -> None:
    """Who held it before the invalidation cannot bring it back. A login made afterwards is welcome."""
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
    """A save that does not know of the invalidation is refused, whatever it expects to find."""
    await invalidate(store)
    assert (await save(store)).outcome is CommitOutcome.STALE
    known = b"000000000001" + b"z" * 12
    assert (await save(store, precondition=Precondition.MATCHES, known=known)).outcome is CommitOutcome.STALE
    assert await value_of(store) is None
    last = (await store.enter(NAME, ttl=HOUR, timeout=10)).invalidated_at
    assert last is not None
    done = await save(store, invalidated_at=last)
    assert done.outcome is CommitOutcome.SAVED
    assert (await header_of(store)).invalidated_at == done.invalidated_at == last > 0


async def test_a_tombstone_with_an_earlier_time_stops_those_who_do_not_know_it(store: Store) -> None:
    """A fail-over to a server with a late clock has lost the invalidation that an agent knows, and another one followed."""
    await invalidate(store)
    last = (await store.enter(NAME, ttl=HOUR, timeout=10)).invalidated_at
    assert last
    assert (await save(store, invalidated_at=last + 1_700_000)).outcome is CommitOutcome.STALE
    assert await value_of(store) is None


async def test_a_lost_tombstone_stops_nobody(store: Store) -> None:
    """An agent that knows of an invalidation which the store has lost may save: none came after it."""
    assert (await save(store, invalidated_at=7)).outcome is CommitOutcome.SAVED
    assert (await keep(store, invalidated_at=7)).outcome is CommitOutcome.UNCHANGED


async def test_an_invalidation_frees_the_lease_and_beats_its_token(store: Store) -> None:
    """The holder of a lease is out, too, and the next token is higher than the tombstone."""
    lease = await take(store, "me")
    assert isinstance(lease, Lease)
    await save(store, lease=lease)
    assert await invalidate(store)
    assert not await store.renew(NAME, lease, HOUR, timeout=10)
    following = await take(store, "next")
    assert isinstance(following, Lease)
    assert following.token > lease.token
