"""The store behind its guard: each request has a budget, retries where they help, and passes a circuit breaker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from session_reuse._resilience.guard import Access, Guard
from session_reuse._store.keys import Keys
from session_reuse._store.redis.store import RedisStore

T = TypeVar("T")
Request = Callable[[RedisStore, float], Awaitable[T]]
"""Calls one method of a store, with so many seconds for the attempt."""


class GuardedStore:
    """A store, and the guard that each request passes.

    Args:
        store: what does the work.
        guard: deadlines, retries, breakers.
        keys: the names.

    Attributes:
        time: returns the time that budgets are counted by: seconds, without those in which the event loop was late.
    """

    def __init__(self, store: RedisStore, guard: Guard, keys: Keys) -> None:
        self.store = store
        self.guard = guard
        self.keys = keys
        self.time = guard.timeouts.time  # no method: it is called several times in a cycle

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
        return self.guard.run(access, partial(request, self.store), budget, self.server_of(fingerprint))

    def run_on(self, access: Access, key: str, budget: float, request: Request[T]) -> Awaitable[T]:
        """Return the reply to a request about another key, as `run`."""
        return self.guard.run(access, partial(request, self.store), budget, self.store.server_of(key))

    def server_of(self, fingerprint: str) -> str:
        """Return which server a session lives on. Empty where there is only one."""
        return self.store.server_of(self.keys.session(fingerprint))
