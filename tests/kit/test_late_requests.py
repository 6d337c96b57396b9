"""Requests that come late, twice or in another order, over all stores: they change nothing newer, and count once."""

from __future__ import annotations

import pytest

from session_reuse._store.interface import Busy, CommitOutcome, Lease, PoolEdit, Precondition
from session_reuse.testing import Store
from tests.kit.actions import CREATED_AT, HOUR, NAME, header_of, invalidate, keep, save, save_next, take, value_of
from tests.kit.stores import Kit


async def test_a_repeated_save_touches_nothing(kit: Kit) -> None:
    """A second delivery of a save leaves the newer value and its time to live as they are."""
    await save(kit.store, "a" * 12, ttl=60.0)
    await save_next(kit.store, "b" * 12, ttl=HOUR)
    before = await kit.value(NAME)
    assert (await save(kit.store, "a" * 12, ttl=60.0)).outcome is CommitOutcome.DUPLICATE
    assert await kit.value(NAME) == before
    assert await kit.time_to_live(NAME) > HOUR - 60


async def test_an_overtaken_save_is_a_conflict(store: Store) -> None:
    """A save that arrives after a later one of the same holder overwrites nothing."""
    await save(store, "a" * 12)
    known = (await header_of(store)).revision.encode()
    await save_next(store, "b" * 12)
    before = await value_of(store)
    late = await save(store, "c" * 12, version=2, precondition=Precondition.MATCHES, known=known)
    assert late.outcome is CommitOutcome.CONFLICT
    assert await value_of(store) == before


async def test_a_late_save_leaves_no_payload_behind(kit: Kit) -> None:
    """What is refused is removed from its staging key at once."""
    await invalidate(kit.store)
    assert (await save(kit.store)).outcome is CommitOutcome.STALE
    assert not await kit.client.exists(kit.keys.of(NAME).staging("a" * 12))


async def test_a_repeated_mark_counts_once(store: Store) -> None:
    """A lost reply makes no second bad mark."""
    await save(store)
    for _ in range(3):
        done = await keep(store, "m" * 12, ttl=0, score_change=10)
        assert (done.outcome, done.score) == (CommitOutcome.UNCHANGED, 10)
    assert (await keep(store, "n" * 12, ttl=0, score_change=10)).score == 20


async def test_a_mark_that_two_requests_carry_counts_once(store: Store) -> None:
    """Two managers have read it from one disk: one saves it with a payload, the other finds that stored, and marks it."""
    await save(store)
    assert (await save_next(store, "b" * 12, score_change=10, mark_id="m" * 12)).score == 10
    assert (await keep(store, "c" * 12, score_change=10, mark_id="m" * 12)).score == 10
    assert (await save_next(store, "d" * 12, score_change=10, mark_id="m" * 12)).score == 10
    assert (await save_next(store, "e" * 12, score_change=10, mark_id="n" * 12)).score == 20


async def test_a_late_copy_of_an_edit_changes_no_pool(store: Store) -> None:
    """A member that was removed stays away, one that was added again stays, and a lost reply is made up for."""

    async def edited(edit: PoolEdit, request_id: str) -> tuple[int, list[str]]:
        count = await store.edit_pool("shop", edit, ["alice"], request_id, timeout=10)
        return count, [member.name for member in await store.pool_members("shop", timeout=10)]

    assert await edited("add", "a" * 12) == (1, ["alice"])
    assert await edited("remove", "b" * 12) == (1, [])
    assert await edited("add", "a" * 12) == (1, [])
    assert await edited("add", "c" * 12) == (1, ["alice"])
    assert await edited("remove", "b" * 12) == (1, ["alice"])


async def test_a_mark_leaves_the_time_to_live_alone(kit: Kit) -> None:
    """A bad mark does not keep a session alive."""
    await save(kit.store, ttl=HOUR)
    await kit.expire(NAME, 30)
    await keep(kit.store, ttl=0, score_change=10)
    assert await kit.time_to_live(NAME) <= 30


async def test_a_repeated_invalidation_leaves_a_new_login_alone(store: Store) -> None:
    """A second delivery of an invalidation deletes nothing that was made after the first."""
    await save(store)
    assert await invalidate(store, "i" * 12)
    last = (await store.enter(NAME, ttl=HOUR, timeout=10)).invalidated_at or 0
    assert (await save(store, "b" * 12, invalidated_at=last)).outcome is CommitOutcome.SAVED
    assert await invalidate(store, "i" * 12)  # what the first one found
    assert (await header_of(store)).save_ids == ("b" * 12,)
    assert (await keep(store, invalidated_at=last)).outcome is CommitOutcome.UNCHANGED


async def test_a_late_invalidation_of_an_old_login_leaves_a_newer_one_alone(store: Store) -> None:
    """An invalidation names the login that is meant, so that a login that has replaced it stays."""
    await save(store)
    assert not await invalidate(store, created_at=CREATED_AT - 1)
    assert await value_of(store) is not None
    assert await invalidate(store, created_at=CREATED_AT)
    assert await value_of(store) is None


async def test_a_late_release_leaves_the_next_holder_alone(store: Store) -> None:
    """A second delivery of a release frees no one else's lease."""
    mine = await take(store, "me")
    assert isinstance(mine, Lease)
    assert await store.release(NAME, mine, timeout=10)
    following = await take(store, "next")
    assert not await store.release(NAME, mine, timeout=10)
    assert not await store.release(NAME, Lease(0, "me"), timeout=10)
    assert isinstance(await take(store, "third"), Busy)
    assert await take(store, "next") == following


async def test_a_request_for_a_lease_after_its_own_release_is_refused(store: Store) -> None:
    """A cancelled enter gives its lease back. When the enter itself arrives later, it takes none."""
    assert not await store.release(NAME, Lease(0, "me"), timeout=10)
    assert isinstance(await take(store, "me"), Busy)
    assert isinstance(await store.acquire(NAME, "me", HOUR, timeout=10), Busy)
    assert isinstance(await take(store, "other"), Lease)


async def test_a_late_renewal_takes_no_lease(store: Store) -> None:
    """A heartbeat that arrives after the lease was given back does not bring it back."""
    mine = await take(store, "me")
    assert isinstance(mine, Lease)
    await store.release(NAME, mine, timeout=10)
    assert not await store.renew(NAME, mine, HOUR, timeout=10)
    assert isinstance(await take(store, "other"), Lease)


async def test_a_repeated_use_counts_once(store: Store) -> None:
    """A lost reply to an enter burns no second use."""
    await save(store)
    for _ in range(3):
        assert (await store.enter(NAME, ttl=HOUR, timeout=10, use_id="u" * 12)).uses == 0
    assert (await store.enter(NAME, ttl=HOUR, timeout=10, use_id="v" * 12)).uses == 1
    assert (await header_of(store)).uses == 2


async def test_waiting_for_a_lease_burns_no_use(store: Store) -> None:
    """An exclusive agent counts its use when it has the lease, and not before."""
    await save(store)
    await take(store, "other")
    reply = await store.enter(NAME, ttl=HOUR, timeout=10, lease=("me", HOUR), use_id="u" * 12)
    assert isinstance(reply.lease, Busy)
    assert (await header_of(store)).uses == 0


@pytest.mark.parametrize("precondition", [Precondition.MATCHES, Precondition.ABSENT, Precondition.UNCHANGED])
async def test_an_invalidation_outlives_its_tombstone(kit: Kit, precondition: Precondition) -> None:
    """When the tombstone has ended, the header of the login made after it still refuses what came before it."""
    await invalidate(kit.store)
    last = (await kit.store.enter(NAME, ttl=HOUR, timeout=10)).invalidated_at or 0
    await save(kit.store, invalidated_at=last)
    await kit.client.delete(kit.keys.of(NAME).tombstone)
    known = (await header_of(kit.store)).revision.encode()
    late = await save(kit.store, "b" * 12, precondition=precondition, known=known, invalidated_at=last - 1)
    assert late.outcome is CommitOutcome.STALE
    assert (await header_of(kit.store)).save_ids == ("a" * 12,)
