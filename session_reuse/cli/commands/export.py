"""`session-reuse export`: one session into a file of mode 0600."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from session_reuse.cli.connection import Place, connected, use_stored
from session_reuse.cli.formatting import printable, size
from session_reuse.cli.options import Fingerprint
from session_reuse.cli.output import Output
from session_reuse.cli.storage_files import STANDARD_STREAM, FileFormat, as_json_file, parts_left_out, write_private
from session_reuse.errors import ConfigurationError

Format = Annotated[
    FileFormat,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="session-reuse: the stored form, sealed as in the store, with all that is in it. playwright: without the "
        "agent's data and sessionStorage. browser-use: without the agent's data, databases and partitioned cookies. "
        "netscape: a cookies.txt, cookies alone. What is left out is counted in a note, and in left_out of --json.",
    ),
]
Target = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file; - for a pipe.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]


async def export(
    output: Output,
    place: Place,
    fingerprint: Fingerprint,
    path: Target,
    file_format: Format = FileFormat.SESSION_REUSE,
    force: Force = False,
) -> None:
    """Write one session to a file of mode 0600, for `session-reuse import`, Playwright, browser-use or curl."""
    # Terminals keep what scrolls by, and so do their logs.
    if path == STANDARD_STREAM and sys.stdout.isatty():
        raise ConfigurationError("a session is a secret and is not printed on a terminal: name a file, or use a pipe")
    async with connected(place) as manager:
        stored = await use_stored(output, manager, fingerprint, "export")
    data, left_out = stored.value, dict[str, int]()  # as stored: an encrypted session stays encrypted in the file
    if file_format is not FileFormat.SESSION_REUSE:
        data = as_json_file(stored.document["storage_state"], file_format)
        left_out = parts_left_out(stored.document, file_format)
    if path == STANDARD_STREAM:
        output.write_bytes(data)
    else:
        write_private(path, data, replace=force)
        output.emit(
            {
                "fingerprint": fingerprint, "file": str(path), "format": file_format.value, "bytes": len(data),
                "left_out": left_out,
            }
        )  # fmt: skip
        output.show(f"{printable(fingerprint)} -> {path} ({file_format}, {size(len(data))}, mode 0600)")
    if left_out:
        parts = ", ".join(f"{name} ({count})" for name, count in left_out.items())
        output.note(f"left out, since {file_format} has no place for it: {parts}")
