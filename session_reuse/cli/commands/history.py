"""`session-reuse history`: print who used a session, as the audit has it."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from session_reuse._store.interface import SessionUse
from session_reuse.cli.connection import Place, connected
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import printable
from session_reuse.cli.options import AsJson, KeyPrefix, Url, complete_fingerprints
from session_reuse.cli.output import Output, table
from session_reuse.cli.running import run

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="FINGERPRINT", help="Name of the session; all sessions without one.", show_default=False,
        autocompletion=complete_fingerprints,
    ),
]  # fmt: skip
Limit = Annotated[int, typer.Option("--limit", min=1, metavar="NUMBER", help="Print the latest so many.")]


def history(
    fingerprint: Name = None, limit: Limit = 100, url: Url = None, key_prefix: KeyPrefix = None, as_json: AsJson = False
) -> None:
    """Print the latest uses of a session: when, by whom, with which result, and limited to what. Needs SESSION_REUSE_AUDIT=1."""
    run(partial(_history, Place(url, key_prefix), fingerprint, limit), as_json=as_json)


async def _history(place: Place, fingerprint: str | None, limit: int, output: Output) -> ExitCode:
    rows, count = table("used at", "session", "agent", "found", "saved", "scope"), 0
    async with connected(place) as manager:
        async for use in manager.history(fingerprint):
            output.emit(asdict(use))
            rows.add_row(*map(printable, _cells(use)))
            count += 1
            if count == limit:
                break
        if not count and not manager.config.audit:
            output.note("no use is noted; SESSION_REUSE_AUDIT=1 turns the audit on")
    if count:
        output.show(rows)
    return ExitCode.OK


def _cells(use: SessionUse) -> tuple[str, ...]:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(use.used_at))
    scope = [*(use.allowed_domains or ()), *(["read only"] if use.read_only else [])]
    return at, use.fingerprint, use.agent_id, use.outcome, use.save_outcome or "", ", ".join(scope)
