"""What a command prints, for people or for programs. With `--json`, standard output holds JSON and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Final, TextIO

from session_reuse.cli.formatting import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_PIPE_WIDTH: Final = 10_000
"""Columns without a terminal: programs that read lines need them whole."""
_ANSI: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


class Output:
    """Standard output and standard error of one command.

    Args:
        as_json: whether standard output is for programs.

    Attributes:
        is_terminal: whether standard output is a terminal.
        is_writing: whether standard output is being written now. A slow reader may block the write.
        is_interrupted: whether the command is to end. Then nothing is written any more.
        on_broken_pipe: called when the reader has ended. A callback of the application cannot hold the error back.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.is_terminal = sys.stdout.isatty()
        self.is_writing = False
        self.is_interrupted = False
        self.on_broken_pipe: Callable[[], object] = lambda: None

    @cached_property
    def console(self) -> Console:
        """The printer of tables. Imported for them alone: rich takes 0.1 s (2026-11)."""
        from rich.console import Console

        return Console(width=None if self.is_terminal else _PIPE_WIDTH, highlight=False, markup=False)

    @property
    def width(self) -> int:
        """Columns of the terminal at this moment."""
        return shutil.get_terminal_size().columns if self.is_terminal else _PIPE_WIDTH

    def emit(self, value: Mapping[str, object], *, flush: bool = True) -> None:
        """Print one JSON object in one line, for programs."""
        if self.as_json:
            self._write(json.dumps(value, separators=(",", ":")) + "\n", flush=flush)

    def show(self, content: RenderableType, style: str = "", *, flush: bool = False) -> None:
        """Print text or a table, for people."""
        if self.as_json:
            return
        if isinstance(content, str):
            self._write(_styled(content, style, sys.stdout) + "\n", flush=flush)
            return
        # Written by us: at the end of the reader, rich ends the process with an exit code of its own.
        with self.console.capture() as captured:
            self.console.print(content)
        self._write(captured.get())

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
        sys.stderr.write(_styled(text, style, sys.stderr) + "\n")

    def _write(self, text: str, *, flush: bool = False) -> None:
        with self._writing():
            sys.stdout.write(text)
            if flush:
                sys.stdout.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self.is_writing = True  # before the check: a signal that arrives from now on raises
        try:
            if self.is_interrupted:
                raise KeyboardInterrupt
            yield
        except BrokenPipeError:
            self.on_broken_pipe()
            raise
        finally:
            self.is_writing = False


def _styled(text: str, style: str, stream: TextIO) -> str:
    # As rich decides for tables, and as https://no-color.org says: an empty NO_COLOR counts as unset.
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if not style or not stream.isatty() or is_plain:
        return text
    return f"\x1b[{';'.join(_ANSI[word] for word in style.split())}m{text}\x1b[0m"


def table(*columns: str, right: tuple[str, ...] = (), header: bool = True) -> Table:
    """Return an empty table in the style of all commands.

    Args:
        columns: the headings.
        right: the headings of columns with numbers.
        header: whether the headings are shown.
    """
    from rich.table import Table

    made = Table(box=None, show_header=header, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        justify = "right" if column in right else "left"
        made.add_column(column, header_style="bold cyan", justify=justify, overflow="fold")  # type: ignore[arg-type]
    return made
