"""`session-reuse top`: watch the sessions live, by their headers."""

from __future__ import annotations

import asyncio
import heapq
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from session_reuse.cli.connection import Place, connected
from session_reuse.cli.formatting import duration, plural, size
from session_reuse.cli.listing import each_session, table_of
from session_reuse.cli.output import Output, styled
from session_reuse.config import redacted_url
from session_reuse.errors import ConfigurationError, StoreError

if TYPE_CHECKING:
    from session_reuse._manager import SessionManager
    from session_reuse._summaries import SessionSummary

_PAUSE_RATIO: Final = 20.0
"""A listing of 50,000 sessions takes 0.5 s of the server's CPU (2026-11). So listings take a twentieth of the time."""
_OTHER_LINES: Final = 6
"""Lines of the screen beside the sessions: one for an error of the store and the one of the cursor included."""

Once = Annotated[bool, typer.Option("--once", help="Print once and end.")]
Interval = Annotated[
    float, typer.Option(min=0.1, metavar="SECONDS", help="Time between two refreshes, longer for a large store.")
]
Limit = Annotated[int, typer.Option(min=1, metavar="NUMBER", help="How many sessions to show, those saved last.")]


@dataclass(frozen=True, slots=True)
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

    latest: list[SessionSummary]
    versions: dict[str, int]
    bytes: int
    took: float
    saves: int
    added: int
    gone: int


async def _list(manager: SessionManager, before: Overview | None, limit: int) -> Overview:
    began = time.monotonic()
    found = [summary async for summary in each_session(manager)]
    now = {summary.fingerprint: summary.version or 0 for summary in found}
    known = now if before is None else before.versions
    return Overview(
        latest=heapq.nlargest(limit, found, key=lambda summary: summary.saved_at or 0.0),
        versions=now,
        bytes=sum(summary.size for summary in found),
        took=time.monotonic() - began,
        saves=sum(max(0, now[name] - known[name]) for name in now.keys() & known.keys()),
        added=len(now.keys() - known.keys()),
        gone=len(known.keys() - now.keys()),
    )


def pause_after(took: float, interval: float) -> float:
    """Return the seconds from a listing that took so long until the next one."""
    return max(interval, _PAUSE_RATIO * took)


async def top(output: Output, place: Place, once: Once = False, interval: Interval = 1.0, limit: Limit = 20) -> None:
    """Watch the stored sessions, those saved last first, until Ctrl-C. With --json, print one object per refresh."""
    if not math.isfinite(interval):
        raise ConfigurationError("--interval must be a number of seconds")
    draws = output.is_terminal and not (once or output.as_json or os.environ.get("TERM") == "dumb")
    async with connected(place) as manager:
        shown, trouble = redacted_url(manager.config.url), None
        overview = await _list(manager, None, limit)
        with _whole_screen() if draws else nullcontext():
            while True:
                pause = pause_after(overview.took, interval)
                if draws:
                    _draw(output, overview, trouble, shown, pause)
                else:
                    _print(output, overview, trouble, shown)
                if once:
                    return
                await asyncio.sleep(pause)
                try:  # an operator watches through an outage, so it does not end the command
                    overview, trouble = await _list(manager, overview, limit), None
                except StoreError as error:
                    trouble = error


def _print(output: Output, overview: Overview, trouble: StoreError | None, shown: str) -> None:
    if trouble is not None:
        output.emit({"error": type(trouble).__name__, "message": str(trouble)})
        output.show(f"the store is away: {trouble}\n")
        return
    counts = {"saves": overview.saves, "added": overview.added, "gone": overview.gone}
    total = {"time": time.time(), "sessions": len(overview.versions), "bytes": overview.bytes}
    output.emit(total | counts | {"latest": [asdict(summary) for summary in overview.latest]})
    output.show("\n".join([*_lines(overview, shown, overview.latest, output.width), ""]))


@contextmanager
def _whole_screen() -> Iterator[None]:
    """Draw on the second screen of the terminal, with long lines cut and the cursor hidden."""
    sys.stdout.write("\x1b[?1049h\x1b[?7l\x1b[?25l")
    try:
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?7h\x1b[?1049l")


def _draw(output: Output, overview: Overview, trouble: StoreError | None, shown: str, pause: float) -> None:
    room = shutil.get_terminal_size().lines - _OTHER_LINES
    lines = _lines(overview, shown, overview.latest[: max(1, room)], output.width, pause)
    if trouble is not None:
        lines.insert(0, styled(f"the store is away: {trouble}"[: output.width], "bold red"))
    # From the upper left: each line is cleared and overwritten, the last one with all below. So nothing flickers, and a line
    # as wide as the screen keeps its last column.
    *above, last = lines
    output.show("\x1b[H" + "".join(f"\x1b[K{line}\n" for line in above) + f"\x1b[J{last}")


def _lines(
    overview: Overview, shown: str, latest: list[SessionSummary], width: int, pause: float = 0.0
) -> list[str]:  # fmt: skip
    changes = f"{plural(overview.saves, 'save')}, {overview.added} new, {overview.gone} gone"
    slow = f"   refreshed every {duration(pause)}" if pause > 1.5 else ""
    return [
        f"{time.strftime('%H:%M:%S')}  {shown}{slow}",
        f"{plural(len(overview.versions), 'session')}  {size(overview.bytes)}   since the last refresh: {changes}",
        "",
        *(table_of(latest, width).lines() if latest else ()),
    ]
