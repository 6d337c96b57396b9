"""Conditional saves, over all stores: what is written, what is refused, what is set aside."""

from __future__ import annotations

from typing import Any

import pytest

from session_reuse import Outcome, SaveOutcome, SessionManager, reusable_session
from session_reuse._state.header import REMEMBERED_SAVES
from session_reuse._store.interface import CommitOutcome, Precondition
from session_reuse.testing import Store, assert_fresh, assert_saved, state_with_cookie
from tests.kit.actions import HOUR, NAME, header_of, payload, save, save_next, value_of
from tests.kit.stores import Kit

NOWHERE = b"000000000007" + b"z" * 12
"""A revision that is not stored, nor an ancestor of anything."""


async def test_the_same_save_twice_counts_once(store: Store) -> None:
    """A save repeated because its reply was lost is recognised, also after others have saved."""
    assert (await save(store, "a" * 12)).outcome is CommitOutcome.SAVED
    assert (await save(store, "a" * 12)).outcome is CommitOutcome.DUPLICATE
    for number in range(REMEMBERED_SAVES - 1):
        assert (await save_next(store, f"{number:012d}")).outcome is CommitOutcome.SAVED
        assert (await save(store, "a" * 12)).outcome is CommitOutcome.DUPLICATE
    assert (await header_of(store)).version == REMEMBERED_SAVES


async def test_a_save_over_another_one_is_a_conflict(store: Store) -> None:
    """A save that has not seen the latest one changes nothing."""
    await save(store, "a" * 12)
    before = await value_of(store)
    matching = await save(store, "b" * 12, precondition=Precondition.MATCHES, known=NOWHERE)
    assert matching.outcome is CommitOutcome.CONFLICT
    assert (await save(store, "c" * 12)).outcome is CommitOutcome.CONFLICT
    assert await value_of(store) == before


async def test_a_session_that_was_evicted_is_made_anew(store: Store) -> None:
    """A holder whose session has ended without an invalidation saves it again."""
    done = await save(store, precondition=Precondition.MATCHES, known=NOWHERE)
    assert done.outcome is CommitOutcome.RECREATED
    assert done.outcome.written


@pytest.mark.parametrize("precondition", [Precondition.MATCHES, Precondition.ABSENT])
async def test_a_session_that_is_gone_for_too_long_is_not_made_anew(store: Store, precondition: Precondition) -> None:
    """A holder that cannot prove that its session was not invalidated brings nothing back."""
    done = await save(store, precondition=precondition, known=NOWHERE, may_recreate=False)
    assert done.outcome is CommitOutcome.STALE
    assert await value_of(store) is None


async def test_a_save_recovers_over_an_ancestor_only(store: Store) -> None:
    """A fail-over has lost the saves since: only a save whose own line contains the stored one is written over it."""
    await save(store, "a" * 12)
    known = "000000000003" + "c" * 12 + "b" * 12 + "a" * 12
    stranger = "000000000003" + "c" * 12 + "b" * 12 + "x" * 12
    wanted = {"precondition": Precondition.MATCHES, "version": 4}
    assert (await save(store, "d" * 12, known=stranger.encode(), **wanted)).outcome is CommitOutcome.CONFLICT
    other_login = await save(store, "d" * 12, known=known.encode(), created_at=7, **wanted)
    assert other_login.outcome is CommitOutcome.CONFLICT
    assert (await header_of(store)).version == 1
    assert (await save(store, "d" * 12, known=known.encode(), **wanted)).outcome is CommitOutcome.RECOVERED
    assert (await header_of(store)).version == 4


TIMES_DAMAGED = payload()[:16] + b"x" * 40 + payload()[56:]
"""The times at which it was invalidated and fenced are no numbers, and as text they are later than all times."""


BODY_DAMAGED = payload(invalidated_at=7)[:-1] + b"?"
"""Its header still names an invalidation whose tombstone has ended."""


@pytest.mark.parametrize(
    "damage", [b"not a session", b"SRS1", payload()[:200], payload(name="other"), TIMES_DAMAGED, BODY_DAMAGED, 7, b""]
)
async def test_a_corrupt_value_is_set_aside(kit: Kit, manager: SessionManager, damage: Any) -> None:
    """Damage means a fresh start, a value kept for people to look at, and a good save in its place."""
    await kit.plant(NAME, damage)
    async with reusable_session(NAME, manager=manager) as session:
        assert_fresh(session, Outcome.CORRUPT)
        session.storage_state = state_with_cookie()
    assert_saved(session, SaveOutcome.SAVED)
    assert await kit.client.exists(kit.keys.of(NAME).quarantine)
    async with reusable_session(NAME, manager=manager) as session:
        assert session.storage_state == state_with_cookie()


async def test_a_corrupt_value_that_was_replaced_meanwhile_stays(kit: Kit) -> None:
    """What has become good in the meantime is not put aside as damaged."""
    await kit.plant(NAME, b"damaged")
    known: dict[str, Any] = {"precondition": Precondition.CORRUPT, "known": b"damaged"}
    assert (await save(kit.store, "a" * 12, **known)).outcome is CommitOutcome.SAVED
    assert await kit.set_aside(NAME) == b"damaged"
    assert (await save(kit.store, "b" * 12, **known)).outcome is CommitOutcome.CONFLICT


async def test_a_value_of_a_wrong_type_is_an_answer(kit: Kit) -> None:
    """A list under a session's key is as good as a damaged value, not an outage."""
    await kit.plant(NAME, 7)
    assert (await kit.store.enter(NAME, ttl=HOUR, timeout=10)).value == b""
    assert (await kit.store.read(NAME, timeout=10)).value == b""
