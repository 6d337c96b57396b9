"""`session-reuse top`: watch the sessions live, by their headers."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Final

import typer

from session_reuse.cli.connection import Place, connected
from session_reuse.cli.formatting import duration, plural, size
from session_reuse.cli.listing import Rows, each_session
from session_reuse.cli.output import Output
from session_reuse.config import redacted_url
from session_reuse.errors import StoreError

if TYPE_CHECKING:
    from session_reuse._manager import SessionManager
    from session_reuse._summaries import SessionSummary

_PAUSE_RATIO: Final = 20.0
"""A listing of 50,000 sessions takes 0.5 s of the server's CPU (2026-11). So listings take a twentieth of the time."""
_LINES_ABOVE: Final = 5
"""Lines above the sessions, one for an error of the store included."""

Once = Annotated[bool, typer.Option("--once", help="Print once and end.")]
Interval = Annotated[
    float, typer.Option(min=0.1, metavar="SECONDS", help="Time between two refreshes, longer for a large store.")
]
Limit = Annotated[int, typer.Option(min=1, metavar="NUMBER", help="How many sessions to show, those saved last.")]


@dataclass(slots=True)
class Overview:
    """One listing of the store, compared with the one before.

    Attributes:
        latest: the sessions saved last.
        versions: the number of saves of each session.
        bytes: stored by all.
        took: seconds that the listing took.
        saves: saves since the last listing, of sessions that are in both.
        added: sessions that were not in the last listing.
        gone: sessions of the last listing that are missing now.
    """

    latest: list[SessionSummary] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    took: float = 0.0
    saves: int = 0
    added: int = 0
    gone: int = 0


async def _list(manager: SessionManager, before: Overview | None, limit: int) -> Overview:
    began, now = time.monotonic(), Overview()
    heap: list[tuple[float, str, SessionSummary]] = []  # only the latest sessions stay in memory
    async for summary in each_session(manager):
        now.versions[summary.fingerprint] = summary.version or 0
        now.bytes += summary.size
        entry = (summary.saved_at or 0.0, summary.fingerprint, summary)
        (heapq.heappush if len(heap) < limit else heapq.heappushpop)(heap, entry)
    now.latest = [summary for _, _, summary in sorted(heap, reverse=True)]
    known = now.versions if before is None else before.versions
    now.saves = sum(max(0, now.versions[name] - known[name]) for name in now.versions.keys() & known.keys())
    now.added = len(now.versions.keys() - known.keys())
    now.gone = len(known.keys() - now.versions.keys())
    now.took = time.monotonic() - began
    return now


def pause_after(overview: Overview, interval: float) -> float:
    """Return the seconds until the next listing."""
    return max(interval, _PAUSE_RATIO * overview.took)


async def top(output: Output, place: Place, once: Once = False, interval: Interval = 1.0, limit: Limit = 20) -> None:
    """Watch the stored sessions, those saved last first, until Ctrl-C. With --json, print one object per refresh."""
    async with connected(place) as manager:
        first = await _list(manager, None, limit)
        shown = redacted_url(manager.config.url)
        if once:
            _print(output, first, shown)
        elif output.as_json or not output.is_terminal:
            async for found in _overviews(manager, first, interval, limit):
                _print(output, found, shown)
        else:
            await _live(output, _overviews(manager, first, interval, limit), shown, interval)


async def _overviews(
    manager: SessionManager, first: Overview, interval: float, limit: int
) -> AsyncIterator[Overview | StoreError]:
    """Yield each listing, or the error of a store that is away, which is tried again."""
    overview = first
    yield first
    while True:
        await asyncio.sleep(pause_after(overview, interval))
        found: Overview | StoreError
        try:  # an operator watches through an outage, so it does not end the command
            found = overview = await _list(manager, overview, limit)
        except StoreError as error:
            found = error
        yield found


def _print(output: Output, found: Overview | StoreError, shown: str) -> None:
    if isinstance(found, StoreError):
        output.emit({"error": type(found).__name__, "message": str(found)})
        output.show(f"the store is away: {found}\n")
        return
    counts = {"saves": found.saves, "added": found.added, "gone": found.gone}
    total = {"time": time.time(), "sessions": len(found.versions), "bytes": found.bytes}
    output.emit(total | counts | {"latest": [asdict(summary) for summary in found.latest]})
    output.show("\n".join([*_lines(found, shown, found.latest, output.width), ""]))


async def _live(
    output: Output, overviews: AsyncIterator[Overview | StoreError], shown: str, interval: float
) -> None:  # fmt: skip
    from rich.live import Live
    from rich.text import Text

    overview = Overview()
    with Live(console=output.console, screen=True, auto_refresh=False) as live:
        async for found in overviews:
            trouble = f"the store is away: {found}\n" if isinstance(found, StoreError) else ""
            overview = overview if isinstance(found, StoreError) else found
            latest = overview.latest[: max(1, output.console.height - _LINES_ABOVE)]
            text = "\n".join(_lines(overview, shown, latest, output.width, pause_after(overview, interval)))
            picture = Text.assemble((trouble, "bold red"), text, no_wrap=True, overflow="ellipsis")
            live.update(picture, refresh=True)


def _lines(
    overview: Overview, shown: str, latest: list[SessionSummary], width: int, pause: float = 0.0
) -> list[str]:  # fmt: skip
    rows, now = Rows(width, (summary.fingerprint for summary in latest)), time.time()
    changes = f"{plural(overview.saves, 'save')}, {overview.added} new, {overview.gone} gone"
    slow = f"   refreshed every {duration(pause)}" if pause > 1.5 else ""
    return [
        f"{time.strftime('%H:%M:%S')}  {shown}{slow}",
        f"{plural(len(overview.versions), 'session')}  {size(overview.bytes)}   since the last refresh: {changes}",
        "",
        *([rows.heading()] if latest else []),
        *(rows.row(summary, now) for summary in latest),
    ]
