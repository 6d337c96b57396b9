"""What a command prints, for people or for programs. Must never mix the two on standard output."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.table import Table

from session_reuse.cli.formatting import printable

_PIPE_WIDTH: Final = 10_000
"""Columns where there is no terminal: nothing is cut or folded for whoever reads lines."""


class Output:
    """Standard output and standard error of one command.

    Args:
        as_json: whether standard output is for programs: JSON and nothing else.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, markup=False)
        self._notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def emit(self, value: dict[str, Any]) -> None:
        """Print one JSON object in one line, if programs read."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, separators=(",", ":")) + "\n")
            sys.stdout.flush()

    def show(self, content: RenderableType, style: str | None = None) -> None:
        """Print for people, if people read."""
        if not self.as_json:
            self.console.print(content, style=style)

    def note(self, text: str) -> None:
        """Say something on standard error that is not the result, if people read."""
        if not self.as_json:
            self._notes.print(text, style="dim")

    def error(self, kind: str, message: str, code: int) -> None:
        """Say why a command ends without its result."""
        if self.as_json:
            self.emit({"error": kind, "message": message, "exit_code": int(code)})
        else:
            self._notes.print(f"error: {printable(message)}", style="red")


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """Return an empty table in the one style that all commands share.

    Args:
        columns: the headings.
        right: the headings of columns with numbers.
        title: what stands above.
    """
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(
            column, header_style="bold cyan", justify="right" if column in right else "left", overflow="fold"
        )
    return made
