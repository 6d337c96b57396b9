"""`session-reuse top`: the sessions, live, by their headers; large stores are looked at less often."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from session_reuse.cli.connection import Place, connected
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import duration, plural, printable, size
from session_reuse.cli.listing import Rows, each_session
from session_reuse.cli.listing import as_json as summary_as_json
from session_reuse.cli.options import AsJson, KeyPrefix, Url
from session_reuse.cli.output import Output
from session_reuse.cli.running import run
from session_reuse.config import redacted_url
from session_reuse.errors import StoreError

if TYPE_CHECKING:
    from session_reuse._manager import SessionManager
    from session_reuse._summaries import SessionSummary

_PAUSE_PER_LOOK: Final = 20.0
"""A look at 50,000 sessions takes 0.5 s of the server's CPU (2026-11): looking takes a twentieth of the time at most."""
_HEAD: Final = 5
"""Lines above the sessions, one for trouble of the store included."""

Once = Annotated[bool, typer.Option("--once", help="Look once and end.")]
Interval = Annotated[
    float, typer.Option(min=0.1, metavar="SECONDS", help="Time between two looks; a large store gets more.")
]
Limit = Annotated[
    int, typer.Option(min=1, metavar="NUMBER", help="How many sessions to show, those saved last.")
]  # fmt: skip


class Moment:
    """One look at the store, compared with the one before.

    Attributes:
        latest: the sessions saved last.
        versions: of each session: the number of its saves.
        bytes: stored by all.
        took: seconds that the look took.
        saves: saves since the last look, of sessions that were there then.
        added: sessions that were not there then.
        gone: sessions that are there no more.
    """

    def __init__(self, limit: int) -> None:
        self.latest: list[SessionSummary] = []
        self.versions: dict[str, int] = {}
        self.bytes = 0
        self.took = 0.0
        self.saves = self.added = self.gone = 0
        self._limit = limit

    async def look(self, summaries: AsyncIterator[SessionSummary], before: Moment | None) -> None:
        """Look at all sessions; only the latest are kept."""
        began = time.monotonic()
        heap: list[tuple[float, str, SessionSummary]] = []
        async for summary in summaries:
            self.versions[summary.fingerprint] = summary.version or 0
            self.bytes += summary.size
            entry = (summary.saved_at or 0.0, summary.fingerprint, summary)
            (heapq.heappush if len(heap) < self._limit else heapq.heappushpop)(heap, entry)
        self.latest = [summary for _, _, summary in sorted(heap, reverse=True)]
        self._compare(self.versions if before is None else before.versions)
        self.took = time.monotonic() - began

    def _compare(self, known: dict[str, int]) -> None:
        both = self.versions.keys() & known.keys()
        self.saves = sum(max(0, self.versions[name] - known[name]) for name in both)
        self.added = len(self.versions.keys() - known.keys())
        self.gone = len(known.keys() - self.versions.keys())


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
        moment = await _look(manager, None, limit)
        if once:
            _emit(output, moment)
            for line in _lines(manager, moment, limit, output.width):
                output.line(line)
        elif output.as_json or not output.is_terminal:
            await _print_for_ever(manager, moment, interval, limit, output)
        else:
            await _live(manager, moment, interval, limit, output)
    return ExitCode.OK


async def _look(manager: SessionManager, before: Moment | None, limit: int) -> Moment:
    moment = Moment(limit)
    await moment.look(each_session(manager), before)
    return moment


async def _looks(
    manager: SessionManager, moment: Moment, interval: float, limit: int
) -> AsyncIterator[Moment | StoreError]:  # fmt: skip
    """Yield each look, or why there was none: a store that is away is asked again the next time."""
    yield moment
    while True:
        await asyncio.sleep(_pause(moment, interval))
        found: Moment | StoreError
        try:
            found = moment = await _look(manager, moment, limit)
        except StoreError as error:
            found = error
        yield found


def _pause(moment: Moment, interval: float) -> float:
    return max(interval, _PAUSE_PER_LOOK * moment.took)


async def _print_for_ever(
    manager: SessionManager, first: Moment, interval: float, limit: int, output: Output
) -> None:  # fmt: skip
    async for found in _looks(manager, first, interval, limit):
        if isinstance(found, StoreError):
            output.emit({"error": type(found).__name__, "message": str(found)})
            output.show(f"the store is away: {found}\n")
            continue
        _emit(output, found)
        output.show("\n".join([*_lines(manager, found, limit, output.width), ""]))


def _emit(output: Output, moment: Moment) -> None:
    counts = {"saves": moment.saves, "added": moment.added, "gone": moment.gone}
    total = {"time": time.time(), "sessions": len(moment.versions), "bytes": moment.bytes}
    output.emit(total | counts | {"latest": [summary_as_json(summary) for summary in moment.latest]})


async def _live(manager: SessionManager, first: Moment, interval: float, limit: int, output: Output) -> None:
    from rich.live import Live
    from rich.text import Text

    shown = first
    with Live(console=output.console, screen=True, auto_refresh=False) as live:
        async for found in _looks(manager, first, interval, limit):
            shown = shown if isinstance(found, StoreError) else found
            height = max(1, output.console.height - _HEAD)
            lines = _lines(manager, shown, min(limit, height), output.width, _pause(shown, interval))
            picture = Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
            if isinstance(found, StoreError):
                picture = Text(f"the store is away: {found}\n", style="bold red", no_wrap=True).append_text(picture)
            live.update(picture, refresh=True)


def _lines(manager: SessionManager, moment: Moment, limit: int, width: int, pause: float = 0.0) -> list[str]:
    latest = moment.latest[:limit]
    rows, now = Rows(width, (printable(summary.fingerprint) for summary in latest)), time.time()
    changes = f"{plural(moment.saves, 'save')}, {moment.added} new, {moment.gone} gone"
    slow = f"   looks every {duration(pause)}" if pause > 1.5 else ""
    return [
        f"{time.strftime('%H:%M:%S')}  {redacted_url(manager.config.url)}{slow}",
        f"{plural(len(moment.versions), 'session')}  {size(moment.bytes)}   since the last look: {changes}",
        "",
        *([rows.heading()] if latest else []),
        *(rows.row(summary, now) for summary in latest),
    ]
