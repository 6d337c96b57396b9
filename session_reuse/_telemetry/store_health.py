"""Log once that a store does not work, and once that it works again.

The state belongs to the process and not to a manager: a program that calls `asyncio.run(job())` in a loop makes many
managers, but a dead store is one fact.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final, Literal

from session_reuse._settings.url import WAY_TO_CAUSE, store_options
from session_reuse._telemetry.logs import Event, log
from session_reuse.errors import StoreError
from session_reuse.outcome import Outcome

QUIET: Final = 60.0
"""Seconds after a recovery in which single failures are not logged: a flaky store is one fact, too."""
Side = Literal["read", "write", "cleanup"]
_EFFECTS: Final[dict[Side, str]] = {
    "read": "Agents start from what their process knows, else empty,",
    "write": "Saves wait in memory",
    "cleanup": "Expired sessions are not cleaned up",
}


class StoreHealth:
    """The state of one store, as far as this process knows it, and what it has logged about it.

    Reads and writes are separate: a full disk stops saves while each enter succeeds.

    Args:
        store: address, without a password.
        clock: monotonic seconds.
    """

    def __init__(self, store: str, clock: Callable[[], float] = monotonic) -> None:
        self.store = store
        self.troubled: set[Side] = set()
        """Which of `read`, `write` and `cleanup` fail now."""
        self._clock = clock
        self._away_since: float | None = None
        """Start of an outage that was logged."""
        self._explained: Outcome | None = None
        """The kind of failure that was logged with its note."""
        self._quiet_until = -1.0
        self._lock = threading.RLock()  # reentrant: a signal handler may log while it is held

    def failed(self, side: Side, error: StoreError, code: str, operation: str) -> None:
        """Record a failure, and log it unless the outage is known. A refused password is news in any outage: it does not pass."""
        with self._lock:
            self.troubled.add(side)
            now = self._clock()
            is_news = error.outcome is Outcome.AUTH and self._explained not in {None, Outcome.AUTH}
            is_known = self._explained is not None or (self._away_since is None and now < self._quiet_until)
            if is_known and not is_news:
                return
            self._explained = error.outcome
            self._away_since = now if self._away_since is None else self._away_since
        fields = {"store": self.store, "operation": operation, "reason": error.outcome.value, "error": code}
        note = f"{self.store}: {operation} failed: {error}. {_EFFECTS[side]} meanwhile{self.remedy}"
        if error.outcome is Outcome.AUTH:
            log.error(Event.AUTH_FAILED, **fields, note=note)
        else:
            log.warning(Event.STORE_UNAVAILABLE, **fields, note=note)

    @property
    def remedy(self) -> str:
        """The way to the cause, to go after a sentence. Empty for a client or a store without a URL for the doctor."""
        return f". {WAY_TO_CAUSE}{store_options(self.store)}" if "://" in self.store else ""

    def worked(self, side: Side) -> None:
        """Record a success, and log the end of an outage that was logged."""
        if not self.troubled:  # so that a healthy store costs no lock
            return
        with self._lock:
            self.troubled.discard(side)
            if self.troubled or self._away_since is None:
                return
            now = self._clock()
            seconds, self._away_since, self._quiet_until = now - self._away_since, None, now + QUIET
            self._explained = None
        note = f"{self.store} works again after {seconds:.1f} s"
        log.warning(Event.STORE_AVAILABLE, store=self.store, seconds=round(seconds, 3), note=note)

    def breaker_changed(self, server: str, breaker: str, old: str, new: str) -> None:
        """Log a change of a breaker: its way out of work and back at INFO. The failures are the warning."""
        fields = {"store": self.store, "server": server, "breaker": breaker, "old": old, "new": new}
        if old == "closed":  # no single failure: the next one is logged, also soon after a recovery
            self._quiet_until = -1.0
        if "closed" in {old, new}:
            log.info(Event.BREAKER_CHANGED, **fields)
        else:
            log.debug(Event.BREAKER_CHANGED, **fields)


_stores: Final[dict[str, StoreHealth]] = {}
os.register_at_fork(after_in_child=_stores.clear)


def health_of(store: str) -> StoreHealth:
    """Return the state of the store with this address (without a password)."""
    return _stores.setdefault(store, StoreHealth(store))
