"""`session-reuse status`: print the state of each stored login."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from session_reuse._summaries import SessionSummary
from session_reuse.cli.connection import Place, connected
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import short_duration
from session_reuse.cli.listing import Refusals, each_session
from session_reuse.cli.options import argument
from session_reuse.cli.output import Output, Table
from session_reuse.outcome import Liveness

Pattern = Annotated[str | None, argument("PATTERN", "Shell pattern of fingerprints.")]
Check = Annotated[
    bool,
    typer.Option("--check", help="Give 1 if a login is dead, retired, expired or unreadable, or if there is none."),
]


async def status(output: Output, place: Place, pattern: Pattern = None, check: Check = False) -> ExitCode:
    """Print whether each login lives, how old it is, who used it last, when its cookies expire, and who holds it.

    LIVE and DEAD are what the last probe of `session-reuse keep` or `manager.keep_alive` found out.
    """
    refusals = Refusals()
    async with connected(place) as manager:
        found = [each async for each in each_session(manager, pattern, cookies=True, refusals=refusals)]
    now = time.time()  # after the listing: what has expired by then has expired
    found.sort(key=lambda summary: summary.fingerprint)
    rows = Table("fingerprint", "login", "age", "last used", "cookies end", "held by", "health")
    for summary in found:
        output.emit(asdict(summary) | {"problem": problem_of(summary, now)})
        rows.add_row(*_cells(summary, now))
    if found:
        output.show(rows)
    else:
        output.note("no session" if pattern is None else f"no session matches {pattern}")
    unfit = not found or any(problem_of(summary, now) for summary in found)
    return refusals.end(output, ExitCode.WRONG if check and unfit else ExitCode.OK)


def problem_of(summary: SessionSummary, now: float) -> str | None:
    """Return why the next agent will not be logged in, as far as is known."""
    if summary.error:
        return "refused"
    if summary.created_at is None or summary.readable is False:
        return "unreadable"
    if summary.retired:
        return "retired"
    if summary.liveness is Liveness.DEAD:
        return "dead"
    if summary.cookies_expire_at is not None and summary.cookies_expire_at <= now:
        return "expired"
    return None


def _cells(summary: SessionSummary, now: float) -> tuple[str, ...]:
    def ago(moment: float | None) -> str:
        return "" if moment is None else f"{short_duration(now - moment)} ago"

    age = "" if summary.created_at is None else short_duration(now - summary.created_at)
    used = ago(summary.used_at or summary.saved_at) + (f" by {summary.used_by}" if summary.used_by else "")
    ends = "" if summary.cookies_expire_at is None else f"in {short_duration(summary.cookies_expire_at - now)}"
    held = f"{summary.holder}, {short_duration(summary.lease_left)}" if summary.holder else ""
    score = f"errors {summary.error_score:g}" if summary.error_score > 0 else "good"
    login = f"{summary.liveness.value.upper()} {ago(summary.checked_at)}".strip()
    return summary.fingerprint, login, age, used, ends, held, problem_of(summary, now) or score
