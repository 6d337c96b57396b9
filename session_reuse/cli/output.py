"""What a command prints, for people or for programs. With `--json`, standard output holds JSON and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, TextIO

from session_reuse.cli.formatting import GAP, columns_of, padded, printable

_PIPE_WIDTH: Final = 10_000
"""Columns without a terminal: programs that read lines need them whole."""
_ANSI: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


class CommandFailed(Exception):  # noqa: N818  (what was asked for is not there: no fault of the command)
    """The command ends without its result, with exit code 1.

    Attributes:
        kind: names the reason for programs.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Output:
    """Standard output and standard error of one command.

    Args:
        as_json: whether standard output is for programs.

    Attributes:
        is_terminal: whether standard output is a terminal.
        is_blocked: whether a `with` of `blocking` runs, as for each write: a slow reader may block it.
        is_interrupted: whether the command is to end. Then nothing is written any more.
        is_unread: whether the reader has ended.
        on_broken_pipe: called when the reader has ended. A callback of the application cannot hold the error back.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.is_terminal = sys.stdout.isatty()
        self.is_blocked = False
        self.is_interrupted = False
        self.is_unread = False
        self.on_broken_pipe: Callable[[], object] = lambda: None

    @property
    def width(self) -> int:
        """Columns of the terminal at this moment."""
        return shutil.get_terminal_size().columns if self.is_terminal else _PIPE_WIDTH

    def emit(self, value: Mapping[str, object], *, flush: bool = True) -> None:
        """Print one JSON object in one line, for programs."""
        if self.as_json:
            self._write(json.dumps(value, separators=(",", ":")) + "\n", flush=flush)

    def show(self, content: str | Table, style: str = "") -> None:
        """Print text or a table, for people, at once: they may read what a service writes through a pipe."""
        if not self.as_json:
            text = styled(content, style) if isinstance(content, str) else "\n".join(content.lines())
            self._write(f"{text}\n")

    def write_bytes(self, content: bytes) -> None:
        """Write a file to standard output."""
        with self._writing():
            sys.stdout.buffer.write(content)
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """Print a remark on standard error, for people."""
        if not self.as_json:
            self._write_error(text, "dim")

    def error(self, kind: str, message: str, code: int) -> None:
        """Print why a command ends without its result."""
        if self.as_json:
            with suppress(OSError):  # else standard output itself is what cannot be written, as on a full disk
                self.emit({"error": kind, "message": message, "exit_code": int(code)})
                return
        self._write_error(f"error: {printable(message)}", "red")

    def _write_error(self, text: str, style: str) -> None:
        if not self.is_interrupted:
            with suppress(OSError):
                sys.stdout.flush()  # keeps the order of lines on a terminal
        try:
            sys.stderr.write(styled(text, style, sys.stderr) + "\n")
            sys.stderr.flush()
        except OSError:  # nobody reads it any more: the exit code stays
            abandon(sys.stderr)

    def _write(self, text: str, *, flush: bool = True) -> None:
        with self._writing():
            sys.stdout.write(text)
            if flush:
                sys.stdout.flush()

    @contextmanager
    def blocking(self) -> Iterator[None]:
        """Let a signal raise during the `with`: it waits for another program or a person, and cannot be cancelled."""
        self.is_blocked = True  # before the check: a signal that arrives from now on raises
        try:
            if self.is_interrupted:
                raise KeyboardInterrupt
            yield
        finally:
            self.is_blocked = False

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self.blocking():
                yield
        except BrokenPipeError:
            self.is_unread = True
            self.on_broken_pipe()
            raise


def abandon(stream: TextIO | None) -> None:
    """Drop what is left to be written: at its end, Python would wait for the reader of a pipe, or fail and exit with 120."""
    ours = stream is sys.__stdout__ or stream is sys.__stderr__  # both may be None
    if ours and stream is not None and not stream.isatty():
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def styled(text: str, style: str, stream: TextIO | None = None) -> str:
    """Return a text in a style such as `bold red`, if the stream is a terminal that shows it. Default: standard output."""
    # As https://no-color.org says: an empty NO_COLOR counts as unset.
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if not style or not (stream or sys.stdout).isatty() or is_plain:
        return text
    return f"\x1b[{';'.join(_ANSI[word] for word in style.split())}m{text}\x1b[0m"


class Table:
    """Rows of text in columns. A line is as long as its cells: a terminal wraps it, and a copied value stays whole.

    A table of rich took 0.45 ms a row, most of the time of a long listing (2026-11-26).

    Args:
        headings: of the columns. A column without a heading has an empty one.
        right: the headings of columns with numbers.
    """

    def __init__(self, *headings: str, right: Collection[str] = ()) -> None:
        self._headings = [printable(heading) for heading in headings]
        self._is_right = [heading in right for heading in headings]
        self._rows: list[list[str]] = []

    def add_row(self, *cells: str) -> None:
        """Add a row. Control characters in it are escaped."""
        self._rows.append([printable(cell) for cell in cells])

    def __bool__(self) -> bool:
        """Return whether there are rows."""
        return bool(self._rows)

    def lines(self) -> Iterator[str]:
        """Yield the headings, if there are any, and the rows."""
        widths = [max(map(columns_of, column)) for column in zip(self._headings, *self._rows, strict=True)]
        if any(self._headings):
            yield styled(self._line(self._headings, widths), "bold")
        for row in self._rows:
            yield self._line(row, widths)

    def _line(self, cells: Iterable[str], widths: list[int]) -> str:
        aligned = zip(cells, widths, self._is_right, strict=True)
        return GAP.join(padded(cell, width, right=right) for cell, width, right in aligned).rstrip()
