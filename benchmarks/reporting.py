"""What every benchmark prints and writes: tables, goals, a JSON file, and the one command line that all of them share."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

_PACKAGES: Final = (
    "redis", "hiredis", "orjson", "zstandard", "lz4", "cryptography", "prometheus-client", "playwright", "browser-use",
    "cashews", "aiocache", "starsessions",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal and what was measured.

    Attributes:
        what: the quantity.
        limit: the goal. None for a figure without one.
        measured: None when it could not be measured here.
        at_least: whether the goal is a floor. Else it is a ceiling.
        peer: what the best peer reached in the same run, where the quantity itself is no comparison.
    """

    what: str
    limit: float | None
    measured: float | None
    at_least: bool = False
    peer: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached. None when it was not measured, or when there is none."""
        if self.measured is None or self.limit is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    @property
    def row(self) -> tuple[str, str, str, str, str]:
        """The goal as a line of a table."""
        verdict = {True: "met", False: "NOT MET", None: "-"}[self.met]
        measured = "not measured" if self.measured is None else number(self.measured)
        limit = "-" if self.limit is None else f"{'>=' if self.at_least else '<='} {number(self.limit)}"
        return self.what, limit, measured, verdict, self.peer


Results = tuple[Any, list[Goal]]
"""All numbers of a benchmark, for a file, and its goals."""


def command(doc: str | None, measure: Callable[..., Results]) -> int:
    """Run one benchmark from the command line. Return 0 when no goal was missed.

    Args:
        doc: the description.
        measure: takes `quick`. Each other keyword argument of it with a default becomes an option.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    for name, parameter in inspect.signature(measure).parameters.items():
        if isinstance(parameter.default, bool):
            parser.add_argument(f"--{name}", action="store_true")
        else:
            parser.add_argument(f"--{name}", type=type(parameter.default), default=parameter.default)
    chosen = vars(parser.parse_args())
    file = chosen.pop("json")
    results, goals = measure(**chosen)
    if goals:
        goals_table(goals)
    write_json(file, results, goals)
    return 0 if all(goal.met is not False for goal in goals) else 1


def number(value: float) -> str:
    """Return a number with three significant digits, or unchanged when it is whole."""
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
    found = [goal.row for goal in goals]
    width = 5 if any(row[4] for row in found) else 4
    table(title, ("what", "goal", "measured", "", "best peer")[:width], [row[:width] for row in found])


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
