"""The circuit breaker: it stops requests to a store that fails.

A state machine in plain synchronous code, so that each step is atomic within one event loop. It is not thread-safe, so
each loop has its own. Its state is local to the process: a breaker kept in Redis needs the Redis that is down.

A caller gets a permit from `allow()` and returns it exactly once: by `record()` after an answer or a failure of the store,
by `cancel()` after an error that says nothing about the store. A permit is the number of the generation it was granted
in. Every change of state begins a new generation, and permits of earlier ones change nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic

from session_reuse.errors import StoreError


class BreakerState(StrEnum):
    """Whether calls pass."""

    CLOSED = "closed"
    """All calls pass. Their results are counted."""
    OPEN = "open"
    """No call passes until the open time is over."""
    HALF_OPEN = "half_open"
    """One probe passes. It decides whether to close or to open again."""


Listener = Callable[[BreakerState, BreakerState], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerPolicy:
    """When a breaker opens and how it closes again. Durations are seconds."""

    window: int = 20
    """How many of the last results are looked at."""
    min_calls: int = 5
    """With fewer results than this the breaker stays closed."""
    failure_rate: float = 0.5
    """Open at this share of failures in the window."""
    consecutive: int = 0
    """Open after so many failures in a row, however good the window looks. 0 never does so."""
    open_for: float = 0.5
    """How long to stay open the first time. Doubled at each opening until the breaker has closed."""
    open_cap: float = 30.0
    """Longest open time. Half of it to all of it is used, at random, so that processes do not probe at once."""
    probe_lease: float = 5.0
    """How long after a probe was let through another one may take the place of one that never came back."""
    horizon: float = 60.0
    """Results older than this are forgotten."""


class CircuitBreaker:
    """Allow calls while the store answers, and reject them at once while it does not.

    Args:
        policy: when to open and how to close.
        on_change: called with the old and the new state after each change of state.
        uniform: a random number between its two arguments.
        clock: seconds that never go back.

    Attributes:
        reason: why it is open, if `open_now` was given a reason.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        on_change: Listener,
        uniform: Callable[[float, float], float],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.reason: StoreError | None = None
        self._policy = policy
        self._on_change = on_change
        self._clock = clock
        self._uniform = uniform
        self._results: deque[tuple[float, bool]] = deque(maxlen=self._policy.window)
        self._state = BreakerState.CLOSED
        self._generation = 1
        self._open_until = 0.0
        self._span = 0.0
        self._lease_ends = 0.0
        self._probe_is_out = False
        self._in_a_row = 0

    @property
    def state(self) -> BreakerState:
        """The state as of the last call. Reading it changes nothing."""
        return self._state

    @property
    def retry_in(self) -> float:
        """Seconds until `allow()` may grant a permit again: 0.0 if now."""
        if self._state is BreakerState.OPEN:
            return max(0.0, self._open_until - self._clock())
        if self._state is BreakerState.HALF_OPEN and self._probe_is_out:
            return max(0.0, self._lease_ends - self._clock())
        return 0.0

    def allow(self) -> int:
        """Return a permit for a call, or 0 when the call is rejected."""
        if self._state is BreakerState.CLOSED:
            return self._generation
        return self._allow_probe()

    def record(self, permit: int, *, failed: bool) -> None:
        """Count the result of a permitted call."""
        if permit != self._generation:  # the call began before the last change of state
            return
        if self._state is BreakerState.CLOSED:
            self._in_a_row = self._in_a_row + 1 if failed else 0
            self._results.append((self._clock(), failed))
            if failed and self._too_many():
                self._open(self._next_span())
        elif self._state is BreakerState.HALF_OPEN:
            self._judge_probe(failed=failed)

    def cancel(self, permit: int) -> None:
        """Return a permit uncounted: the call was cancelled, or failed for a reason on our side."""
        if permit == self._generation:
            self._probe_is_out = False

    def open_now(self, span: float, reason: StoreError | None = None) -> None:
        """Open at once, e.g. on a wrong password.

        Args:
            span: seconds to stay open. It does not shorten an open time.
            reason: the error for rejected calls, if it is known.
        """
        if self._state is BreakerState.OPEN:
            self._open_until = max(self._open_until, self._clock() + span)
        else:
            self._open(span)
        if self._state is BreakerState.OPEN:  # a listener may have closed it again
            self.reason = reason

    def probe_now(self) -> None:
        """End the open time now, so that the next call is a probe."""
        if self._state is BreakerState.OPEN:
            self._open_until = self._clock()

    def reset(self) -> None:
        """Close now, from any state, and forget all results."""
        self._span = 0.0
        self._move(BreakerState.CLOSED)

    def _allow_probe(self) -> int:
        now = self._clock()
        if self._state is BreakerState.OPEN:
            if now < self._open_until:
                return 0
            self._move(BreakerState.HALF_OPEN)
        elif self._probe_is_out:
            if now < self._lease_ends:
                return 0
            self._generation += 1  # should the probe that is replaced still come back, it is stale
        if self._state is not BreakerState.HALF_OPEN:  # a listener has opened it again
            return 0
        self._probe_is_out = True
        self._lease_ends = now + self._policy.probe_lease
        return self._generation

    def _judge_probe(self, *, failed: bool) -> None:
        if not self._probe_is_out:
            return  # given back before
        if failed:
            self._open(self._next_span())
        else:
            self.reset()

    def _too_many(self) -> bool:
        policy, oldest = self._policy, self._clock() - self._policy.horizon
        if policy.consecutive and self._in_a_row >= policy.consecutive:
            return True
        recent = [failed for at, failed in self._results if at >= oldest]
        return len(recent) >= policy.min_calls and sum(recent) / len(recent) >= policy.failure_rate

    def _next_span(self) -> float:
        self._span = min(self._policy.open_cap, max(self._policy.open_for, 2 * self._span))
        return self._span * self._uniform(0.5, 1.0)

    def _open(self, span: float) -> None:
        self._open_until = self._clock() + span
        self._move(BreakerState.OPEN)

    def _move(self, new: BreakerState) -> None:
        old, self._state = self._state, new
        self._generation += 1
        self._results.clear()
        self._probe_is_out = False
        self._in_a_row = 0
        if new is not BreakerState.HALF_OPEN:
            self.reason = None
        if new is not old:
            self._on_change(old, new)
