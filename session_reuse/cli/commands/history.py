"""`session-reuse history`: print who used a session, as the audit has it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from session_reuse._store.interface import SessionUse
from session_reuse.cli.connection import Place, connected
from session_reuse.cli.options import stored_name
from session_reuse.cli.output import Output, Table

Name = Annotated[str | None, stored_name("Name of the session; all sessions without one.")]
Limit = Annotated[int, typer.Option("--limit", min=1, metavar="NUMBER", help="Print the latest so many.")]


async def history(output: Output, place: Place, fingerprint: Name = None, limit: Limit = 100) -> None:
    """Print the latest uses of a session: when, by whom, with which result, and limited to what. Needs SESSION_REUSE_AUDIT=1."""
    rows, count = Table("used at", "session", "agent", "found", "saved", "scope"), 0
    async with connected(place) as manager:
        async for use in manager.history(fingerprint):
            output.emit(asdict(use))
            rows.add_row(*_cells(use))
            count += 1
            if count == limit:
                break
        if not count:
            of = "" if fingerprint is None else f" of {fingerprint!r}"
            how = "" if manager.config.audit else "; SESSION_REUSE_AUDIT=1 turns the audit on"
            output.note(f"no use{of} is noted{how}")
    if count:
        output.show(rows)


def _cells(use: SessionUse) -> tuple[str, ...]:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(use.used_at))
    scope = [*(use.allowed_domains or ()), *(["read only"] if use.read_only else [])]
    return at, use.fingerprint, use.agent_id, use.outcome, use.save_outcome or "", ", ".join(scope)
