"""What became of a run: verdicts over the hosts' events, a JSON file, and a picture."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

REUSE: Final = 0.8
GROWTH: Final = 30 * 2**20
"""Bytes by which a host's Python may grow between the second and the last fifth of a run."""
BUDGET: Final = 0.55
"""Seconds of an enter: the default budget, and what scheduling takes."""
_BEFORE, _AFTER = 3.0, 10.0
"""Seconds around a fault in which a primary may take confirmed saves with it, and in which breakers may still be open."""
_BUCKETS: Final = 120


@dataclass(slots=True)
class Struck:
    """One fault. `may_lose` says that a primary may have been replaced, and Redis replicates asynchronously."""

    name: str
    began: float
    ended: float = 0.0
    may_lose: bool = False

    def covers(self, moment: float) -> bool:
        """Return whether the fault or its aftermath was on."""
        return self.began - _BEFORE <= moment <= self.ended + _AFTER


@dataclass
class Report:
    """One run.

    Attributes:
        about: how it was run.
        began: seconds since the epoch. So are all other moments.
        events: of all hosts, in the order of time.
        faults: what was done to it.
        at_the_end: items that the store does not hold, in the form of an event `older`.
    """

    about: dict[str, Any]
    began: float
    events: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Struck] = field(default_factory=list)
    at_the_end: list[dict[str, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a kind."""
        return [event for event in self.events if event["kind"] == kind]

    @property
    def wrong(self) -> list[str]:
        """What cannot be true."""
        return [*self.broken, *(event["what"] for event in self.of("wrong"))]

    @property
    def gone(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Confirmed items that were found older: those that went with a primary, and the others."""
        older = [*self.of("older"), *self.at_the_end]
        with_a_primary = [
            event for event in older if any(fault.may_lose and fault.covers(event["at"]) for fault in self.faults)
        ]
        return with_a_primary, [event for event in older if event not in with_a_primary]

    @property
    def lost(self) -> list[str]:
        """Confirmed work that was lost without a primary that took it, and saves that were given up."""
        return [*map(str, self.gone[1]), *(f"{event['name']}: {event['why']}" for event in self.of("lost"))]

    def reuse(self, *, quiet: bool = False) -> float:
        """Return the share of enters of known sessions that reused them. `quiet` counts those outside of faults."""
        visits = [
            visit["outcome"] == "reused"
            for visit in self.of("visit")
            if visit["known"] and not (quiet and any(fault.covers(visit["t"]) for fault in self.faults))
        ]
        return sum(visits) / len(visits) if visits else 1.0

    @property
    def growth(self) -> dict[int, int]:
        """By how many bytes the Python of each host grew between the second and the last fifth of the run."""
        found = {}
        for host in sorted({event["host"] for event in self.of("memory")}):
            sizes = [event["python"] for event in self.of("memory") if event["host"] == host]
            fifth = max(1, len(sizes) // 5)
            found[host] = round(median(sizes[-fifth:]) - median(sizes[fifth : 2 * fifth] or sizes))
        return found

    @property
    def failed(self) -> bool:
        """Whether something was wrong or lost, too little was reused, or memory grew."""
        return bool(self.wrong or self.lost or self.reuse() < REUSE or max(self.growth.values(), default=0) > GROWTH)

    def numbers(self) -> dict[str, Any]:
        """Return everything but the single visits."""
        visits, ends = self.of("visit"), self.of("end")
        return {
            "about": self.about,
            "failed": self.failed,
            "visits": len(visits),
            "outcomes": Counter(visit["outcome"] for visit in visits),
            "reused from this process's own copy": sum(visit["stale"] for visit in visits),
            "saves": Counter(str(visit["saved"]) for visit in visits),
            "problems": Counter(problem for visit in visits for problem in visit["problems"]),
            "interrupted by a killed browser": len(self.of("interrupted")),
            "reuse": self.reuse(),
            "reuse outside of faults": self.reuse(quiet=True),
            "enters over the budget, less what the machine was late": sum(
                visit["entered"] - visit["lag"] > BUDGET for visit in visits
            ),
            "enter seconds": _spread([visit["entered"] for visit in visits]),
            "exit seconds": _spread([visit["left"] for visit in visits]),
            "flushed": sum(end["flushed"] for end in ends),
            "logins refused, since another is stored": len(self.of("refused")),
            "memory growth of Python": self.growth,
            "faults": Counter(fault.name for fault in self.faults),
            "taken by a primary that was replaced": len(self.gone[0]),
            "lost": self.lost,
            "wrong": self.wrong,
        }

    def write(self, folder: Path) -> None:
        """Write `report.json` and, where matplotlib is installed, `report.png`."""
        faults = [asdict(fault) for fault in self.faults]
        numbers = {**self.numbers(), "fault times": faults, "went with a primary": self.gone[0]}
        (folder / "report.json").write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")
        try:
            import matplotlib as mpl
        except ImportError:
            return
        mpl.use("Agg")
        self._draw(folder / "report.png")

    def _draw(self, path: Path) -> None:
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(3, 1, figsize=(12, 9), sharex=True, layout="constrained")
        buckets = self._buckets()
        minutes = [middle for middle, _ in buckets]
        axes[0].plot(minutes, [_share(visits) for _, visits in buckets], color="#2a7f3f", label="reused")
        axes[0].plot(
            minutes,
            [_share(visits, stale=True) for _, visits in buckets],
            color="#8fbf9f",
            label="from the process's own copy",
        )
        axes[0].set(ylim=(-0.02, 1.05), ylabel="share of enters", title=self._title())
        for what, colour in (("entered", "#3b6ea5"), ("left", "#a5673b")):
            for part, style in ((50, "-"), (98, ":")):
                values = [_part([visit[what] for visit in visits], part) for _, visits in buckets]
                axes[1].plot(
                    minutes,
                    values,
                    style,
                    color=colour,
                    label=f"{'enter' if what == 'entered' else 'exit'}, p{part + (part == 98)}",
                )
        axes[1].set(yscale="log", ylabel="seconds")
        for host in self.growth:
            found = [event for event in self.of("memory") if event["host"] == host]
            at = [self._minute(event["t"]) for event in found]
            axes[2].plot(at, [event["python"] / 2**20 for event in found], label=f"Python, host {host + 1}")
            axes[2].plot(at, [event["browser"] / 2**20 for event in found], ":", label=f"Chromium, host {host + 1}")
        axes[2].set(yscale="log", ylabel="MB", xlabel="minutes")
        colours = dict(zip(sorted({fault.name for fault in self.faults}), plt.get_cmap("tab10").colors, strict=False))
        for axis in axes:
            for fault in self.faults:
                axis.axvspan(
                    self._minute(fault.began), self._minute(fault.ended), color=colours[fault.name], alpha=0.25
                )
            axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
        named = [plt.Rectangle((0, 0), 1, 1, color=colour, alpha=0.35) for colour in colours.values()]
        figure.legend(named, colours, loc="outside lower center", ncols=5, title="faults")
        figure.savefig(path, dpi=110)
        plt.close(figure)

    def _title(self) -> str:
        return f"{self.about['agents']} agents, {len(self.of('visit')):,} visits, {len(self.faults)} faults: reuse {self.reuse():.3f}, {len(self.wrong)} wrong, {len(self.lost)} lost"

    def _minute(self, moment: float) -> float:
        return (moment - self.began) / 60

    def _buckets(self) -> list[tuple[float, list[dict[str, Any]]]]:
        visits = [visit for visit in self.of("visit") if visit["known"]]
        if not visits:
            return []
        wide = max(5.0, (visits[-1]["t"] - self.began) / _BUCKETS)
        found: dict[int, list[dict[str, Any]]] = {}
        for visit in visits:
            found.setdefault(int((visit["t"] - self.began) / wide), []).append(visit)
        return [(self._minute(self.began + (at + 0.5) * wide), inside) for at, inside in sorted(found.items())]


def _share(visits: list[dict[str, Any]], *, stale: bool = False) -> float:
    return sum(visit["outcome"] == "reused" and (not stale or visit["stale"]) for visit in visits) / len(visits)


def _part(values: list[float], part: int) -> float:
    return quantiles(values, n=100, method="inclusive")[part] if len(values) > 1 else values[0]


def _spread(values: list[float]) -> dict[str, float]:
    return {"p50": _part(values, 49), "p99": _part(values, 98), "most": max(values)} if values else {}
