"""The circuit breaker against the failures that breakers are known for, and against a model of what it should do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from session_reuse._resilience.breaker import BreakerPolicy, BreakerState, CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Callable


class _Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    """Give the time of this test."""
    return _Clock()


@pytest.fixture
def make(clock: _Clock) -> Callable[..., CircuitBreaker]:
    """Give a builder of breakers that open at 3 failures for 1, 2, 4, 8 s, and draw the longest time."""

    def build(**policy: Any) -> CircuitBreaker:
        defaults = {"min_calls": 3, "open_for": 1.0, "open_cap": 8.0}
        return CircuitBreaker(BreakerPolicy(**defaults | policy), _ignore, lambda _, high: high, clock)

    return build


def _ignore(_old: BreakerState, _new: BreakerState) -> None:
    """Take no notice of a change."""


def _fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.record(breaker.allow(), failed=True)


def _succeed(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.record(breaker.allow(), failed=False)


def _half_open(breaker: CircuitBreaker, clock: _Clock) -> int:
    """Open the breaker, let the open time pass, and return the first probe's permit."""
    breaker.open_now(1.0)
    clock.now += 1.0
    permit = breaker.allow()
    assert permit
    assert breaker.state is BreakerState.HALF_OPEN
    return permit


# --- opening -----------------------------------------------------------------------------------------------------------


def test_store_in_trouble_is_not_asked_again_and_again(make, clock) -> None:
    """After enough failures no call passes, and the breaker says for how long."""
    breaker = make()
    _fail(breaker, 3)
    assert breaker.state is BreakerState.OPEN
    assert [breaker.allow() for _ in range(4)] == [0, 0, 0, 0]
    assert breaker.retry_in == 1.0


def test_first_failures_of_a_young_process_do_not_open(make) -> None:
    """Below `min_calls` results the rate means nothing."""
    breaker = make()
    _fail(breaker, 2)
    assert breaker.state is BreakerState.CLOSED


def test_rate_at_exactly_the_threshold_opens(make) -> None:
    """11 failures of 20 are a rate of 0.55, whatever 0.55 * 20 is in binary."""
    breaker = make(failure_rate=0.55, min_calls=20)
    _succeed(breaker, 9)
    _fail(breaker, 10)
    assert breaker.state is BreakerState.CLOSED
    _fail(breaker)
    assert breaker.state is BreakerState.OPEN


def test_first_success_after_trouble_does_not_open(make) -> None:
    """A success may complete `min_calls`, but an answering store is no reason to open."""
    breaker = make(min_calls=4)
    _fail(breaker, 3)
    _succeed(breaker)
    assert breaker.state is BreakerState.CLOSED


def test_failures_of_an_hour_ago_do_not_add_up_with_new_ones(make, clock) -> None:
    """A rare failure on a quiet client never opens the breaker, however many hours it runs."""
    breaker = make(horizon=60.0)
    for _ in range(20):
        _fail(breaker)
        clock.now += 31.0
    assert breaker.state is BreakerState.CLOSED


def test_result_as_old_as_the_horizon_still_counts(make, clock) -> None:
    """The horizon itself is inside, what is older is outside."""
    breaker = make(horizon=60.0)
    _fail(breaker, 2)
    clock.now += 60.0
    _fail(breaker)
    assert breaker.state is BreakerState.OPEN


def test_old_good_results_leave_the_window(make) -> None:
    """Only the last `window` results count, so a long healthy past cannot hide an outage."""
    breaker = make(window=4, min_calls=4)
    _succeed(breaker, 1000)
    _fail(breaker, 2)
    assert breaker.state is BreakerState.OPEN


# --- neutral results ---------------------------------------------------------------------------------------------------


def test_errors_of_the_data_are_neither_failure_nor_success(make) -> None:
    """A corrupt value says nothing about the store: released permits move no count."""
    breaker = make()
    _fail(breaker, 2)
    for _ in range(50):
        breaker.cancel(breaker.allow())
    assert breaker.state is BreakerState.CLOSED
    _fail(breaker)
    assert breaker.state is BreakerState.OPEN


def test_cancelled_probe_does_not_block_recovery(make, clock) -> None:
    """A cancelled probe gives its permit back at once and decides nothing."""
    breaker = make()
    breaker.cancel(_half_open(breaker, clock))
    assert breaker.state is BreakerState.HALF_OPEN
    _succeed(breaker)
    assert breaker.state is BreakerState.CLOSED


# --- half-open ---------------------------------------------------------------------------------------------------------


async def test_recovering_store_is_not_trampled(make, clock) -> None:
    """Of 50 callers at the moment of half-open, one asks the store, and 49 are turned away without waiting."""
    breaker = make()
    half_open_since, ran = _half_open(breaker, clock), 0
    breaker.cancel(half_open_since)
    answer = asyncio.Event()

    async def call() -> None:
        nonlocal ran
        if permit := breaker.allow():
            ran += 1
            await answer.wait()
            breaker.record(permit, failed=False)

    callers = [asyncio.create_task(call()) for _ in range(50)]
    _, waiting = await asyncio.wait(callers, timeout=0)
    await asyncio.sleep(0)
    assert (ran, sum(not caller.done() for caller in callers)) == (1, 1)
    answer.set()
    await asyncio.wait(waiting)
    assert breaker.state is BreakerState.CLOSED


def test_hung_probe_is_replaced(make, clock) -> None:
    """A probe that never comes back holds its permit for the lease only, and its late result is dropped."""
    breaker = make(probe_lease=5.0)
    hung = _half_open(breaker, clock)
    clock.now += 4.75
    assert (breaker.allow(), breaker.retry_in) == (0, 0.25)
    clock.now += 0.25
    fresh = breaker.allow()
    assert fresh > hung
    breaker.record(hung, failed=True)
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.record(fresh, failed=False)
    assert breaker.state is BreakerState.CLOSED


def test_probe_given_back_twice_does_not_let_two_through(make, clock) -> None:
    """A permit is worth one call, even when a caller returns it twice."""
    breaker = make()
    permit = _half_open(breaker, clock)
    breaker.cancel(permit)
    breaker.cancel(permit)
    assert breaker.allow()
    assert not breaker.allow()


# --- results that come late --------------------------------------------------------------------------------------------


def test_success_begun_before_opening_does_not_close(make) -> None:
    """An answer that was already on its way is no sign of recovery."""
    breaker = make()
    early = breaker.allow()
    _fail(breaker, 3)
    breaker.record(early, failed=False)
    assert breaker.state is BreakerState.OPEN


def test_failures_begun_before_recovery_do_not_open_again(make, clock) -> None:
    """Timeouts of the outage that arrive after the recovery are history."""
    breaker = make()
    early = [breaker.allow() for _ in range(3)]
    breaker.record(_half_open(breaker, clock), failed=False)
    for permit in early:
        breaker.record(permit, failed=True)
    assert breaker.state is BreakerState.CLOSED


def test_closing_forgets_the_outage(make, clock) -> None:
    """After the recovery it takes the full threshold to open again."""
    breaker = make()
    breaker.record(_half_open(breaker, clock), failed=False)
    _fail(breaker, 2)
    assert breaker.state is BreakerState.CLOSED
    _fail(breaker)
    assert breaker.state is BreakerState.OPEN


def test_rejected_call_that_records_anyway_changes_nothing(make) -> None:
    """0 is not a permit."""
    breaker = make()
    for _ in range(9):
        breaker.record(0, failed=True)
        breaker.cancel(0)
    assert breaker.state is BreakerState.CLOSED


# --- open time ---------------------------------------------------------------------------------------------------------


def test_open_time_doubles_to_its_cap_through_a_day_of_outage(make, clock) -> None:
    """The open time grows 1, 2, 4, 8, 8, ... without overflow, and starts again after a recovery."""
    breaker, spans = make(), []
    _fail(breaker, 3)
    for _ in range(3000):
        spans.append(breaker.retry_in)
        clock.now += breaker.retry_in
        _fail(breaker)
    assert spans[:5] == [1.0, 2.0, 4.0, 8.0, 8.0]
    assert set(spans[5:]) == {8.0}
    clock.now += 8.0
    _succeed(breaker)
    _fail(breaker, 3)
    assert breaker.retry_in == 1.0


def test_processes_do_not_probe_in_step(clock) -> None:
    """The open time is spread between half and the whole of its length."""
    drawn: list[tuple[float, float]] = []
    breaker = CircuitBreaker(BreakerPolicy(), _ignore, lambda low, high: drawn.append((low, high)) or low, clock)
    _fail(breaker, 5)
    assert drawn == [(0.5, 1.0)]
    assert breaker.retry_in == 0.25


def test_wrong_password_opens_at_once_and_for_long(make, clock) -> None:
    """`open_now()` needs no count, lasts as long as asked, and a second one never shortens it."""
    breaker = make()
    breaker.open_now(30.0)
    breaker.open_now(1.0)
    assert breaker.retry_in == 30.0
    clock.now += 10.0
    breaker.open_now(30.0)
    assert breaker.retry_in == 30.0


# --- listeners --------------------------------------------------------------------------------------------------------


def test_listener_may_use_the_breaker(clock) -> None:
    """A listener that opens the breaker at half-open wins over the probe that was about to pass."""

    def hold_open(_: BreakerState, new: BreakerState) -> None:
        if new is BreakerState.HALF_OPEN:
            breaker.open_now(5.0)

    breaker = CircuitBreaker(BreakerPolicy(), hold_open, lambda _, high: high, clock)
    breaker.open_now(1.0)
    clock.now += 1.0
    assert breaker.allow() == 0
    assert breaker.state is BreakerState.OPEN


# --- against a model ---------------------------------------------------------------------------------------------------


class _Model:
    """The breaker as its documentation describes it, with everything kept and nothing optimised."""

    def __init__(self, policy: BreakerPolicy, now: float) -> None:
        self.policy, self.now = policy, now
        self.changes: list[tuple[BreakerState, BreakerState]] = []
        self.state = BreakerState.CLOSED
        self.openings_in_a_row = 0
        self.opened_until = 0.0
        self.begin_era()

    def begin_era(self) -> None:
        self.era = object()
        self.results: list[tuple[float, bool]] = []
        self.probes: list[float] = []

    def move(self, new: BreakerState) -> None:
        if new is not self.state:
            self.changes.append((self.state, new))
        if new is BreakerState.CLOSED:
            self.openings_in_a_row = 0
        self.state = new
        self.begin_era()

    def open(self, span: float | None) -> None:
        if span is None:
            span = min(self.policy.open_cap, self.policy.open_for * 2**self.openings_in_a_row) * 0.75
            self.openings_in_a_row += 1
        self.opened_until = self.now + span
        self.move(BreakerState.OPEN)

    def allow(self) -> object | None:
        if self.state is BreakerState.OPEN and self.now >= self.opened_until:
            self.move(BreakerState.HALF_OPEN)
        if self.state is BreakerState.HALF_OPEN:
            if self.retry_in == 0.0 and self.probes:
                self.era, self.probes = object(), []
            if not self.probes:
                self.probes.append(self.now)
                return self.era
        elif self.state is BreakerState.CLOSED:
            return self.era
        return None

    @property
    def retry_in(self) -> float:
        if self.state is BreakerState.OPEN:
            return max(0.0, self.opened_until - self.now)
        if self.state is BreakerState.HALF_OPEN and self.probes:
            return max(0.0, max(self.probes) + self.policy.probe_lease - self.now)
        return 0.0

    def record(self, era: object, granted: float, *, failed: bool) -> None:
        if era is not self.era:
            return
        if self.state is BreakerState.HALF_OPEN:
            self.give_back(granted)
            if failed:
                self.open(None)
            else:
                self.move(BreakerState.CLOSED)
        elif self.state is BreakerState.CLOSED:
            self.results.append((self.now, failed))
            if failed and self.too_many():
                self.open(None)

    def too_many(self) -> bool:
        recent = self.results[-self.policy.window :]
        recent = [result for result in recent if self.now - result[0] <= self.policy.horizon]
        if len(recent) < self.policy.min_calls:
            return False
        return sum(failed for _, failed in recent) / len(recent) >= self.policy.failure_rate

    def release(self, era: object, granted: float) -> None:
        if era is self.era and self.state is BreakerState.HALF_OPEN:
            self.give_back(granted)

    def give_back(self, granted: float) -> None:
        self.probes.remove(granted)


class _BreakerAgainstModel(RuleBasedStateMachine):
    """Any order of calls, results, waits and operators: breaker and model agree on all that can be seen."""

    @initialize(window=st.integers(3, 8))
    def begin(self, window: int) -> None:
        policy = BreakerPolicy(
            window=window,
            min_calls=3,
            open_for=1.0,
            open_cap=4.0,
            horizon=10.0,
        )
        self.clock, self.told = _Clock(), []
        self.breaker = CircuitBreaker(
            policy,
            lambda old, new: self.told.append((old, new)),
            lambda low, high: (low + high) / 2,
            self.clock,
        )
        self.model = _Model(policy, self.clock.now)
        self.in_flight: list[tuple[int, object, float]] = []
        self.permit_of_era: dict[object, int] = {}

    @rule(seconds=st.sampled_from([0.25, 0.75, 1.5, 3.0, 5.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.model.now = self.clock.now

    @rule(calls=st.integers(1, 4))
    def callers_come(self, calls: int) -> None:
        for _ in range(calls):
            self.call()

    def call(self) -> None:
        permit, era = self.breaker.allow(), self.model.allow()
        assert bool(permit) is (era is not None)
        if era is not None:
            assert self.permit_of_era.setdefault(era, permit) == permit
            assert permit == max(self.permit_of_era.values())
            self.in_flight.append((permit, era, self.clock.now))

    @precondition(lambda self: self.in_flight)
    @rule(pick=st.integers(0, 1000), failed=st.booleans())
    def result_arrives(self, pick: int, failed: bool) -> None:
        self.settle(pick, failed=failed)

    def settle(self, pick: int, *, failed: bool) -> None:
        permit, era, granted = self.in_flight.pop(pick % len(self.in_flight))
        self.breaker.record(permit, failed=failed)
        self.model.record(era, granted, failed=failed)

    @rule(results=st.lists(st.booleans(), min_size=1, max_size=8))
    def calls_one_after_the_other(self, results: list[bool]) -> None:
        for failed in results:
            before = len(self.in_flight)
            self.call()
            if len(self.in_flight) > before:
                self.settle(before, failed=failed)
            self.same_to_see()

    @precondition(lambda self: self.in_flight)
    @rule(pick=st.integers(0, 1000))
    def caller_is_cancelled(self, pick: int) -> None:
        permit, era, granted = self.in_flight.pop(pick % len(self.in_flight))
        self.breaker.cancel(permit)
        self.model.release(era, granted)

    @rule(span=st.sampled_from([0.5, 6.0]))
    def open_now(self, span: float) -> None:
        self.breaker.open_now(span)
        if self.model.state is BreakerState.OPEN:
            self.model.opened_until = max(self.model.opened_until, self.model.now + span)
        else:
            self.model.open(span)

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.model.move(BreakerState.CLOSED)

    @rule()
    def probe_now(self) -> None:
        self.breaker.probe_now()
        if self.model.state is BreakerState.OPEN:
            self.model.opened_until = self.model.now

    @invariant()
    def same_to_see(self) -> None:
        assert self.breaker.state is self.model.state
        assert self.breaker.retry_in == self.model.retry_in
        assert self.told == self.model.changes


TestBreakerAgainstModel = _BreakerAgainstModel.TestCase
TestBreakerAgainstModel.settings = settings(
    max_examples=100, stateful_step_count=60, derandomize=True, deadline=None, database=None
)
