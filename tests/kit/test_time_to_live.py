"""How long a session lives, over all stores: no one shortens what another has set, and its own limits hold."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from session_reuse import SaveOutcome, SessionManager, reusable_session
from session_reuse._store.interface import CommitOutcome
from session_reuse.testing import FaultyStore, assert_fresh, assert_reused, assert_saved, state_with_cookie
from tests.harness.polling import until
from tests.harness.probes import parts_of
from tests.kit.actions import HOUR, NAME, header_of, keep, logged_in, payload, save, save_next
from tests.kit.conftest import PATIENT
from tests.kit.stores import Kit

MINUTE = 60.0
DAY = 86_400.0
Managers = Callable[..., SessionManager]


@pytest.mark.parametrize("kind", ["save", "unchanged"])
async def test_no_commit_shortens_a_time_to_live(kit: Kit, kind: str) -> None:
    """A late or modest save keeps the longer time that another has set."""
    await save(kit.store, ttl=DAY)
    done = await (save_next(kit.store, "b" * 12, ttl=MINUTE) if kind == "save" else keep(kit.store, ttl=MINUTE))
    assert done.outcome in {CommitOutcome.SAVED, CommitOutcome.UNCHANGED}
    assert await kit.time_to_live(NAME) > DAY - MINUTE
    assert (await header_of(kit.store)).ttl == DAY


@pytest.mark.parametrize("kind", ["save", "unchanged"])
async def test_a_commit_lengthens_a_time_to_live(kit: Kit, kind: str) -> None:
    """A session in use lives on."""
    await save(kit.store, ttl=MINUTE)
    await (save_next(kit.store, "b" * 12, ttl=DAY) if kind == "save" else keep(kit.store, ttl=DAY))
    assert await kit.time_to_live(NAME) > DAY - MINUTE


@pytest.mark.parametrize("kind", ["save", "unchanged"])
async def test_no_commit_keeps_a_session_beyond_its_retirement(kit: Kit, kind: str) -> None:
    """The header says when a session retires, and no save lets it live longer than that."""
    retires = round((time.time() + 10 * MINUTE) * 1000)
    await save(kit.store, ttl=DAY, value=payload(retire_at=retires))
    assert await kit.time_to_live(NAME) <= 10 * MINUTE
    await kit.expire(NAME, DAY)
    if kind == "save":
        before = await header_of(kit.store)
        value = payload("b" * 12, 2, save_ids=("b" * 12, *before.save_ids), retire_at=retires)
        await save_next(kit.store, "b" * 12, ttl=DAY, value=value)
    else:
        await keep(kit.store, ttl=DAY)
    assert await kit.time_to_live(NAME) <= 10 * MINUTE


async def test_a_manager_with_a_shorter_time_to_live_shortens_nothing(kit: Kit, over: Managers) -> None:
    """Its enter, its unchanged exit and its save leave the session the time that the first manager has set."""
    await logged_in(over(ttl=DAY))
    short = over(ttl=MINUTE)
    for change in (False, True):
        async with reusable_session(NAME, manager=short) as session:
            assert_reused(session)
            await until(lambda: long_lived(kit), message="the enter was corrected")
            if change:
                session.data["n"] = 1
        assert_saved(session, SaveOutcome.SAVED if change else SaveOutcome.UNCHANGED)
        assert await long_lived(kit)
    assert await short.restore(NAME) is not None
    await until(lambda: long_lived(kit), message="the restore was corrected")


async def long_lived(kit: Kit) -> bool:
    """Return whether the session has the longer time. The header rounds it down to a whole minute."""
    return await kit.time_to_live(NAME) > DAY - 2 * MINUTE


async def test_a_late_flush_shortens_nothing(kit: Kit, over: Managers) -> None:
    """A save that waited keeps the time to live that another manager has set meanwhile."""
    await logged_in(over(ttl=MINUTE))
    faulty = FaultyStore(kit.store)
    async with SessionManager(faulty, registry=None, ttl=MINUTE, **PATIENT) as late:
        async with reusable_session(NAME, manager=late) as session:
            session.data["late"] = 1
            faulty.fail = "unavailable"  # type: ignore[assignment]
        assert_saved(session, SaveOutcome.PENDING)
        async with reusable_session(NAME, manager=over(ttl=DAY)) as other:
            other.data["other"] = 1
        assert_saved(other)
        faulty.heal()
        assert await session.settled() is SaveOutcome.MERGED
    assert await kit.time_to_live(NAME) > DAY - MINUTE


@pytest.mark.parametrize("limit", ["max_age", "ttl_from_cookies"])
async def test_a_limit_of_the_session_holds_for_every_manager(kit: Kit, over: Managers, limit: str) -> None:
    """A session does not outlive `max_age` or its cookies, however long other managers let sessions live."""
    limited = over(ttl=DAY, max_age=HOUR) if limit == "max_age" else over(ttl=DAY, ttl_from_cookies=True)
    async with reusable_session(NAME, manager=limited) as session:
        session.storage_state = state_with_cookie(expires=time.time() + HOUR)
    assert_saved(session, SaveOutcome.SAVED)

    async def within_the_limit() -> bool:
        return 0 < await kit.time_to_live(NAME) <= HOUR

    assert await within_the_limit()
    other = over(ttl=DAY)
    for number in range(3):
        async with reusable_session(NAME, manager=other) as session:
            assert_reused(session)
            await until(within_the_limit, message="the enter was corrected")
            if number:
                session.data["n"] = number
        assert await within_the_limit()


@pytest.mark.parametrize("expires", [253_402_300_799, 1e20], ids=["year 9999", "never"])
async def test_a_cookie_of_the_far_future_limits_nothing(kit: Kit, over: Managers, expires: float) -> None:
    """Sites set cookies that expire in the year 9999, which is later than the header can hold."""
    manager = over(ttl=DAY, ttl_from_cookies=True)
    async with reusable_session(NAME, manager=manager) as session:
        session.storage_state = state_with_cookie(expires=expires)
    assert_saved(session, SaveOutcome.SAVED)
    async with reusable_session(NAME, manager=manager) as session:
        assert_reused(session)
    assert await kit.time_to_live(NAME) > DAY - MINUTE


async def test_a_session_that_has_retired_is_not_kept_alive(kit: Kit, over: Managers) -> None:
    """An enter that finds a session past `max_age` starts fresh, and its login lives by its own limits."""
    manager = over(ttl=DAY, max_age=HOUR)
    await logged_in(manager)
    runtime = await parts_of(manager)
    wall = time.time
    runtime.clock.wall = lambda: wall() + 2 * HOUR
    async with reusable_session(NAME, manager=manager) as session:
        assert_fresh(session, "retired")
        session.storage_state = state_with_cookie(value="new")
    assert_saved(session, SaveOutcome.SAVED)
    header = await header_of(kit.store)
    assert header.retire_at > (wall() + 2 * HOUR) * 1000
