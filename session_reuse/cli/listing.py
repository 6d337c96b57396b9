"""Walks over the stored sessions for `ls`, `stats` and `top`. Must never read what is in one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

from rich.table import Table

from session_reuse.cli.formatting import duration, printable, size
from session_reuse.cli.output import table
from session_reuse.manager import SessionManager
from session_reuse.summaries import SessionSummary


async def each_session(manager: SessionManager, pattern: str | None = None) -> AsyncIterator[SessionSummary]:
    """Yield each session once; a cursor of Redis may come by one twice.

    Args:
        manager: of the store.
        pattern: shell pattern that the fingerprint must match.
    """
    seen: set[str] = set()
    async for summary in manager.sessions():
        if summary.fingerprint not in seen and (pattern is None or fnmatchcase(summary.fingerprint, pattern)):
            seen.add(summary.fingerprint)
            yield summary


def as_json(summary: SessionSummary) -> dict[str, Any]:
    """Return a summary for programs: times in unix seconds, `ttl` in seconds, null for ever."""
    return asdict(summary)


def sessions_table(summaries: list[SessionSummary], now: float | None = None) -> Table:
    """Return the table of sessions for people."""
    now = time.time() if now is None else now
    numbers = ("version", "first saved", "last saved", "to live", "size", "uses", "errors")
    made = table("fingerprint", *numbers, "encrypted", right=numbers)
    for summary in summaries:
        made.add_row(*_cells(summary, now), style="red" if summary.version is None else None)
    return made


def _cells(summary: SessionSummary, now: float) -> list[str]:
    name, left, bytes_stored = printable(summary.fingerprint), duration(summary.ttl), size(summary.size)
    if summary.version is None or summary.created_at is None or summary.saved_at is None:
        return [name, "not ours", "", "", left, bytes_stored, "", "", ""]
    return [
        name,
        str(summary.version),
        _ago(now - summary.created_at),
        _ago(now - summary.saved_at),
        left,
        bytes_stored,
        str(summary.uses),
        f"{summary.error_score:g}",
        "yes" if summary.encrypted else "no",
    ]


def _ago(seconds: float) -> str:
    return "now" if seconds < 1 else f"{duration(seconds)} ago"
