"""Functions of the application and of adapters: whatever they raise, the agent goes on, and nothing is lost without a word."""

from __future__ import annotations

import asyncio

import pytest

from session_reuse import BrowserSession, SaveOutcome
from session_reuse._state.storage_state import StorageState
from session_reuse.testing import MemoryStore, assert_fresh, state_with_cookie
from tests.lifecycle.worlds import processes, stored


async def ended_task() -> bool:
    """Wait for a task of one's own that was cancelled, as a driver does whose browser has gone."""
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task
    return True


async def test_a_check_whose_own_task_was_cancelled_has_not_verified() -> None:
    """It raised, like any other check: the agent is not cancelled, and starts fresh."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await one.log_in("stored")
        async with one.enter(verify=lambda _: ended_task()) as session:
            assert_fresh(session, "unverified")
        assert session.save_outcome is SaveOutcome.SKIPPED
    assert stored(memory).storage_state == state_with_cookie(value="stored")


async def test_a_capture_whose_own_task_was_cancelled_has_failed() -> None:
    """It raised, like any other capture: the notes are saved, and the stored login stays."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await one.log_in("stored")

        async def lost_browser() -> StorageState:
            await ended_task()
            return state_with_cookie(value="never")

        async with one.enter() as session:
            session.bind_capture(lost_browser)
            session.data["n"] = 1
        assert session.save_outcome is SaveOutcome.SAVED
    assert stored(memory).data == {"n": 1}
    assert stored(memory).storage_state == state_with_cookie(value="stored")


@pytest.mark.parametrize("hook", ["capture", "verify"])
async def test_an_agent_that_is_cancelled_in_a_hook_is_cancelled(hook: str) -> None:
    """A cancellation from outside passes on."""
    async with processes(MemoryStore(), 1, capture_timeout=0.3) as (one,):
        await one.log_in("stored")
        began = asyncio.Event()

        async def hang(_: BrowserSession) -> bool:
            began.set()
            await asyncio.sleep(60)
            return True

        async def capture() -> StorageState:
            await hang(session)
            return state_with_cookie()

        async def agent() -> None:
            nonlocal session
            async with one.enter(verify=hang if hook == "verify" else None) as session:
                session.bind_capture(capture)

        session = BrowserSession("none")
        task = asyncio.ensure_future(agent())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_exit_that_the_close_cuts_off_is_reported_lost() -> None:
    """Its browser was not read yet, so there is no change that could wait."""
    async with processes(MemoryStore(), 1, save_timeout=0.05) as (one,):
        began, session = asyncio.Event(), BrowserSession("none")

        async def slow() -> StorageState:
            began.set()
            await asyncio.sleep(60)
            return state_with_cookie()

        async def agent() -> None:
            nonlocal session
            async with one.enter() as session:
                session.bind_capture(slow)

        task = asyncio.ensure_future(agent())
        await began.wait()
        task.cancel()
        await asyncio.wait({task})
        await one.manager.aclose()
        assert session.save_outcome is SaveOutcome.LOST
        assert [name for name, _ in one.lost] == [session.fingerprint]
        assert one.manager.stats().lost == 1
