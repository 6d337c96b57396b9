"""`session-reuse show`: print one stored session."""

from __future__ import annotations

from typing import Annotated

import typer

from session_reuse.cli.connection import Place, connected, use_stored
from session_reuse.cli.contents import described, print_contents
from session_reuse.cli.options import Fingerprint
from session_reuse.cli.output import Output

Reveal = Annotated[bool, typer.Option("--reveal", help="Show cookie and storage values.")]


async def show(output: Output, place: Place, fingerprint: Fingerprint, reveal: Reveal = False) -> None:
    """Show one session: its history, cookies, origins. Does not prolong its life and does not count as a use."""
    async with connected(place) as manager:
        # Not `manager.restore`: that counts a use and starts the time to live again.
        stored = await use_stored(output, manager, fingerprint, "show" if reveal else "")
    contents = described(stored, reveal=reveal)
    output.emit(contents)
    print_contents(output, contents)
