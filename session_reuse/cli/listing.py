"""Walk over the stored sessions for `ls`, `stats` and `top`, and print them as rows of one line each."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final
from unicodedata import east_asian_width

from session_reuse.cli.formatting import plural, printable, short_duration, size

if TYPE_CHECKING:
    from session_reuse._manager import SessionManager
    from session_reuse._summaries import SessionSummary
    from session_reuse.cli.output import Output

SORTED: Final = 1000
"""How many sessions are gathered and sorted before the first is printed; further ones are printed as they come."""
_HEADINGS: Final = ("saves", "last save", "expires", "size", "notes")
_WIDTHS: Final = (5, 9, 7, 8, 9)
_GAP: Final = "  "
_NARROWEST: Final = 12


async def each_session(
    manager: SessionManager, pattern: str | None = None, *, cookies: bool = False
) -> AsyncIterator[SessionSummary]:  # fmt: skip
    """Yield each session once; a cursor of Redis may come by one twice.

    Args:
        manager: of the store.
        pattern: shell pattern that the fingerprint must match.
        cookies: whether to open each session for the expiry of its login cookies.
    """
    seen: set[str] = set()
    async for summary in manager.sessions(cookies=cookies):
        if summary.fingerprint not in seen and (pattern is None or fnmatchcase(summary.fingerprint, pattern)):
            seen.add(summary.fingerprint)
            yield summary


def as_json(summary: SessionSummary) -> dict[str, Any]:
    """Return a summary for programs: times in unix seconds, `ttl` in seconds, null for ever."""
    return asdict(summary)


class Rows:
    """Lines about sessions, fingerprint first, that fit into a terminal of 80 columns.

    Args:
        width: columns there are; names are cut in the middle to fit.
        names: names that the first column is made wide enough for, if there is room.
    """

    def __init__(self, width: int, names: Iterable[str]) -> None:
        room = max(_NARROWEST, width - sum(_WIDTHS) - len(_GAP) * len(_WIDTHS))
        longest = max((columns_of(name) for name in names), default=0)
        self._name_width = min(room, max(longest, _NARROWEST))
        self._room = room

    def heading(self) -> str:
        """Return the line above."""
        return self._line("fingerprint", _HEADINGS)

    def row(self, summary: SessionSummary, now: float) -> str:
        """Return the line about one session."""
        return self._line(_cut(printable(summary.fingerprint), self._room), _cells(summary, now))

    def _line(self, name: str, cells: tuple[str, ...]) -> str:
        *numbers, notes = cells
        padded = name + " " * (self._name_width - columns_of(name))
        right = (cell.rjust(width) for cell, width in zip(numbers, _WIDTHS, strict=False))
        return _GAP.join((padded, *right, notes)).rstrip()


class Printer:
    """Prints sessions as they are found: the first ones sorted, so that a small store is in order."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._first: list[SessionSummary] = []
        self._rows: Rows | None = None

    def add(self, summary: SessionSummary) -> None:
        """Print a session, or keep it until there are enough to sort."""
        if self._rows is not None:
            self._output.line(self._rows.row(summary, time.time()))
            return
        self._first.append(summary)
        if len(self._first) >= SORTED:
            self.finish()

    def finish(self) -> None:
        """Print what has been kept."""
        if self._rows is not None or not self._first:
            return
        self._rows = Rows(self._output.width, (printable(summary.fingerprint) for summary in self._first))
        self._output.line(self._rows.heading(), "bold")
        now = time.time()
        for summary in sorted(self._first, key=lambda summary: summary.fingerprint):
            self._output.line(self._rows.row(summary, now))


def _cells(summary: SessionSummary, now: float) -> tuple[str, ...]:
    left, stored = short_duration(summary.ttl), size(summary.size)
    if summary.version is None or summary.saved_at is None:
        return "", "", left, stored, "not ours"
    notes = ["encrypted"] if summary.encrypted else []
    notes += [plural(summary.uses, "use")] if summary.uses else []
    notes += [f"errors {summary.error_score:g}"] if summary.error_score > 0 else []
    return str(summary.version), f"{short_duration(now - summary.saved_at)} ago", left, stored, ", ".join(notes)


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(2 if east_asian_width(each) in "WF" else 1 for each in text)


def _cut(name: str, room: int) -> str:
    """Return a name that fits, cut in the middle: its end tells identities apart."""
    if columns_of(name) <= room:
        return name
    tail = name
    while columns_of(tail) > room // 2:
        tail = tail[1:]
    head = name
    while columns_of(head) + columns_of(tail) >= room:
        head = head[:-1]
    return f"{head}…{tail}"
