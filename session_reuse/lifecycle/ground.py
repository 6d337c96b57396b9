"""What a session is built on: the stored version it has seen, or a save that still waits. Must never be guessed at."""

from __future__ import annotations

from time import monotonic

from session_reuse.lifecycle.request import Layer, SaveRequest, bounded
from session_reuse.lifecycle.services import Services
from session_reuse.session import BrowserSession
from session_reuse.state.baseline import Baseline, Expectation


class Ground:
    """The ground of one visit.

    Attributes:
        waiting: the waiting save that the session was restored from, or its own.
        layers: saves that the session is built on and that were not through then.
        saved: whether the visit has saved before.
    """

    __slots__ = ("_services", "layers", "saved", "waiting")

    def __init__(self, services: Services) -> None:
        self._services = services
        self.waiting: SaveRequest | None = None
        self.layers: tuple[Layer, ...] = ()
        self.saved = False

    def start_from(self, waiting: SaveRequest) -> None:
        """Build on a save that waits."""
        self.waiting, self.layers = waiting, bounded(waiting.stack)

    def baseline(self, session: BrowserSession) -> Baseline:
        """Return what the session and the store last agreed on, following a waiting save that has got through meanwhile."""
        if self.waiting is not None and self.waiting.settled:
            session.baseline = self.waiting.settled[-1]
            self.waiting, self.layers = None, ()
        return session.baseline or Baseline(expectation=Expectation.UNKNOWN, entered=monotonic())

    def has_to_wait(self, request: SaveRequest) -> None:
        """Note that a save of the session is not through."""
        self.start_from(request)
        if self._services.pending.get(request.fingerprint) is not request:  # joined with another, or given up
            self.waiting = None

    def settle(self, session: BrowserSession, baseline: Baseline | None) -> None:
        """Note that a save of the session has come to its end; None when there is no new common ground."""
        if baseline is not None:
            session.baseline = baseline
            self.saved, self.layers = True, ()
        if self.waiting is not None:
            self._services.pending.remove(self.waiting.fingerprint, self.waiting)
            self._services.telemetry.pending(len(self._services.pending))
            self.waiting = None
