"""Our goals in one table, by one command: goal, measured on this machine, met or not.

    python benchmarks/scorecard.py [--full] [--json FILE] [--plot FILE]

Runs each benchmark in a process of its own, one after the other, in its quick form (about five minutes) or with --full in
its long one (an hour). What is not installed, or has no script here, is shown as not measured. A machine that is busy
elsewhere moves wall time by a factor of two: read the lines that say cpu, or run it again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.reporting import Goal, about, arguments, bar_chart, goals_table, write_json

HERE: Final = Path(__file__).parent
SCRIPTS: Final = ("cycles", "compare", "overhead", "wire", "processes", "outage", "growth", "browser")
_LONGEST: Final = {True: 900.0, False: 7200.0}
"""Seconds for one script, quick or full."""


def run(script: str, *, quick: bool) -> tuple[dict[str, Any] | None, str]:
    """Run one benchmark and return what it wrote, or None and why not."""
    path = HERE / f"{script}.py"
    if not path.exists():
        return None, "no such script"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "results.json"
        command = [sys.executable, str(path), *(["--quick"] if quick else []), "--json", str(target)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_LONGEST[quick], check=False, env=_environment()
            )
        except subprocess.TimeoutExpired:
            return None, "took too long"
        if not target.exists():
            return None, (done.stderr.strip().splitlines() or ["no reason given"])[-1][:100]
        found: dict[str, Any] = json.loads(target.read_text("utf-8"))
        return found, ""


def _environment() -> dict[str, str]:
    """Return this process's environment, with the package to be found whether it is installed or not."""
    places = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}


def goals_in(found: dict[str, Any]) -> Iterator[Goal]:
    """Return the goals that a benchmark has measured."""
    names = {field.name for field in fields(Goal)}
    for goal in found.get("goals", ()):
        yield Goal(**{name: value for name, value in goal.items() if name in names})


def main() -> int:
    """Run all, print the table; the exit status says whether every measured goal was met."""
    parser = arguments(__doc__)
    parser.add_argument("--full", action="store_true", help="the long form of each")
    parser.add_argument("--scripts", default=",".join(SCRIPTS), help="which to run, separated by commas")
    chosen = parser.parse_args()
    goals: list[Goal] = []
    results: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for script in chosen.scripts.split(","):
        began = time.monotonic()
        found, why = run(script, quick=not chosen.full)
        print(f"{script:<10} {time.monotonic() - began:6.1f} s  {why}", file=sys.stderr, flush=True)
        if found is None:
            missing[script] = why
            continue
        results[script] = found
        goals += goals_in(found)
    machine = about()
    title = f"Scorecard: Python {machine['python']}, {machine['cores']} cores, load {os.getloadavg()[0]:.1f}"
    goals_table(goals, title)
    for script, why in missing.items():
        print(f"  {script}: not measured ({why})")
    write_json(chosen.json, {"benchmarks": results, "missing": missing}, goals)
    shares = {goal.what: _share(goal) for goal in goals if goal.measured is not None}
    bar_chart(chosen.plot, "Measured against the goal: 1 or less is met", "share of the goal", shares, line=1.0)
    return 0 if all(goal.met is not False for goal in goals) else 1


def _share(goal: Goal) -> float:
    measured = goal.measured or 0.0
    if goal.limit == 0:
        return 1.0 if measured == 0 else 2.0
    return min(5.0, goal.limit / max(measured, 1e-9) if goal.at_least else measured / goal.limit)


if __name__ == "__main__":
    sys.exit(main())
