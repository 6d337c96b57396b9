"""`Telemetry`: the counters, logs and gauges of one manager. Its methods do not raise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from session_reuse._telemetry import spans
from session_reuse._telemetry.guard import report_once
from session_reuse._telemetry.logs import Event, log
from session_reuse._telemetry.metrics import Metrics, Operation, metrics_for
from session_reuse._telemetry.store_health import Side, StoreHealth
from session_reuse.config import LostCallback, Registry
from session_reuse.errors import StoreError
from session_reuse.outcome import Liveness, Outcome, SaveOutcome

_SIDES: Final[dict[Operation, Side]] = {
    Operation.RESTORE: "read", Operation.KEEP: "read", Operation.CLEANUP: "cleanup",
}  # fmt: skip
"""The side of a store that an operation belongs to. All others write."""
_REPEAT: Final = 600.0
"""Seconds after which a lasting failure is logged as a warning again."""
_PROOFS: Final = frozenset({SaveOutcome.SAVED, SaveOutcome.UNCHANGED, SaveOutcome.MERGED})
"""Outcomes of a save that prove that the store works. A stale one may be known without it."""


@dataclass(slots=True)
class Counts:
    """Numbers for `stats()`, the same as those of the metrics, without a registry."""

    entered: Counter[Outcome] = field(default_factory=Counter)
    saved: Counter[SaveOutcome] = field(default_factory=Counter)
    flushed: int = 0
    lost: int = 0


class Telemetry:
    """The instruments of one manager.

    Args:
        registry: a `prometheus_client.CollectorRegistry`, `DEFAULT_REGISTRY`, or None for no metrics.
        health: state of the store, shared by its managers.

    Attributes:
        counts: the numbers so far.
        pending_saves: saves that wait now.
        breakers: the state of each breaker.
        lag: seconds by which the oldest unchecked deadline is overdue.
    """

    tracing = staticmethod(spans.tracing)
    restore_span = staticmethod(spans.restore_span)
    save_span = staticmethod(spans.save_span)

    def __init__(self, registry: Registry = None, health: StoreHealth | None = None) -> None:
        self.counts = Counts()
        self.pending_saves = 0
        self.breakers = {"read": "closed", "write": "closed"}
        self.lag = 0.0
        self._logged: dict[str, tuple[str, float]] = {}
        self._health = health if health is not None else StoreHealth("the store")
        self._metrics = metrics_for(registry)
        self._count(lambda metrics: metrics.add_manager(self))

    def named(self, error: StoreError) -> StoreError:
        """Return the same error with the address of the store, without a password, and with the way to the cause."""
        return type(error)(f"{self._health.store}: {error}{self._health.remedy}")

    def close(self) -> None:
        """Remove the gauges. Counters stay."""
        self._count(lambda metrics: metrics.remove_manager(self))

    # Enter and save --------------------------------------------------------------------------------------------------

    def entered(self, fingerprint: str, outcome: Outcome, seconds: float, *, stale: bool = False) -> None:
        """Count and log an enter. A degraded outcome counts as a failed operation of the store.

        `stale` stands for the copy of this process, because the store was away.
        """
        seconds = max(0.0, seconds)  # the clock of the budgets goes back by up to 5 ms after a busy turn of the loop
        self.counts.entered[outcome] += 1
        self._count(lambda metrics: metrics.entered(outcome, seconds, stale=stale))
        if not stale and not outcome.degraded:
            self._health.worked("read")
        event = Event.RESTORED if outcome is Outcome.REUSED else Event.MISSED
        log.debug(event, fingerprint=fingerprint, outcome=outcome.value, seconds=round(seconds, 6), stale=stale)

    def saved(self, fingerprint: str, outcome: SaveOutcome, seconds: float) -> None:
        """Count and log a save."""
        self.counts.saved[outcome] += 1
        self._count(lambda metrics: metrics.saved(outcome, seconds))
        if outcome in _PROOFS:
            self._health.worked("write")
        event = Event.SAVE_SKIPPED if outcome is SaveOutcome.SKIPPED else Event.SAVED
        log.debug(event, fingerprint=fingerprint, outcome=outcome.value, seconds=round(seconds, 6))

    def invalidated(self, fingerprint: str, why: str, *, existed: bool) -> None:
        """Log a session that was deleted for everyone."""
        self._health.worked("write")
        log.info(Event.INVALIDATED, fingerprint=fingerprint, why=why, existed=existed)

    # Failures of the store -------------------------------------------------------------------------------------------

    def store_failed(self, operation: Operation, error: StoreError, *, code: str = "", fingerprint: str = "") -> None:
        """Log a failed operation of the store: once as a warning, each time at DEBUG. Do not count it."""
        if code != "ClosedError":  # by our own close
            self._health.failed(_SIDES.get(operation, "write"), error, code, operation.value)
        fields = {
            "operation": operation.value,
            "reason": error.outcome.value,
            "error": code,
            "fingerprint": fingerprint,
        }
        log.debug(Event.DEGRADED, **fields)

    def degraded(self, operation: Operation, error: StoreError, *, code: str = "", fingerprint: str = "") -> None:
        """Count and log a failed operation of the store. `entered` counts a degraded enter."""
        self._count(lambda metrics: metrics.degraded[operation, error.outcome].inc())
        self.store_failed(operation, error, code=code, fingerprint=fingerprint)

    def breaker_changed(self, breaker: str, state: str, *, server: str = "", old: str = "", new: str = "") -> None:
        """Set the gauge of a breaker to the worst state over all servers, and log the change of one server."""
        self.breakers[breaker] = state
        self._count(Metrics.show_gauges)
        self._health.breaker_changed(server, breaker, old, new)

    # Waiting saves ---------------------------------------------------------------------------------------------------

    def pending(self, count: int) -> None:
        """Set the gauge of waiting saves."""
        self.pending_saves = count
        self._count(Metrics.show_gauges)

    def flushed(self, fingerprint: str, outcome: SaveOutcome) -> None:
        """Count and log a waiting save that was written."""
        self.counts.flushed += 1
        self._count(lambda metrics: metrics.flushed.inc())
        if outcome in _PROOFS:
            self._health.worked("write")
        log.debug(Event.FLUSHED, fingerprint=fingerprint, outcome=outcome.value)

    def lost(self, fingerprint: str, why: str, on_lost: LostCallback | None) -> None:
        """Count and log a save that was given up, and report it to the application."""
        self.counts.lost += 1
        self._count(lambda metrics: metrics.lost.inc())
        log.error(Event.SAVE_LOST, fingerprint=fingerprint, why=why)
        if on_lost is not None:
            try:
                on_lost(fingerprint, why)
            except Exception as error:  # noqa: BLE001  (the application's function, whatever it raises)
                name = type(error).__name__
                log.warning(Event.CALLBACK_FAILED, callback="on_lost", fingerprint=fingerprint, error=name)

    # Clean-up and replicas -------------------------------------------------------------------------------------------

    def cleanup_failed(self, step: str, error: str) -> None:
        """Log that a step of the clean-up failed: each error at once, then once in ten minutes while it goes on."""
        if self._is_due(error, step):
            log.warning(Event.CLEANUP_FAILED, step=step, error=error)
        else:
            log.debug(Event.CLEANUP_FAILED, step=step, error=error)

    def cleanup_worked(self, step: str) -> None:
        """Record a success of a step of the clean-up, so that its next failure is logged at once."""
        if self._logged:
            self._logged = {what: (by, at) for what, (by, at) in self._logged.items() if by != step}
        self._health.worked("cleanup")

    def expired(self, fingerprint: str) -> None:
        """Count and log an expired session whose traces were removed."""
        self._count(lambda metrics: metrics.expired.inc())
        log.debug(Event.EXPIRED, fingerprint=fingerprint)

    def read(self) -> None:
        """Record that the store was read, where no enter is counted."""
        self._health.worked("read")

    def probed(self, fingerprint: str, verdict: Liveness) -> None:
        """Count and log a probe of a stored login."""
        self._count(lambda metrics: metrics.probes[verdict].inc())
        log.info(Event.PROBED, fingerprint=fingerprint, verdict=verdict.value)

    def reconcile_lag(self, seconds: float) -> None:
        """Set the gauge of the oldest unchecked deadline."""
        self.lag = seconds
        self._count(Metrics.show_gauges)

    def notifications_gap(self) -> None:
        """Count a time when expiry events may have been missed."""
        self._count(lambda metrics: metrics.gaps.inc())

    def under_replicated(self, fingerprint: str, acknowledged: int) -> None:
        """Count and log a save that fewer replicas acknowledged than asked for: a warning once in ten minutes."""
        self._count(lambda metrics: metrics.under_replicated.inc())
        if self._is_due("under_replicated", "save"):
            log.warning(Event.UNDER_REPLICATED, fingerprint=fingerprint, acknowledged=acknowledged)
        else:
            log.debug(Event.UNDER_REPLICATED, fingerprint=fingerprint, acknowledged=acknowledged)

    def _is_due(self, what: str, by: str) -> bool:
        """Return whether a lasting failure is logged as a warning now."""
        now = monotonic()
        if now - self._logged.get(what, ("", -_REPEAT))[1] < _REPEAT:
            return False
        self._logged[what] = by, now
        return True

    def _count(self, change: Callable[[Metrics], None]) -> None:
        if self._metrics is not None:
            try:
                change(self._metrics)
            except Exception as error:  # noqa: BLE001  (the registry of the application may raise anything)
                report_once("metrics", error)
