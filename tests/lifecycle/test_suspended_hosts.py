"""A host that was suspended: its event loops have not counted that time, and other hosts have gone on."""

from __future__ import annotations

import time

import pytest
import time_machine

from session_reuse import SaveOutcome
from session_reuse.testing import MemoryStore
from tests.harness.polling import until
from tests.lifecycle.worlds import NAME, Process, processes, stored

HOURS = 2 * 3600.0


def suspend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock that counts suspensions jump. That of event loops stands still."""
    clock_gettime = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock_gettime(which) + HOURS)


async def leave(process: Process, number: int) -> SaveOutcome | None:
    """Change the session."""
    async with process.enter() as session:
        session.data["n"] = number
    return session.save_outcome


async def test_a_save_that_waited_meanwhile_replaces_nothing_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as old as it was made, however little of that its own loop has seen."""
    memory = MemoryStore()
    async with processes(memory) as (one, other):
        await one.log_in(n=0)
        one.cut()
        assert await leave(one, 1) is SaveOutcome.PENDING
        with time_machine.travel(time.time() + HOURS / 2):
            assert await leave(other, 2) is SaveOutcome.SAVED
        with time_machine.travel(time.time() + HOURS):
            suspend(monkeypatch)
            one.heal()
            await until(lambda: one.manager.stats().pending == 0, message="the save is delivered")
        assert stored(memory).data["n"] == 2


async def test_what_was_known_before_is_as_old_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """`reuse_while_away` counts the time of the suspension."""
    memory = MemoryStore()
    async with processes(memory, 1, reuse_while_away=HOURS / 2) as (one,):
        await one.log_in(n=0)
        one.cut()
        suspend(monkeypatch)
        async with one.enter(NAME) as session:
            assert not session.reused
            session.discard()
