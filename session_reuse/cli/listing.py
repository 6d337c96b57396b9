"""Walk over the stored sessions, and show them with one line each."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from session_reuse._resilience.failure import AttemptFailed, FailureScope
from session_reuse._state.header import Header
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import columns_of, plural, printable, short_duration, size
from session_reuse.cli.output import Output, Table
from session_reuse.errors import CorruptStateError, StorePermissionError

if TYPE_CHECKING:
    from session_reuse._manager import SessionManager
    from session_reuse._summaries import SessionSummary

_NUMBERS: Final = ("saves", "last save", "expires", "size")
_OTHER_COLUMNS: Final = 48
"""What a line takes of a terminal beside the name."""
_NARROWEST: Final = 12


async def each_session(
    manager: SessionManager,
    pattern: str | None = None,
    *,
    cookies: bool = False,
    refusals: Refusals | None = None,
) -> AsyncIterator[SessionSummary]:
    """Yield each session once whose fingerprint matches a shell pattern. Note those that the store does not show."""
    seen: set[str] = set()  # SCAN may return a key twice
    async for summary in manager.sessions("*" if pattern is None else pattern, cookies=cookies):
        if summary.fingerprint not in seen:
            seen.add(summary.fingerprint)
            if refusals is not None and summary.error:
                refusals.add(summary.fingerprint, summary.error)
            yield summary


def key_id_in(head: bytes) -> str:
    """Return the name of the key of a listed session. Empty for a value that is no session."""
    try:
        return Header.decode(head).key_id
    except CorruptStateError:
        return ""


class Refusals:
    """What the store refuses to a command that goes over many sessions."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    def add(self, name: str, reason: str) -> None:
        """Note one."""
        self._found.append((name, reason))

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Note what the store refuses in the `with`, and go on with the others.

        Raises:
            StoreError: trouble that is not about this name alone.
        """
        try:
            yield
        except AttemptFailed as failure:
            if failure.scope is not FailureScope.REQUEST:
                raise failure.error from None
            self.add(name, str(failure.error))
        except StorePermissionError as error:
            self.add(name, str(error))

    def end(self, output: Output, code: ExitCode = ExitCode.OK) -> ExitCode:
        """Print an error about them, and return the exit code of the command."""
        if not self._found:
            return code
        (name, reason), *more = self._found
        others = f" and {len(more)} more" if more else ""
        output.error("StoreError", f"{name}{others}: {reason}", ExitCode.STORE)
        return ExitCode.STORE


def table_of(summaries: Iterable[SessionSummary], width: int) -> Table:
    """Return a line about each session, for a terminal of so many columns, 80 or more. Longer names are cut."""
    made, now, room = Table("fingerprint", *_NUMBERS, "notes", right=_NUMBERS), time.time(), width - _OTHER_COLUMNS
    for each in summaries:
        made.add_row(_cut(printable(each.fingerprint), max(room, _NARROWEST)), *_cells(each, now))
    return made


def _cells(summary: SessionSummary, now: float) -> tuple[str, ...]:
    if summary.error:
        return "", "", "", "", "refused"
    left, stored = short_duration(summary.ttl), size(summary.size)
    if summary.version is None or summary.saved_at is None:
        return "", "", left, stored, "not ours"
    notes = ["encrypted"] if summary.encrypted else []
    notes += [plural(summary.uses, "use")] if summary.uses else []
    notes += [f"errors {summary.error_score:g}"] if summary.error_score > 0 else []
    return str(summary.version), f"{short_duration(now - summary.saved_at)} ago", left, stored, ", ".join(notes)


def _cut(name: str, room: int) -> str:
    """Return a name that fits. It is cut in the middle, because identities differ at the end."""
    if columns_of(name) <= room:
        return name
    tail = name
    while columns_of(tail) > room // 2:
        tail = tail[1:]
    start = name
    while columns_of(start) + columns_of(tail) >= room:
        start = start[:-1]
    return f"{start}…{tail}"
