"""What a command prints, for people or for programs: with `--json`, standard output holds JSON and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TextIO

from session_reuse.cli.formatting import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_PIPE_WIDTH: Final = 10_000
"""Columns where there is no terminal: nothing is cut or folded for those who read lines."""
_ANSI: Final = {"dim": "\x1b[2m", "red": "\x1b[31m", "bold": "\x1b[1m"}
_RESET: Final = "\x1b[0m"


class Output:
    """Standard output and standard error of one command. rich is imported for tables only.

    Args:
        as_json: whether standard output is for programs: JSON and nothing else.

    Attributes:
        is_terminal: whether standard output is a terminal.
        is_writing: whether standard output is being written at this moment; a reader may keep us waiting.
        is_interrupted: whether the command is to end: then nothing is written any more.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.is_terminal = sys.stdout.isatty()
        self.is_writing = False
        self.is_interrupted = False

    @cached_property
    def console(self) -> Console:
        """What prints tables."""
        from rich.console import Console

        return Console(width=None if self.is_terminal else _PIPE_WIDTH, highlight=False, markup=False)

    @property
    def width(self) -> int:
        """Columns of the terminal, as they are now."""
        return shutil.get_terminal_size().columns if self.is_terminal else _PIPE_WIDTH

    def emit(self, value: dict[str, Any], *, flush: bool = True) -> None:
        """Print one JSON object in one line, if programs read."""
        if self.as_json:
            self._write(json.dumps(value, separators=(",", ":")) + "\n", flush=flush)

    def line(self, text: str, style: str = "", *, flush: bool = False) -> None:
        """Print one line for people, if people read."""
        if not self.as_json:
            self._write(_styled(text, style, sys.stdout) + "\n", flush=flush)

    def show(self, content: RenderableType, style: str | None = None) -> None:
        """Print for people, if people read."""
        if self.as_json:
            return
        if isinstance(content, str) and style is None:
            self._write(content + "\n")
            return
        with self._writing():
            self.console.print(content, style=style)

    def note(self, text: str) -> None:
        """Say something on standard error that is not the result, if people read."""
        if not self.as_json:
            self._say(text, "dim")

    def error(self, kind: str, message: str, code: int) -> None:
        """Say why a command ends without its result."""
        if self.as_json:
            self.emit({"error": kind, "message": message, "exit_code": int(code)})
        else:
            self._say(f"error: {printable(message)}", "red")

    def _say(self, text: str, style: str) -> None:
        if not self.is_interrupted:
            sys.stdout.flush()  # the order of lines on a terminal
        sys.stderr.write(_styled(text, style, sys.stderr) + "\n")

    def _write(self, text: str, *, flush: bool = False) -> None:
        with self._writing():
            sys.stdout.write(text)
            if flush:
                sys.stdout.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self.is_writing = True  # first: a signal that comes now raises
        try:
            if self.is_interrupted:
                raise KeyboardInterrupt
            yield
        finally:
            self.is_writing = False


def _styled(text: str, style: str, stream: TextIO) -> str:
    if not style or not stream.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"{_ANSI[style]}{text}{_RESET}"


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """Return an empty table in the one style that all commands share.

    Args:
        columns: the headings.
        right: the headings of columns with numbers.
        title: what stands above.
    """
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(
            column, header_style="bold cyan", justify="right" if column in right else "left", overflow="fold"
        )
    return made
