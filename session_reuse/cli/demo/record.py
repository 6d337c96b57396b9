"""What happened in a demo, and what it adds up to. Pure: no clock, no input or output."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any

from session_reuse.outcome import Outcome, SaveOutcome


class Kind(StrEnum):
    """How an agent start went, as an onlooker would put it."""

    REUSED = "reused"
    """It came back logged in."""
    LOGIN = "login"
    """Nothing usable was stored: it logged in."""
    DEGRADED = "degraded"
    """Redis was away: it started fresh at once, and logged in."""
    FAILED = "failed"
    """The agent's own work failed."""


@dataclass(slots=True)
class Start:
    """One agent start; times in seconds since the demo began.

    Attributes:
        agent: number of the agent.
        cycle: number of its start.
        began: when the agent was started.
        entered: when it had its session, or knew that it had none.
        ready: when it saw the page that only the logged-in see.
        ended: when its session was saved, or kept for later.
        outcome: what entering found.
        logged_in: whether it had to fill in the form.
        save: what the save did.
        error: class of what went wrong in its own work.
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
        """How it went."""
        if self.error is not None or self.ready is None or self.outcome is None:
            return Kind.FAILED
        if self.outcome.degraded:
            return Kind.DEGRADED
        return Kind.LOGIN if self.logged_in else Kind.REUSED

    @property
    def seconds_to_ready(self) -> float | None:
        """From the start of the agent to the logged-in page."""
        return None if self.ready is None else self.ready - self.began


@dataclass(slots=True)
class Run:
    """Everything that happened.

    Attributes:
        agent_name: what the agents drove: Chromium and its version, or an HTTP client.
        found: sessions that an earlier run had left.
        starts: the agent starts, in the order of their ends.
        killed_at: when Redis was killed; None when it was not.
        back_at: when it answered again.
        recovered: saves that were kept in memory while Redis was away, and got through later.
        lost: those that did not.
    """

    agent_name: str
    found: int = 0
    starts: list[Start] = field(default_factory=list)
    killed_at: float | None = None
    back_at: float | None = None
    recovered: int = 0
    lost: int = 0

    def count(self, kind: Kind) -> int:
        """Return how many starts went that way."""
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
        """Median seconds to the logged-in page without one."""
        return _median(self.seconds(Kind.REUSED))

    @property
    def ratio(self) -> float | None:
        """How many times longer a login takes."""
        login, reuse = self.login_median, self.reuse_median
        return login / reuse if login and reuse else None

    @property
    def reuse_rate(self) -> float:
        """Share of the starts that came back logged in."""
        return self.count(Kind.REUSED) / len(self.starts) if self.starts else 0.0

    @property
    def slowest_enter(self) -> float:
        """Seconds of the longest wait for the store, its outage included."""
        return max((start.entered - start.began for start in self.starts if start.entered is not None), default=0.0)

    @property
    def kept(self) -> int:
        """How many saves were kept in memory while Redis was away."""
        return self.recovered + self.lost

    @property
    def is_good(self) -> bool:
        """Whether the demo has shown what it promises."""
        return not self.count(Kind.FAILED) and not self.lost and self.count(Kind.REUSED) > 0


def _median(values: list[float]) -> float | None:
    return median(values) if values else None


def as_json(run: Run) -> dict[str, Any]:
    """Return a run for programs; times in seconds."""
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
