"""Prometheus metrics. Labels are closed sets: never a fingerprint, an agent, a key or a message.

An error is not a miss: `session_miss_total` counts proven absence or unusable data, `session_degraded_total` the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from session_reuse.config import DEFAULT_REGISTRY
from session_reuse.outcome import Outcome, SaveOutcome

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

RESTORE_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0)
SAVE_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
BREAKER_STATES: Final = ("closed", "half_open", "open", "forced_open", "disabled")
MISSES: Final = tuple(outcome for outcome in Outcome if outcome is not Outcome.REUSED and not outcome.degraded)
OPERATIONS: Final = ("restore", "save", "lease", "invalidate", "mark", "cleanup")


class Metrics:
    """All metrics of one registry, with the children of closed label sets bound once.

    Args:
        registry: where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        self._reused = counter("session_reused_total", "Enters that restored a stored session.")
        misses = counter("session_miss_total", "Enters that found no usable session, by reason.", "reason")
        self._misses = {reason: misses.labels(reason.value) for reason in MISSES}
        self._degraded = counter(
            "session_degraded_total", "Operations the store did not do, by operation and reason.", "op", "reason"
        )
        saves = counter("session_saved_total", "Saves by what they did.", "outcome")
        self._saves = {outcome: saves.labels(outcome.value) for outcome in SaveOutcome}
        self._restore = Histogram(
            "session_restore_seconds", "Time an enter spent on the store.", buckets=RESTORE_BUCKETS, registry=registry
        )
        self._save = Histogram("session_save_seconds", "Time a save took.", buckets=SAVE_BUCKETS, registry=registry)
        self._breaker = gauge("session_breaker_state", "1 for the state a breaker is in.", "breaker", "state")
        for breaker in ("read", "write"):
            self.breaker_changed(breaker, "closed")
        self._pending = gauge("session_pending_saves", "Saves that wait in memory for the store.")
        self._lost = counter("session_pending_lost_total", "Waiting saves given up, at a bound or at close.")
        self._flushed = counter("session_pending_flushed_total", "Waiting saves written after the store came back.")
        self._expired = counter("session_expired_total", "Expired sessions whose traces were removed.")
        self._lag = gauge("session_reconcile_lag_seconds", "How overdue the oldest unchecked deadline is.")
        self._gaps = counter("session_notifications_gap_total", "Times when expiry events may have been missed.")
        self._under_replicated = counter(
            "session_under_replicated_total", "Saves that fewer replicas acknowledged than asked for."
        )

    def entered(self, outcome: Outcome, seconds: float) -> None:
        """Count one enter and its time."""
        self._restore.observe(seconds)
        if outcome is Outcome.REUSED:
            self._reused.inc()
        elif outcome.degraded:
            self.degraded("restore", outcome)
        else:
            self._misses[outcome].inc()

    def degraded(self, operation: str, reason: Outcome) -> None:
        """Count one thing the store did not do."""
        self._degraded.labels(operation, reason.value).inc()

    def saved(self, outcome: SaveOutcome, seconds: float) -> None:
        """Count one save and its time."""
        self._save.observe(seconds)
        self._saves[outcome].inc()

    def breaker_changed(self, breaker: str, state: str) -> None:
        """Show the state a breaker is in."""
        for each in BREAKER_STATES:
            self._breaker.labels(breaker, each).set(each == state)

    def pending(self, count: int) -> None:
        """Show how many saves wait."""
        self._pending.set(count)

    def lost(self, count: int) -> None:
        """Count waiting saves given up."""
        self._lost.inc(count)

    def flushed(self) -> None:
        """Count a waiting save that was written."""
        self._flushed.inc()

    def expired(self) -> None:
        """Count an expired session whose traces were removed."""
        self._expired.inc()

    def reconcile_lag(self, seconds: float) -> None:
        """Show how overdue the oldest unchecked deadline is."""
        self._lag.set(seconds)

    def notifications_gap(self) -> None:
        """Count a time when expiry events may have been missed."""
        self._gaps.inc()

    def under_replicated(self) -> None:
        """Count a save that fewer replicas acknowledged than asked for."""
        self._under_replicated.inc()


class NoMetrics(Metrics):
    """The same interface, counting nothing."""

    def __init__(self) -> None:
        pass

    def __getattribute__(self, name: str) -> Any:
        return _nothing if not name.startswith("__") else object.__getattribute__(self, name)


def _nothing(*_: object) -> None:
    return None


_by_registry: WeakKeyDictionary[Any, Metrics] = WeakKeyDictionary()


def metrics_for(registry: Any) -> Metrics:
    """Return the metrics of a registry, registering them the first time; None gives metrics that count nothing."""
    if registry is None:
        return NoMetrics()
    if registry is DEFAULT_REGISTRY or registry == DEFAULT_REGISTRY:
        from prometheus_client import REGISTRY as registry  # noqa: N811  (costs nothing at import)
    if registry not in _by_registry:
        _by_registry[registry] = Metrics(registry)
    return _by_registry[registry]
