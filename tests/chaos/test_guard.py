"""What the guard makes of failures: which count for the breaker, and what a recovery sets off."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from session_reuse._resilience.breaker import BreakerState
from session_reuse._resilience.failure import AttemptFailed, FailureScope, Retry
from session_reuse._session.guarded_store import Access, GuardedStore
from session_reuse._store.keys import Keys
from session_reuse.errors import StoreTimeoutError, StoreUnavailableError
from session_reuse.testing import MemoryStore


def lost() -> AttemptFailed:
    """A connection was lost."""
    return AttemptFailed(StoreUnavailableError(""), "ConnectionError", Retry.ALWAYS, FailureScope.SERVER)


def silent() -> AttemptFailed:
    """There was no answer in time."""
    return AttemptFailed(StoreTimeoutError(""), "TimeoutError", Retry.SAVE, FailureScope.SERVER)


def guarded(attempt_timeout: float) -> GuardedStore:
    """Return a guard of one server."""
    return GuardedStore(MemoryStore(), Keys(), attempt_timeout=attempt_timeout)


class Store:
    """Fails as told, then answers."""

    def __init__(self, *failures: AttemptFailed) -> None:
        self.failures = list(failures)
        self.attempts = 0

    async def answer(self, _timeout: float) -> str:
        """Be an attempt."""
        self.attempts += 1
        if self.failures:
            raise self.failures.pop(0)
        return "value"


async def test_one_lost_connection_opens_the_breaker_for_a_whole_batch() -> None:
    """All whose commands were on a lost connection repeat them, and the breaker stays closed."""
    guard = guarded(0.15)
    stores = [Store(lost()) for _ in range(100)]
    answers = await asyncio.gather(*(guard.attempt(Access.READ, store.answer, 1.0) for store in stores))
    assert answers == ["value"] * 100
    assert guard.at().read.state is BreakerState.CLOSED


async def test_a_server_that_is_down_opens_the_breaker() -> None:
    """When the fresh connection fails as well, it counts."""
    guard = guarded(0.15)
    for _ in range(5):
        with pytest.raises(AttemptFailed):
            await guard.attempt(Access.READ, Store(*[lost()] * 9).answer, 1.0)
    assert guard.at().read.state is BreakerState.OPEN


async def test_a_good_past_does_not_hide_a_frozen_store() -> None:
    """Five silent attempts in a row open the breaker, although the window is full of good ones."""
    guard = guarded(0.15)
    for _ in range(50):
        await guard.attempt(Access.READ, Store().answer, 1.0)
    for _ in range(5):
        with pytest.raises(AttemptFailed):
            await guard.attempt(Access.READ, Store(silent()).answer, 1.0)
    assert guard.at().read.state is BreakerState.OPEN


async def test_an_attempt_that_never_ends_is_ended_within_the_budget() -> None:
    """A reply that drips keeps its attempt alive: the budget ends it, and the end is not late by as much as a tick."""
    guard, took = guarded(0.05), []
    for _ in range(5):
        began = monotonic()
        with pytest.raises(AttemptFailed):
            await guard.attempt(Access.WRITE, lambda _timeout: asyncio.get_running_loop().create_future(), 0.2)
        took.append(monotonic() - began)
    assert min(took) < 0.2  # a busy machine makes some of them late


async def test_saves_go_on_as_soon_as_restores_work_again() -> None:
    """When one direction has recovered, the other is probed at once."""
    guard = guarded(0.15)
    guard.at().write.open_now(60.0)
    guard.at().read.open_now(1e-9)
    await guard.attempt(Access.READ, Store().answer, 1.0)
    assert guard.at().read.state is BreakerState.CLOSED
    assert guard.at().write.retry_in == 0.0
    await guard.attempt(Access.WRITE, Store().answer, 1.0)
    assert guard.at().write.state is BreakerState.CLOSED
