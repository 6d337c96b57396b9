"""Make the table of numbers that a run ends with."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from examples.demo.record import Kind, Run
from examples.demo.theme import COLOURS


def report(run: Run) -> Table:
    """Return the table that a run ends with."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for justify in ("left", "right", "left"):
        made.add_column(justify=justify, overflow="fold")
    for what, number, remark, style in _rows(run):
        made.add_row(what, Text(number, style=f"bold {style}".strip()), Text(remark, style="dim"))
    return made


def _rows(run: Run) -> list[tuple[str, str, str, str]]:
    found = f"{run.found} found from an earlier run" if run.found else "the store was empty at the beginning"
    rows = [
        ("agent starts", str(len(run.starts)), run.agent_name, ""),
        ("came back logged in", str(run.count(Kind.REUSED)), f"reuse rate {run.reuse_rate:.0%}", COLOURS[Kind.REUSED]),
        ("logins done", str(run.count(Kind.LOGIN) + run.count(Kind.DEGRADED)), found, COLOURS[Kind.LOGIN]),
    ]
    if run.killed_at is not None:
        rows += _outage_rows(run)
    rows.append(
        ("slowest enter", f"{run.slowest_enter * 1000:.0f} ms", "the budget is 500 ms, whatever Redis does", "")
    )
    if run.login_median is not None:
        rows.append(("to the page, logging in", f"{run.login_median:.2f} s", "median", COLOURS[Kind.LOGIN]))
    if run.reuse_median is not None:
        rows.append(("to the page, reused", f"{run.reuse_median:.2f} s", _ratio(run), COLOURS[Kind.REUSED]))
    if run.count(Kind.FAILED):
        errors = ", ".join(sorted({start.error for start in run.starts if start.error}))
        rows.append(("failed", str(run.count(Kind.FAILED)), errors, COLOURS[Kind.FAILED]))
    return rows


def _outage_rows(run: Run) -> list[tuple[str, str, str, str]]:
    dead_for = (run.back_at or 0.0) - (run.killed_at or 0.0)
    degraded = run.count(Kind.DEGRADED)
    return [
        (
            "Redis was dead for",
            f"{dead_for:.1f} s",
            "killed with SIGKILL while agents were at work",
            COLOURS[Kind.FAILED],
        ),
        ("degraded starts", str(degraded), "started fresh at once and logged in", COLOURS[Kind.DEGRADED]),
        (
            "saves recovered",
            f"{run.recovered} of {run.kept}",
            f"kept in memory during the outage, {run.lost} lost",
            "",
        ),
    ]


def _ratio(run: Run) -> str:
    return "median" if run.ratio is None else f"median, {run.ratio:.1f}x faster"
