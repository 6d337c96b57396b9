"""The way to the store: deadline > retry > breaker > attempt. Must never let a store outage become a caller's error.

Reads and writes have a breaker each: a full disk or a read-only replica stops saves, not restores.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from time import monotonic
from typing import Final, TypeVar

from session_reuse.errors import StoreTimeoutError
from session_reuse.resilience.breaker import BreakerPolicy, BreakerState, CircuitBreaker
from session_reuse.resilience.failure import Blame, Failure, Retry, circuit_open
from session_reuse.resilience.retry import retry, worth_retrying

T = TypeVar("T")
Attempt = Callable[[float], Awaitable[T]]
"""Does one thing within the seconds it is given, or raises `Failure`."""
Listener = Callable[[str, BreakerState, BreakerState], None]

STORE_POLICY: Final = BreakerPolicy(consecutive=5, open_cap=2.0)
"""A frozen store fails all who wait for it at once: five in a row tell more than the good results before them."""
_CREDENTIALS_SPAN = 10.0
"""How long the store is left alone after it has rejected our credentials."""
_READ_RETRIES = 1
_WRITE_RETRIES = 3


class Direction(StrEnum):
    """Which breaker an operation belongs to."""

    READ = "read"
    WRITE = "write"


class Guard:
    """Runs operations against the store within a budget.

    Args:
        attempt_timeout: seconds for one attempt.
        policy: when the breakers open.
        on_change: told of each change of a breaker's state.
    """

    def __init__(
        self, *, attempt_timeout: float, policy: BreakerPolicy | None = None, on_change: Listener | None = None
    ) -> None:
        listeners = (on_change,) if on_change else ()
        self.attempt_timeout = attempt_timeout
        self.read = CircuitBreaker(Direction.READ.value, policy or STORE_POLICY, on_change=listeners)
        self.write = CircuitBreaker(Direction.WRITE.value, policy or STORE_POLICY, on_change=listeners)
        for breaker, other in ((self.read, self.write), (self.write, self.read)):
            breaker.on_change.append(_inviting(other))

    async def run(self, direction: Direction, attempt: Attempt[T], budget: float) -> T:
        """Run an attempt, and again where that makes sense, within `budget` seconds.

        Raises:
            Failure: it did not work out, or the breaker is open.
        """
        began = monotonic()
        patient = direction is Direction.WRITE
        breaker = self.write if patient else self.read
        try:
            return await self._attempt(breaker, attempt, budget, first=True)
        except Failure as failure:
            if not worth_retrying(failure, patient=patient) or breaker.retry_in > 0:
                raise
            return await self._again(breaker, attempt, failure, began + budget, patient=patient)

    async def _again(
        self, breaker: CircuitBreaker, attempt: Attempt[T], failure: Failure, until: float, *, patient: bool
    ) -> T:
        async def once() -> T:
            return await self._attempt(breaker, attempt, until - monotonic(), first=False)

        deadline = asyncio.get_running_loop().time() + until - monotonic()
        retries = _WRITE_RETRIES if patient else _READ_RETRIES
        return await retry(once, failure, deadline=deadline, attempts=retries, patient=patient)

    async def _attempt(self, breaker: CircuitBreaker, attempt: Attempt[T], left: float, *, first: bool) -> T:
        if left <= 0:
            raise Failure(StoreTimeoutError("the budget is used up"), "budget", Retry.NEVER, Blame.NOBODY)
        permit = breaker.allow()
        if not permit:
            raise circuit_open(breaker.name, breaker.retry_in)
        began = monotonic()
        try:
            result = await attempt(min(self.attempt_timeout, left))
        except Failure as failure:
            self._judge(breaker, permit, failure, monotonic() - began, first=first)
            raise
        except BaseException:
            breaker.release(permit)
            raise
        breaker.record(permit, failed=False, took=monotonic() - began)
        return result

    def _judge(self, breaker: CircuitBreaker, permit: int, failure: Failure, took: float, *, first: bool) -> None:
        if failure.blame is Blame.CREDENTIALS:
            breaker.record(permit, failed=True, took=took)
            self.read.trip(_CREDENTIALS_SPAN)
            self.write.trip(_CREDENTIALS_SPAN)
        elif failure.blame is Blame.NOBODY or (failure.blame is Blame.WRITES and breaker is self.read):
            breaker.release(permit)
        elif first and failure.retry is Retry.ALWAYS and took < self.attempt_timeout / 2:
            # One lost connection fails all whose commands were on it: what counts is whether a fresh one works.
            breaker.release(permit)
        else:
            breaker.record(permit, failed=True, took=took)


def _inviting(other: CircuitBreaker) -> Listener:
    """Return a listener that has the other direction probed as soon as this one has recovered."""

    def changed(_name: str, _old: BreakerState, new: BreakerState) -> None:
        if new is BreakerState.CLOSED:
            other.invite()

    return changed
