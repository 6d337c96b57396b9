"""A logout that was seen is stored, and one that was not seen is none."""

from __future__ import annotations

from typing import Any

import pytest

from session_reuse import BrowserSession, SaveOutcome
from session_reuse.testing import MemoryStore, assert_reused, state_with_cookie
from tests.lifecycle.worlds import NAME, Process, login_of, processes, stored

NOTHING: dict[str, Any] = {"cookies": [], "origins": []}
TOKEN: dict[str, Any] = {
    "cookies": [],
    "origins": [{"origin": "https://shop.example", "localStorage": [{"name": "token", "value": "t"}]}],
}


async def leave(process: Process, state: dict[str, Any]) -> None:
    """Leave a state behind."""
    async with process.enter() as session:
        session.storage_state = state
    assert session.save_outcome == "saved"


def assigned(session: BrowserSession) -> None:
    """Assign an empty state."""
    session.storage_state = dict(NOTHING)


def changed_in_place(session: BrowserSession) -> None:
    """Empty the state in place."""
    session.storage_state["cookies"].clear()
    session.storage_state["origins"].clear()


def captured(session: BrowserSession) -> None:
    """Have a browser report that nothing is left."""
    session.bind_capture(lambda: dict(NOTHING))


@pytest.mark.parametrize("before", [TOKEN, state_with_cookie()], ids=["localStorage only", "cookie"])
@pytest.mark.parametrize("log_out", [assigned, changed_in_place, captured])
async def test_a_logout_with_nothing_left_is_stored(log_out: Any, before: dict[str, Any]) -> None:
    """The next agent does not come back logged in after a logout."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await leave(one, before)
        async with one.enter() as session:
            assert_reused(session)
            log_out(session)
        assert session.save_outcome is SaveOutcome.SAVED
        async with one.enter() as session:
            assert_reused(session)
            assert session.storage_state == NOTHING


async def test_a_logout_while_the_store_is_away_is_stored_later() -> None:
    """A logout waits like any other change."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await leave(one, TOKEN)
        async with one.enter() as session:
            assigned(session)
            one.cut()
        assert session.save_outcome is SaveOutcome.PENDING
        one.heal()
        assert await session.settled() is SaveOutcome.SAVED
    found = stored(memory)
    assert found.storage_state == NOTHING


async def test_a_logout_is_not_undone_by_an_agent_that_changed_something_else() -> None:
    """A merge keeps the deletion: no one brings back what another agent has seen to be gone."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await leave(one, TOKEN)
        async with other.enter() as second:
            async with one.enter() as first:
                assigned(first)
            second.data["work"] = 1
        assert second.save_outcome is SaveOutcome.MERGED
    found = stored(memory)
    assert found.storage_state["origins"] == []
    assert found.data == {"work": 1}


@pytest.mark.parametrize("how", ["capture_failed", "raises"])
async def test_a_look_that_failed_is_no_logout(how: str) -> None:
    """An empty state that no one could look at does not replace a login. The agent's notes are saved."""
    memory = MemoryStore()

    async def crashed() -> Any:
        raise RuntimeError("the browser is gone")

    async with processes(memory, 1) as (one,):
        await leave(one, state_with_cookie(value="kept"))
        async with one.enter() as session:
            session.data["work"] = 1
            if how == "raises":
                session.bind_capture(crashed)
            else:
                changed_in_place(session)
                session.capture_failed("the browser is gone")
        assert session.save_outcome is SaveOutcome.SAVED
    found = stored(memory)
    assert login_of(found) == "kept"
    assert found is not None
    assert found.data == {"work": 1}


async def test_a_failed_look_vouches_for_nothing() -> None:
    """Without a look and without notes there is nothing to save, and no time to live to refresh."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await leave(one, state_with_cookie())
        before = memory.peek(NAME)
        async with one.enter() as session:
            session.capture_failed("the browser is gone")
        assert session.save_outcome is SaveOutcome.SKIPPED
    assert memory.peek(NAME) == before


async def test_an_empty_session_does_not_take_the_place_of_a_retired_one() -> None:
    """A retired login is replaced by a login. A fresh start that led to none replaces nothing."""
    memory = MemoryStore()
    async with processes(memory, 1, retire_after_bad=1) as (one,):
        await leave(one, state_with_cookie())
        async with one.enter() as session:
            session.mark_bad("captcha")
        before = memory.peek(NAME)
        async with one.enter() as session:
            assert session.outcome == "retired"
        assert session.save_outcome is SaveOutcome.SKIPPED
    assert memory.peek(NAME) == before
