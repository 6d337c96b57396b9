"""`session-reuse top`: the sessions, live. Must never read what is in one, nor ask more often than told."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from session_reuse.cli.connection import Place, connected
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import plural, size
from session_reuse.cli.listing import as_json as summary_as_json
from session_reuse.cli.listing import each_session, sessions_table
from session_reuse.cli.options import AsJson, KeyPrefix, Url
from session_reuse.cli.output import Output
from session_reuse.cli.running import run
from session_reuse.config import redacted_url
from session_reuse.errors import StoreError
from session_reuse.manager import SessionManager
from session_reuse.summaries import SessionSummary

Once = Annotated[bool, typer.Option("--once", help="Look once and end.")]
Interval = Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")]
Limit = Annotated[int, typer.Option(min=1, help="How many sessions to show, those saved last.")]


class Moment:
    """One look at the store, compared with the one before.

    Attributes:
        versions: of each session: the number of its saves.
        saves: saves since the last look, of sessions that were there then.
        added: sessions that were not there then.
        gone: sessions that are there no more.
    """

    def __init__(self, summaries: list[SessionSummary], before: Moment | None = None) -> None:
        self.summaries = sorted(summaries, key=lambda summary: summary.saved_at or 0.0, reverse=True)
        self.versions = {summary.fingerprint: summary.version or 0 for summary in summaries}
        known = before.versions if before is not None else self.versions
        both = self.versions.keys() & known.keys()
        self.saves = sum(max(0, self.versions[name] - known[name]) for name in both)
        self.added = len(self.versions.keys() - known.keys())
        self.gone = len(known.keys() - self.versions.keys())

    @property
    def bytes(self) -> int:
        """Bytes stored by all."""
        return sum(summary.size for summary in self.summaries)


def top(
    once: Once = False,
    interval: Interval = 1.0,
    limit: Limit = 20,
    url: Url = None,
    key_prefix: KeyPrefix = None,
    as_json: AsJson = False,
) -> None:
    """Watch the stored sessions, those saved last first, until Ctrl-C; one JSON object per look with --json."""
    work = partial(_watch, Place(url, key_prefix), once, interval, limit)
    run(work, as_json=as_json, on_interrupt=ExitCode.OK)


async def _watch(place: Place, once: bool, interval: float, limit: int, output: Output) -> ExitCode:
    async with connected(place) as manager:
        moment = await _look(manager, None)
        _emit(output, moment, limit)
        if once:
            output.show(_picture(manager, moment, limit))
            return ExitCode.OK
        is_live = not output.as_json and output.console.is_terminal
        with Live(_picture(manager, moment, limit), console=output.console, screen=is_live, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(interval)
                picture, moment = await _next(manager, moment, limit, output)
                if not output.as_json:
                    live.update(picture, refresh=True)


async def _next(
    manager: SessionManager, before: Moment, limit: int, output: Output
) -> tuple[RenderableType, Moment]:  # fmt: skip
    """Look again; a store that is away is shown, and asked again the next time."""
    try:
        moment = await _look(manager, before)
    except StoreError as error:
        output.emit({"error": type(error).__name__, "message": str(error)})
        return Group(Text(f"the store is away: {error}", style="bold red"), _picture(manager, before, limit)), before
    _emit(output, moment, limit)
    return _picture(manager, moment, limit), moment


async def _look(manager: SessionManager, before: Moment | None) -> Moment:
    return Moment([summary async for summary in each_session(manager)], before)


def _emit(output: Output, moment: Moment, limit: int) -> None:
    counts = {"saves": moment.saves, "added": moment.added, "gone": moment.gone}
    shown = [summary_as_json(summary) for summary in moment.summaries[:limit]]
    total = {"time": time.time(), "sessions": len(moment.summaries), "bytes": moment.bytes}
    output.emit(total | counts | {"latest": shown})


def _picture(manager: SessionManager, moment: Moment, limit: int) -> RenderableType:
    head = Text.assemble(
        (time.strftime("%H:%M:%S"), "bold"),
        f"  {redacted_url(manager.config.url)}  ",
        (plural(len(moment.summaries), "session"), "bold cyan"),
        f"  {size(moment.bytes)}  ",
        (f"{plural(moment.saves, 'save')}", "green"),
        f"  {moment.added} new  {moment.gone} gone",
    )
    return Group(head, Text(), sessions_table(moment.summaries[:limit]))
