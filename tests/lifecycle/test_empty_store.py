"""The store comes back empty: what this process knew last is stored again, with what agents have changed on top."""

from __future__ import annotations

import pytest

from session_reuse import SaveOutcome
from session_reuse.testing import MemoryStore, state_with_cookie
from tests.lifecycle.worlds import login_of, processes, stored


@pytest.mark.parametrize("enters", [False, True], ids=["flushed", "met by an enter"])
async def test_an_agent_that_waits_brings_back_what_others_of_its_process_have_saved(enters: bool) -> None:
    """It entered before them, so its own document is older than theirs."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await one.log_in("old", first=1)
        async with one.enter(agent="long") as session:
            session.data["long"] = 1
            async with one.enter(agent="short") as other:
                other.storage_state = state_with_cookie(value="new")
                other.data["short"] = 1
            assert other.save_outcome is SaveOutcome.SAVED
            one.cut()
        assert session.save_outcome is SaveOutcome.PENDING
        memory.advance(100_000)
        one.heal()
        if enters:
            async with one.enter(save="never") as third:
                assert (login_of(third), third.data) == ("new", {"first": 1, "long": 1, "short": 1})
        await session.settled()
    found = stored(memory)
    assert (login_of(found), found.data) == ("new", {"first": 1, "long": 1, "short": 1})


async def test_an_agent_that_changed_nothing_brings_back_no_older_login() -> None:
    """The store has never been away. The agent entered before its process has saved a newer login."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await one.log_in("old")
        async with one.enter() as session:
            await one.log_in("new")
            memory.advance(100_000)
        assert session.save_outcome is SaveOutcome.SAVED
    assert login_of(stored(memory)) == "new"
