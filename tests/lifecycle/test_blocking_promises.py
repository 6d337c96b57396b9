"""The blocking twin keeps the promises that depend on how it enters and leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from session_reuse import BrowserSession, SaveOutcome, blocking
from session_reuse.testing import Fault, FaultyStore, MemoryStore, state_with_cookie
from tests.lifecycle.worlds import NAME, login_of, stored


@pytest.fixture
def way() -> FaultyStore:
    """A store in memory, and a way to it that can be cut."""
    return FaultyStore(MemoryStore())


@pytest.fixture
def manager(way: FaultyStore) -> Iterator[blocking.SessionManager]:
    """A blocking manager over it."""
    with blocking.SessionManager(way, registry=None, close_timeout=0.2) as manager:
        yield manager


def test_a_blocking_agent_can_wait_for_its_save(way: FaultyStore, manager: blocking.SessionManager) -> None:
    """`settled` returns what became of the save, not a coroutine."""
    way.fail = Fault.UNAVAILABLE
    with blocking.reusable_session(NAME, manager=manager) as session:
        assert session.settled() is None
        session.data["n"] = 1
    assert session.save_outcome is SaveOutcome.PENDING
    way.heal()
    assert session.settled() is SaveOutcome.SAVED


def test_verify_of_a_blocking_agent_vouches_for_its_login(way: FaultyStore, manager: blocking.SessionManager) -> None:
    """A younger login that passed `verify` at exit replaces the stored one, as it does for asynchronous agents."""
    assert isinstance(way.store, MemoryStore)
    with blocking.reusable_session(NAME, manager=manager) as session:
        session.storage_state = state_with_cookie(value="stored")
    with blocking.SessionManager(way, registry=None) as other:
        way.fail = Fault.UNAVAILABLE
        with blocking.reusable_session(NAME, manager=other, verify=lambda _: True) as session:
            session.storage_state = state_with_cookie(value="mine")
            way.heal()
        assert session.save_outcome is SaveOutcome.SAVED
    assert login_of(stored(way.store)) == "mine"


def test_a_blocking_agent_is_verified_in_its_own_thread_only(manager: blocking.SessionManager) -> None:
    """The hook is called once at each end."""
    with blocking.reusable_session(NAME, manager=manager) as session:
        session.storage_state = state_with_cookie()
    calls = []
    with blocking.reusable_session(NAME, manager=manager, verify=lambda one: calls.append(one) or True) as session:
        assert session.reused
        assert len(calls) == 1
        session.data["n"] = 1
    assert len(calls) == 2
    with blocking.reusable_session(NAME, manager=manager, verify=lambda _: False) as session:
        assert session.outcome == "unverified"
    assert session.save_outcome is SaveOutcome.SKIPPED


def test_a_blocking_agent_is_reused_while_the_store_is_away(way: FaultyStore, manager: blocking.SessionManager) -> None:
    """It starts from what its process knows, and its checkpoint after the exit is refused."""
    with blocking.reusable_session(NAME, manager=manager) as session:
        session.storage_state = state_with_cookie(value="known")
    way.fail = Fault.UNAVAILABLE
    with blocking.reusable_session(NAME, manager=manager) as session:
        assert session.reused
        assert session.stale
        assert login_of(session) == "known"
        session.discard()


def test_an_asynchronous_check_of_a_blocking_agent_has_an_end(way: FaultyStore) -> None:
    """It hung, and with it the agent, for as long as the function did."""

    async def hangs(_session: BrowserSession) -> bool:
        await asyncio.sleep(5)
        return True

    with blocking.SessionManager(way, registry=None, verify_timeout=0.05) as manager:
        with blocking.reusable_session(NAME, manager=manager) as session:
            session.storage_state = state_with_cookie()
        with blocking.reusable_session(NAME, manager=manager, verify=hangs) as session:
            assert session.outcome == "unverified"
