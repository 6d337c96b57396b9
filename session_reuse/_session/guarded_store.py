"""The store behind its guard: one deadline > retries > breaker > attempt.

Each server has a breaker for reads and one for writes. A full disk or a read-only replica stops saves and leaves restores
alone. A dead shard of a Cluster stops its own sessions only.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from typing import Final, NamedTuple, TypeVar

from session_reuse._resilience.breaker import BreakerPolicy, BreakerState, CircuitBreaker
from session_reuse._resilience.failure import AttemptFailed, FailureScope, Retry, circuit_open, not_understood, used_up
from session_reuse._resilience.loop_timeouts import LoopTimeouts
from session_reuse._resilience.retry import is_worth_retrying, jitter, retry
from session_reuse._store.keys import Keys
from session_reuse._store.redis.store import RedisStore

T = TypeVar("T")
Attempt = Callable[[float], Awaitable[T]]
"""Does one thing, or raises `AttemptFailed` after so many seconds without bytes of the server."""
Request = Callable[[RedisStore, float], Awaitable[T]]
"""Calls one method of a store, with so many seconds for the attempt."""
Listener = Callable[[str, "Access", BreakerState, BreakerState], None]

STORE_POLICY: Final = BreakerPolicy(consecutive=5, open_cap=2.0)
"""A frozen store fails all waiting calls at once: five in a row outweigh the good results before them."""
_CREDENTIALS_SPAN: Final = 10.0
"""Seconds without requests after the store has rejected our credentials."""
_MARGIN: Final = 0.01
"""Seconds that the end of an operation is too late on a busy machine: it is set so much before the end of the budget."""
_SEVERITY: Final = [BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN]


class Access(StrEnum):
    """Whether an operation reads or writes: each has a breaker."""

    READ = "read"
    WRITE = "write"


class Breakers(NamedTuple):
    """The breakers of one server."""

    read: CircuitBreaker
    write: CircuitBreaker

    def to(self, access: Access) -> CircuitBreaker:
        """Return the one for reads or for writes."""
        return self.write if access is Access.WRITE else self.read


class GuardedStore:
    """A store whose operations have a budget, retries where they help, and circuit breakers.

    Args:
        store: what does the work.
        keys: the names.
        attempt_timeout: seconds that an attempt may hear nothing from the server.

    Attributes:
        time: returns the time that budgets are counted by: seconds, without those in which the event loop was late.
        on_change: called with each change of a breaker's state: its server (empty where there is only one), its access, the
            old state and the new one.
        on_failure: called with each failed attempt that counts for a breaker.
    """

    def __init__(self, store: RedisStore, keys: Keys, *, attempt_timeout: float) -> None:
        self.store = store
        self.keys = keys
        self.on_change: Listener = lambda *_: None
        self.on_failure: Callable[[AttemptFailed], None] = lambda _: None
        self._attempt_timeout = attempt_timeout
        self._timeouts = LoopTimeouts()
        self.time = self._timeouts.time  # no method: it is called several times in a cycle
        self._breakers: dict[str, Breakers] = {}

    def at(self, server: str = "") -> Breakers:
        """Return the breakers of a server."""
        return self._breakers.get(server) or self._met(server)

    def state(self, access: Access) -> BreakerState:
        """Return the worst state of the breakers for reads or for writes."""
        states = [breakers.to(access).state for breakers in self._breakers.values()]
        return max(states, key=_SEVERITY.index, default=BreakerState.CLOSED)

    def _met(self, server: str) -> Breakers:
        """Make the breakers of a new server, and forget those of servers that are gone."""
        for gone in self._breakers.keys() - {"", *self.store.servers()}:
            for breaker in self._breakers.pop(gone):
                breaker.reset()  # for the listeners, which show its state
        read, write = (
            CircuitBreaker(STORE_POLICY, partial(self._changed, server, access), jitter.uniform) for access in Access
        )
        self._breakers[server] = Breakers(read, write)
        return self._breakers[server]

    def _changed(self, server: str, access: Access, old: BreakerState, new: BreakerState) -> None:
        if new is BreakerState.CLOSED and (breakers := self._breakers.get(server)):
            for breaker in breakers:  # reads recover with writes, and the other way round
                breaker.probe_now()
        self.on_change(server, access, old, new)

    def run(self, access: Access, fingerprint: str, budget: float, request: Request[T]) -> Awaitable[T]:
        """Return the reply to a request about one session. Await it at once.

        Args:
            access: whether it reads or writes: each has a breaker, and a write is repeated more often.
            fingerprint: whose session.
            budget: seconds for all attempts.
            request: one attempt.

        Raises:
            AttemptFailed: the store does not do it within the budget.
        """
        return self.attempt(access, partial(request, self.store), budget, self.server_of(fingerprint))

    def run_on(self, access: Access, key: str, budget: float, request: Request[T]) -> Awaitable[T]:
        """Return the reply to a request about another key, as `run`."""
        return self.attempt(access, partial(request, self.store), budget, self.store.server_of(key))

    def server_of(self, fingerprint: str) -> str:
        """Return which server a session lives on. Empty where there is only one."""
        return self.store.server_of(self.keys.session(fingerprint))

    async def attempt(self, access: Access, attempt: Attempt[T], budget: float, server: str = "") -> T:
        """Run an attempt, and again where that makes sense, within `budget` seconds.

        Args:
            access: whether it reads or writes.
            attempt: does it once.
            budget: seconds for all of it.
            server: the name of the server that it is sent to.

        Raises:
            AttemptFailed: no attempt succeeded, or the breaker is open.
        """
        breakers, patient = self.at(server), access is Access.WRITE
        began, last = self._timeouts.time(), None
        try:
            if budget <= 0:
                raise TimeoutError  # noqa: TRY301
            # An attempt that may use up the budget comes first: its own failure says more.
            end = max(budget - _MARGIN, min(budget, self._attempt_timeout) + _MARGIN)
            with self._timeouts.until(began + end):
                try:
                    return await self._attempt(breakers, access, attempt, began)
                except AttemptFailed as failure:
                    last = failure
                    if not is_worth_retrying(failure, patient=patient) or breakers.to(access).retry_in > 0:
                        raise
                return await retry(partial(self._attempt, breakers, access, attempt, -math.inf), patient=patient)
        except TimeoutError:
            raise last or used_up() from None

    async def _attempt(self, breakers: Breakers, access: Access, attempt: Attempt[T], first_at: float) -> T:
        breaker = breakers.to(access)
        permit = breaker.allow()
        if not permit:
            raise circuit_open(breaker.retry_in, breaker.reason)
        try:
            result = await attempt(self._attempt_timeout)
        except AttemptFailed as failure:
            # One lost connection fails all whose commands were on it: what counts is whether a fresh one works.
            took = self._timeouts.time() - first_at
            if failure.retry is Retry.ALWAYS and took < self._attempt_timeout / 2:
                breaker.cancel(permit)
            else:
                _judge(breakers, breaker, permit, failure)
                self.on_failure(failure)
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is, it must not reach the agent)
            breaker.cancel(permit)
            raise not_understood(error) from None
        except BaseException:  # the deadline's cancellation too: an attempt cut short says nothing about the server
            breaker.cancel(permit)
            raise
        breaker.record(permit, failed=False)
        return result


def _judge(breakers: Breakers, breaker: CircuitBreaker, permit: int, failure: AttemptFailed) -> None:
    """Count a failure for the breaker, if it is one of the server."""
    if failure.scope is FailureScope.REQUEST or (failure.scope is FailureScope.WRITES and breaker is breakers.read):
        breaker.cancel(permit)
        return
    breaker.record(permit, failed=True)
    if failure.scope is FailureScope.CREDENTIALS:
        breakers.read.open_now(_CREDENTIALS_SPAN, failure.error)
        breakers.write.open_now(_CREDENTIALS_SPAN, failure.error)
