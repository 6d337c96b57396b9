"""Conditional saves, over all stores: what is written, what is refused, what is set aside."""

from __future__ import annotations

from typing import Any

import pytest

from session_reuse import Outcome, SaveOutcome, SessionManager, reusable_session
from session_reuse.state.baseline import Expectation
from session_reuse.state.codec import Codec
from session_reuse.state.header import Header
from session_reuse.store.interface import (
    CommitOutcome,
    Store,
    WrongType,
)
from session_reuse.testing import assert_fresh, assert_saved
from tests.kit.deeds import HOUR, NAME, head, payload, save
from tests.kit.stores import Kit


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
