"""Prometheus metrics. Labels are closed sets: no fingerprint, agent, key or message.

An error is not a miss: `session_miss_total` counts proven absence or unusable data, `session_degraded_total` the store.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from enum import StrEnum
from itertools import product
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet

from session_reuse._telemetry.guard import report_once
from session_reuse.config import DEFAULT_REGISTRY, Registry
from session_reuse.outcome import Liveness, Outcome, SaveOutcome

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class Operation(StrEnum):
    """An operation of the store."""

    RESTORE = "restore"
    SAVE = "save"
    LEASE = "lease"
    INVALIDATE = "invalidate"
    CLEANUP = "cleanup"
    KEEP = "keep"


RESTORE_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0)
SAVE_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
BREAKERS: Final = ("read", "write")
BREAKER_STATES: Final = ("closed", "half_open", "open")
MISSES: Final = tuple(outcome for outcome in Outcome if outcome is not Outcome.REUSED and not outcome.degraded)
DEGRADED: Final = tuple(outcome for outcome in Outcome if outcome.degraded)

_ATTRIBUTE: Final = "_session_reuse_metrics"
"""Attribute of a registry with its `Metrics`, so that a reload of this package finds them."""
_lock = threading.RLock()
"""Guards registration and the sums of gauges. Reentrant: a signal handler may use it, too."""


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603  (another thread may have held it at the fork)
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


class Gauges(Protocol):
    """The values of one manager that the gauges sum up."""

    pending_saves: int
    breakers: dict[str, str]
    lag: float


class _Off:
    """Stands for a metric that could not be registered."""

    def labels(self, *_: object) -> _Off:
        return self

    def inc(self, _amount: float = 1) -> None:
        """Count nothing."""

    observe = set = inc


class Metrics:
    """All metrics of one registry.

    A metric that cannot be registered is off. The others work. Reasons are a name that is taken, or a missing directory
    of the multiprocess mode.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self._registry = registry
        self._refused: dict[str, Exception] = {}
        self._process = os.getpid()
        self._managers: WeakSet[Gauges] = WeakSet()  # a manager that was not closed counts only while it lives
        add = self._add
        self.reused = add(Counter, "session_reused_total", "Enters that restored a stored session.")
        self.stale = add(
            Counter, "session_reused_stale_total", "Reuses of this process's own copy while the store was away."
        )
        self.misses = add(
            Counter, "session_miss_total", "Enters that found no usable session, by reason.", {"reason": MISSES}
        )
        self.degraded = add(
            Counter, "session_degraded_total", "Operations the store did not do, by operation and reason.",
            {"op": tuple(Operation), "reason": DEGRADED},
        )  # fmt: skip
        self.saves = add(Counter, "session_saved_total", "Saves by what they did.", {"outcome": tuple(SaveOutcome)})
        self.restore_seconds = add(
            Histogram, "session_restore_seconds", "Time an enter spent on the store.", buckets=RESTORE_BUCKETS
        )
        self.save_seconds = add(Histogram, "session_save_seconds", "Time a save took.", buckets=SAVE_BUCKETS)
        self.lost = add(
            Counter, "session_pending_lost_total", "Saves with changes given up at a bound, at an end, or after a wait."
        )
        self.flushed = add(Counter, "session_pending_flushed_total", "Waiting saves written after the store came back.")
        self.expired = add(Counter, "session_expired_total", "Expired sessions whose traces were removed.")
        self.probes = add(
            Counter, "session_probes_total", "Probes of stored logins by their verdict.", {"verdict": tuple(Liveness)}
        )
        self.gaps = add(Counter, "session_notifications_gap_total", "Times when expiry events may have been missed.")
        self.under_replicated = add(
            Counter, "session_under_replicated_total", "Saves that fewer replicas acknowledged than asked for."
        )
        self._breakers = add(
            Gauge, "session_breaker_state", "How many managers have this breaker in this state.",
            {"breaker": BREAKERS, "state": BREAKER_STATES}, multiprocess_mode="livesum",
        )  # fmt: skip
        self._pending = add(
            Gauge, "session_pending_saves", "Saves that wait in memory for the store, over all managers.",
            multiprocess_mode="livesum",
        )  # fmt: skip
        self._lag = add(
            Gauge, "session_reconcile_lag_seconds", "How overdue the oldest unchecked deadline is.",
            multiprocess_mode="livemax",
        )  # fmt: skip
        for refusal in self._refused.values():  # one line, about all of them
            report_once("metrics", refusal, f" (off: {', '.join(self._refused)})")

    def _add(
        self, kind: Any, name: str, text: str, labels: dict[str, Sequence[StrEnum | str]] | None = None, **options: Any
    ) -> Any:
        """Return a registered metric, or its children by label values. If that fails, they count nothing."""
        try:
            metric = kind(name, text, tuple(labels or ()), registry=self._registry, **options)
            return metric if labels is None else _children(metric, labels)
        except Exception as error:  # noqa: BLE001  (the registry of the application may raise anything)
            self._refused[name] = error
            return _Off() if labels is None else _children(_Off(), labels)

    def entered(self, outcome: Outcome, seconds: float, *, stale: bool) -> None:
        """Count an enter."""
        self.restore_seconds.observe(seconds)
        if outcome is Outcome.REUSED:
            self.reused.inc()
            if stale:
                self.stale.inc()
        elif outcome.degraded:
            self.degraded[Operation.RESTORE, outcome].inc()
        else:
            self.misses[outcome].inc()

    def saved(self, outcome: SaveOutcome, seconds: float) -> None:
        """Count a save."""
        self.save_seconds.observe(seconds)
        self.saves[outcome].inc()

    def add_manager(self, manager: Gauges) -> None:
        """Add the gauges of a manager to the sums."""
        with _lock:
            self._forget_other_process()
            self._managers.add(manager)
            self.show_gauges()

    def remove_manager(self, manager: Gauges) -> None:
        """Remove the gauges of a manager from the sums."""
        with _lock:
            self._managers.discard(manager)
            self.show_gauges()

    def show_gauges(self) -> None:
        """Set each gauge to the sum over living managers, the lag to the largest."""
        with _lock:
            self._forget_other_process()
            managers = list(self._managers)
            self._pending.set(sum(manager.pending_saves for manager in managers))
            self._lag.set(max((manager.lag for manager in managers), default=0.0))
            states = [pair for manager in managers for pair in manager.breakers.items()]
            for pair, gauge in self._breakers.items():
                gauge.set(states.count(pair))

    def _forget_other_process(self) -> None:
        """Forget the managers of the parent process after a fork."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._managers.clear()


def _children(metric: Any, labels: dict[str, Sequence[StrEnum | str]]) -> dict[Any, Any]:
    """Return the children of a metric by label value, or by pair of label values."""
    # Made at once, so that each counter is exported as 0 before its first event.
    found = {values: metric.labels(*values) for values in product(*labels.values())}
    return found if len(labels) > 1 else {values[0]: child for values, child in found.items()}


def metrics_for(registry: Registry) -> Metrics | None:
    """Return the metrics of a registry, registered the first time. None for a registry that is None or unfit."""
    if registry is None:
        return None
    try:
        if registry == DEFAULT_REGISTRY:
            from prometheus_client import REGISTRY

            registry = REGISTRY
        with _lock:
            metrics = getattr(registry, _ATTRIBUTE, None)
            if metrics is None:
                metrics = Metrics(registry)
                setattr(registry, _ATTRIBUTE, metrics)
            return metrics
    except Exception as error:  # noqa: BLE001  (the registry of the application may raise anything)
        report_once("metrics", error)
        return None
