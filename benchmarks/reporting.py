"""What every benchmark prints and writes: a table, its goals, a JSON file, a chart."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

_PACKAGES: Final = (
    "redis", "hiredis", "orjson", "zstandard", "lz4", "cryptography", "prometheus-client", "uvloop", "valkey-glide",
    "coredis", "cashews", "aiocache", "starsessions", "openai-agents",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the scorecard.

    Attributes:
        what: the quantity.
        limit: the goal.
        measured: None when it could not be measured here.
        at_least: whether the goal is a floor; else it is a ceiling.
    """

    what: str
    limit: float
    measured: float | None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None when it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    @property
    def row(self) -> tuple[str, str, str, str]:
        """The goal as a line of a table."""
        verdict = {True: "met", False: "NOT MET", None: "-"}[self.met]
        measured = "not measured" if self.measured is None else number(self.measured)
        return self.what, f"{'>=' if self.at_least else '<='} {number(self.limit)}", measured, verdict


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with what all benchmarks take."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="few rounds: shows that it runs, and roughly where it stands"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a chart there (needs matplotlib)")
    return parser


def number(value: float) -> str:
    """Return a number with three significant digits, or as it is when it is whole."""
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    lines = [tuple(heads), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    print(f"\n{title}")
    for position, line in enumerate(lines):
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        print("  " + "  ".join([line[0].ljust(widths[0]), *cells[1:]]).rstrip())
        if position == 0:
            print("  " + "  ".join("-" * width for width in widths))


def goals_table(goals: Iterable[Goal], title: str = "Goals") -> None:
    """Print goals with what was measured."""
    table(title, ("what", "goal", "measured", ""), [goal.row for goal in goals])


def about() -> dict[str, Any]:
    """Return the machine and the versions that the numbers belong to."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    load = os.getloadavg() if hasattr(os, "getloadavg") else ()
    return {
        "python": platform.python_version(), "machine": platform.platform(), "cores": os.cpu_count(),
        "load": [round(value, 2) for value in load], "versions": versions,
    }  # fmt: skip


def write_json(path: Path | None, results: Any, goals: Iterable[Goal] = ()) -> None:
    """Write numbers, goals and machine to a file, if one was asked for."""
    if path is not None:
        listed = [{**asdict(goal), "met": goal.met} for goal in goals]
        path.write_text(json.dumps({"about": about(), "results": results, "goals": listed}, indent=1) + "\n", "utf-8")


def bar_chart(path: Path | None, title: str, unit: str, bars: dict[str, float], line: float | None = None) -> None:
    """Draw bars, and a line at the value to compare them with, if a chart was asked for and matplotlib is installed."""
    if path is None:
        return
    try:
        import matplotlib as mpl
    except ImportError:
        print("no chart: matplotlib is not installed")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.6 + 0.35 * len(bars)), layout="constrained")
    axes.barh(list(bars), list(bars.values()), color="#3b6ea5")
    axes.invert_yaxis()
    axes.set(title=title, xlabel=unit)
    if line is not None:
        axes.axvline(line, color="#c0392b", linestyle="--")
    figure.savefig(path)
    plt.close(figure)
