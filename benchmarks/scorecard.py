"""Our goals in one table, by one command: goal, measured on this machine, met or not, and the best peer.

    python benchmarks/scorecard.py [--only ROW,...] [--quick] [--list] [--json FILE]

Each row runs in its own process, one after the other: about forty minutes, with --quick about eight. `--only` measures
some rows alone. That is also the command printed beside each. Contestants take turns and medians count, but a machine that
is busy elsewhere still moves wall time by a factor of two: read the lines that say CPU, or run a row again. Peers that are
not installed are left out: `pip install cashews aiocache starsessions` in its own environment.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.reporting import Goal, Results, about, goals_table, table, write_json

ROOT: Final = Path(__file__).parents[1]
_LONGEST: Final = 1800.0
"""Seconds for one row."""


@dataclass(frozen=True, slots=True)
class Row:
    """One command's worth of goals.

    Attributes:
        name: what `--only` takes.
        place: module of `benchmarks` and function, which is imported for this row only.
        options: arguments of the function beside `quick`.
    """

    name: str
    place: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def command(self) -> str:
        """The command that measures this row alone."""
        return f"python benchmarks/scorecard.py --only {self.name}"

    def measure(self, *, quick: bool) -> Results:
        """Run it in this process."""
        module, function = self.place.split(":")
        results: Results = getattr(importlib.import_module(f"benchmarks.{module}"), function)(
            quick=quick, **dict(self.options)
        )
        return results

    def run(self, *, quick: bool) -> tuple[list[Goal], Any, str]:
        """Run it in its own process. Return its goals, all numbers, and why there are none."""
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "row.json"
            words = [
                sys.executable,
                __file__,
                "--only",
                self.name,
                "--json",
                str(target),
                *(["--quick"] if quick else []),
            ]
            try:
                done = subprocess.run(
                    words, capture_output=True, text=True, timeout=_LONGEST, check=False, env=_environment()
                )
            except subprocess.TimeoutExpired:
                return [], None, "took too long"
            if not target.exists():
                return [], None, (done.stderr.strip().splitlines() or ["no reason given"])[-1][:100]
            found = json.loads(target.read_text("utf-8"))
        goals = [Goal(**{name: value for name, value in goal.items() if name != "met"}) for goal in found["goals"]]
        return goals, found["results"], ""


_CYCLES: Final = ("rounds", 7), ("sizes", "2 KB,20 KB"), ("tasks", "1,128")
ROWS: Final = (
    Row("reuse", "cycles:measure"),
    Row("cycle", "compare:measure", _CYCLES),
    Row("layers", "overhead:measure", (("sizes", ""),)),
    Row("burst", "links:burst"),
    Row("far", "links:far"),
    Row("slow", "links:slow"),
    Row("frozen", "outage:frozen"),
    Row("outage", "outage:reuse"),
    Row("wire", "wire:measure"),
    Row("growth", "growth:measure", (("sizes", "1000,1000000"),)),
    Row("ls", "footprint:listing"),
    Row("cold-start", "footprint:cold_start"),
    Row("memory", "footprint:memory"),
    Row("first-page", "browser:first_page"),
    Row("database", "browser:database"),
    Row("next-page", "browser:next_page"),
    Row("next-page-by-address", "browser:next_page_by_address"),
    Row("twenty-agents", "browser:twenty_agents"),
    Row("capture", "browser:capture"),
    Row("login", "browser:login"),
    Row("long-visit", "browser:long_visit"),
    Row("browser-use", "browser:browser_use"),
    Row("run", "run_overhead:start"),
)


def _environment() -> dict[str, str]:
    """Return this process's environment, with the package to be found whether it is installed or not."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}


def _chosen(names: str) -> list[Row]:
    known = {row.name: row for row in ROWS}
    unknown = [name for name in names.split(",") if name not in known] if names else []
    if unknown:
        raise SystemExit(f"no such row: {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names.split(",")] if names else list(ROWS)


def main() -> int:
    """Measure rows and print the table. Return 0 when no measured goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows, separated by commas")
    parser.add_argument(
        "--quick", action="store_true", help="few rounds: shows that it runs, and roughly where it stands"
    )
    parser.add_argument("--list", action="store_true", help="print the rows and their commands")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    chosen = parser.parse_args()
    rows = _chosen(chosen.only)
    if chosen.list:
        table("Rows", ("row", "measures it alone"), [(row.name, row.command) for row in rows])
        return 0
    if len(rows) == 1:
        results, goals = rows[0].measure(quick=chosen.quick)
        goals_table(goals, rows[0].name)
        write_json(chosen.json, results, goals)
    else:
        goals = _all(rows, chosen)
    return 0 if all(goal.met is not False for goal in goals) else 1


def _all(rows: list[Row], chosen: argparse.Namespace) -> list[Goal]:
    goals: list[Goal] = []
    numbers: dict[str, Any] = {}
    for row in rows:
        began = time.monotonic()
        found, numbers[row.name], why = row.run(quick=chosen.quick)
        load = os.getloadavg()[0]
        print(f"{row.name:<14} {time.monotonic() - began:6.0f} s, load {load:.1f}  {why}", file=sys.stderr, flush=True)
        goals_table(found or [Goal(f"not measured: {why}", None, None)], row.command)
        goals += found
    missed = [goal for goal in goals if goal.met is False]
    machine = about()
    print(
        f"\n{len(goals) - len(missed)} of {len(goals)} goals met. Python {machine['python']}, {machine['cores']} cores"
    )
    if missed:
        goals_table(missed, "Not met")
    write_json(chosen.json, numbers, goals)
    return goals


if __name__ == "__main__":
    sys.exit(main())
