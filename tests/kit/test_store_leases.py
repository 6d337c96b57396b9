"""Leases, fencing and invalidation, over all stores: who may save, and who may not any more."""

from __future__ import annotations

from session_reuse import Outcome, SaveOutcome, SessionManager, reusable_session
from session_reuse.state.baseline import Expectation
from session_reuse.store.interface import (
    Busy,
    CommitOutcome,
    Entered,
    Lease,
    Store,
    Touch,
    TouchOutcome,
)
from session_reuse.testing import assert_fresh, assert_reused, assert_saved
from tests.kit.deeds import HOUR, NAME, head, logged_in, save, take
from tests.support.polling import until


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
