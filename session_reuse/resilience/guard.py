"""The way to the store: deadline > retry > breaker > attempt. Must never let a store outage become a caller's error.

Each server has a breaker for reads and one for writes: a full disk or a read-only replica stops saves, not restores, and
a dead shard of a Cluster stops its own sessions only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from enum import StrEnum
from functools import partial
from time import monotonic
from typing import Final, NamedTuple, TypeVar

from session_reuse.errors import StoreTimeoutError
from session_reuse.resilience.breaker import BreakerPolicy, BreakerState, CircuitBreaker
from session_reuse.resilience.failure import Blame, Failure, Retry, circuit_open
from session_reuse.resilience.retry import retry, worth_retrying

T = TypeVar("T")
Attempt = Callable[[float], Awaitable[T]]
"""Does one thing within the seconds it is given, or raises `Failure`."""
Listener = Callable[["Change"], None]

STORE_POLICY: Final = BreakerPolicy(consecutive=5, open_cap=2.0)
"""A frozen store fails all who wait for it at once: five in a row tell more than the good results before them."""
_CREDENTIALS_SPAN = 10.0
"""How long the store is left alone after it has rejected our credentials."""
_READ_RETRIES = 1
_WRITE_RETRIES = 3
_SEVERITY: Final = [
    BreakerState.DISABLED, BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN, BreakerState.FORCED_OPEN,
]  # fmt: skip


class Direction(StrEnum):
    """Which breaker an operation belongs to."""

    READ = "read"
    WRITE = "write"


class Breakers(NamedTuple):
    """The breakers of one server."""

    read: CircuitBreaker
    write: CircuitBreaker

    def to(self, direction: Direction) -> CircuitBreaker:
        """Return the one for this direction."""
        return self.write if direction is Direction.WRITE else self.read


class Change(NamedTuple):
    """A breaker has changed its state.

    Attributes:
        server: whose breaker, empty where there is only one server.
        direction: which breaker.
    """

    server: str
    direction: Direction
    old: BreakerState
    new: BreakerState


class Guard:
    """Runs operations against the store within a budget.

    Args:
        attempt_timeout: seconds for one attempt.
        policy: when the breakers open.
        servers: returns the names of the servers there are now; breakers of others are forgotten.

    Attributes:
        on_change: told of each change of a breaker's state.
    """

    def __init__(
        self,
        *,
        attempt_timeout: float,
        policy: BreakerPolicy | None = None,
        servers: Callable[[], Collection[str]] = lambda: ("",),
    ) -> None:
        self.attempt_timeout = attempt_timeout
        self.on_change: list[Listener] = []
        self._policy = policy or STORE_POLICY
        self._servers = servers
        self._breakers: dict[str, Breakers] = {}

    def at(self, server: str = "") -> Breakers:
        """Return the breakers of a server."""
        return self._breakers.get(server) or self._met(server)

    def state(self, direction: Direction) -> BreakerState:
        """Return the worst state that the breakers of this direction are in."""
        states = [breakers.to(direction).state for breakers in self._breakers.values()]
        return max(states, key=_SEVERITY.index, default=BreakerState.CLOSED)

    def _met(self, server: str) -> Breakers:
        """Make the breakers of a server that is new, and forget those of servers that are no more."""
        for gone in self._breakers.keys() - {"", *self._servers()}:
            for breaker in self._breakers[gone]:
                breaker.reset()
            del self._breakers[gone]
        read, write = (CircuitBreaker(direction.value, self._policy) for direction in Direction)
        for direction, breaker, other in ((Direction.READ, read, write), (Direction.WRITE, write, read)):
            breaker.on_change += [partial(self._changed, server, direction), partial(_invite, other)]
        self._breakers[server] = Breakers(read, write)
        return self._breakers[server]

    def _changed(self, server: str, direction: Direction, _name: str, old: BreakerState, new: BreakerState) -> None:
        for listener in tuple(self.on_change):
            listener(Change(server, direction, old, new))

    async def run(self, direction: Direction, attempt: Attempt[T], budget: float, server: str = "") -> T:
        """Run an attempt, and again where that makes sense, within `budget` seconds.

        Args:
            direction: whether it reads or writes.
            attempt: does it, once.
            budget: seconds for all of it.
            server: which one is asked, as the store names it.

        Raises:
            Failure: it did not work out, or the breaker is open.
        """
        until = monotonic() + budget
        breakers = self.at(server)
        try:
            return await self._attempt(breakers, direction, attempt, budget, first=True)
        except Failure as failure:
            patient = direction is Direction.WRITE
            if not worth_retrying(failure, patient=patient) or breakers.to(direction).retry_in > 0:
                raise
            return await self._again(breakers, direction, attempt, failure, until)

    async def _again(
        self, breakers: Breakers, direction: Direction, attempt: Attempt[T], failure: Failure, until: float
    ) -> T:
        async def once() -> T:
            return await self._attempt(breakers, direction, attempt, until - monotonic(), first=False)

        patient = direction is Direction.WRITE
        deadline = asyncio.get_running_loop().time() + until - monotonic()
        retries = _WRITE_RETRIES if patient else _READ_RETRIES
        return await retry(once, failure, deadline=deadline, attempts=retries, patient=patient)

    async def _attempt(
        self, breakers: Breakers, direction: Direction, attempt: Attempt[T], left: float, *, first: bool
    ) -> T:
        if left <= 0:
            raise Failure(StoreTimeoutError("the budget is used up"), "budget", Retry.NEVER, Blame.NOBODY)
        breaker = breakers.to(direction)
        permit = breaker.allow()
        if not permit:
            raise circuit_open(breaker.name, breaker.retry_in, breaker.reason)
        began = monotonic()
        try:
            result = await attempt(min(self.attempt_timeout, left))
        except Failure as failure:
            took = monotonic() - began
            if first and failure.retry is Retry.ALWAYS and took < self.attempt_timeout / 2:
                # One lost connection fails all whose commands were on it: what counts is whether a fresh one works.
                breaker.release(permit)
            else:
                _judge(breakers, breaker, permit, failure, took)
            raise
        except BaseException:
            breaker.release(permit)
            raise
        breaker.record(permit, failed=False, took=monotonic() - began)
        return result


def _judge(breakers: Breakers, breaker: CircuitBreaker, permit: int, failure: Failure, took: float) -> None:
    """Tell the breaker of a failure, if it is one of the server."""
    if failure.blame is Blame.CREDENTIALS:
        breaker.record(permit, failed=True, took=took)
        breakers.read.trip(_CREDENTIALS_SPAN, failure.error)
        breakers.write.trip(_CREDENTIALS_SPAN, failure.error)
    elif failure.blame is Blame.NOBODY or (failure.blame is Blame.WRITES and breaker is breakers.read):
        breaker.release(permit)
    else:
        breaker.record(permit, failed=True, took=took)


def _invite(other: CircuitBreaker, _name: str, _old: BreakerState, new: BreakerState) -> None:
    """Have the other direction probed as soon as this one has recovered."""
    if new is BreakerState.CLOSED:
        other.invite()
