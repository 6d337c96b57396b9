"""The record of a run and the numbers computed from it, without clock, input or output."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any

from session_reuse.outcome import Outcome, SaveOutcome


class Kind(StrEnum):
    """How an agent start went."""

    REUSED = "reused"
    """The agent was logged in."""
    LOGIN = "login"
    """No usable session was stored, so the agent logged in."""
    DEGRADED = "degraded"
    """Redis was dead, so the agent started fresh at once and logged in."""
    FAILED = "failed"
    """The agent's own work failed."""


@dataclass(slots=True)
class Start:
    """One agent start. Times are in seconds since the run began.

    Attributes:
        agent: number of the agent.
        cycle: number of its start.
        began: when the agent was started.
        entered: when the session was entered.
        ready: when the agent saw the page for logged-in users.
        ended: when the session was saved, or kept for later.
        outcome: the outcome of the enter.
        logged_in: whether the agent filled in the form.
        save: the outcome of the save.
        error: class of the exception that ended the work.
    """

    agent: int
    cycle: int
    began: float
    entered: float | None = None
    ready: float | None = None
    ended: float = 0.0
    outcome: Outcome | None = None
    logged_in: bool = False
    save: SaveOutcome | None = None
    error: str | None = None

    @property
    def kind(self) -> Kind:
        """How the start went."""
        if self.error is not None or self.ready is None or self.outcome is None:
            return Kind.FAILED
        if self.outcome.degraded:
            return Kind.DEGRADED
        return Kind.LOGIN if self.logged_in else Kind.REUSED

    @property
    def seconds_to_ready(self) -> float | None:
        """Seconds from the start of the agent to the logged-in page."""
        return None if self.ready is None else self.ready - self.began


@dataclass(slots=True)
class Run:
    """One run of the demo.

    Attributes:
        agent_name: the client of the agents: Chromium and its version, or an HTTP client.
        found: sessions that an earlier run had left.
        starts: the agent starts, in the order of their ends.
        killed_at: when Redis was killed, or None.
        back_at: when Redis answered again.
        recovered: saves that were kept in memory during the outage and written later.
        lost: saves that were not written.
    """

    agent_name: str
    found: int = 0
    starts: list[Start] = field(default_factory=list)
    killed_at: float | None = None
    back_at: float | None = None
    recovered: int = 0
    lost: int = 0

    def count(self, kind: Kind) -> int:
        """Return how many starts are of this kind."""
        return sum(start.kind is kind for start in self.starts)

    def seconds(self, *kinds: Kind) -> list[float]:
        """Return the times to the logged-in page of all starts of these kinds."""
        return [start.ready - start.began for start in self.starts if start.kind in kinds and start.ready is not None]

    @property
    def login_median(self) -> float | None:
        """Median seconds to the logged-in page with a login."""
        return _median(self.seconds(Kind.LOGIN, Kind.DEGRADED))

    @property
    def reuse_median(self) -> float | None:
        """Median seconds to the logged-in page without a login."""
        return _median(self.seconds(Kind.REUSED))

    @property
    def ratio(self) -> float | None:
        """How many times longer a start with a login takes."""
        login, reuse = self.login_median, self.reuse_median
        return login / reuse if login and reuse else None

    @property
    def reuse_rate(self) -> float:
        """Share of the starts that were logged in."""
        return self.count(Kind.REUSED) / len(self.starts) if self.starts else 0.0

    @property
    def slowest_enter(self) -> float:
        """Seconds of the longest enter, the outage included."""
        return max((start.entered - start.began for start in self.starts if start.entered is not None), default=0.0)

    @property
    def kept(self) -> int:
        """How many saves were kept in memory during the outage."""
        return self.recovered + self.lost

    @property
    def is_good(self) -> bool:
        """Whether the run has shown what the demo promises."""
        return not self.count(Kind.FAILED) and not self.lost and self.count(Kind.REUSED) > 0


def _median(values: list[float]) -> float | None:
    return median(values) if values else None


def as_json(run: Run) -> dict[str, Any]:
    """Return a run as a JSON object, with times in seconds."""
    outage = None if run.killed_at is None else {"killed_at": run.killed_at, "back_at": run.back_at}
    return {
        "agent": run.agent_name,
        "found_from_earlier_run": run.found,
        "starts": len(run.starts),
        "reused": run.count(Kind.REUSED),
        "logins": run.count(Kind.LOGIN) + run.count(Kind.DEGRADED),
        "degraded": run.count(Kind.DEGRADED),
        "failed": run.count(Kind.FAILED),
        "reuse_rate": run.reuse_rate,
        "saves_kept": run.kept,
        "saves_recovered": run.recovered,
        "saves_lost": run.lost,
        "login_median": run.login_median,
        "reuse_median": run.reuse_median,
        "ratio": run.ratio,
        "slowest_enter": run.slowest_enter,
        "outage": outage,
        "cycles": [_cycle(start) for start in run.starts],
    }


def _cycle(start: Start) -> dict[str, Any]:
    return {
        "agent": start.agent,
        "cycle": start.cycle,
        "kind": start.kind.value,
        "outcome": start.outcome.value if start.outcome else None,
        "save_outcome": start.save.value if start.save else None,
        "began": start.began,
        "entered": start.entered,
        "ready": start.ready,
        "ended": start.ended,
        "error": start.error,
    }
