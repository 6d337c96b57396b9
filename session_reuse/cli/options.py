"""Options that commands share. Must never read a setting: that is `Config`'s work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option("--url", help="The store.  [default: SESSION_REUSE_URL, else embedded://]", show_default=False),
]
KeyPrefix = Annotated[
    str | None,
    typer.Option(
        "--key-prefix", help="First part of every key.  [default: SESSION_REUSE_KEY_PREFIX, else browser]",
        show_default=False,
    ),
]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs, and nothing else.")]
Reveal = Annotated[bool, typer.Option("--reveal", help="Show cookie and storage values.")]
Fingerprint = Annotated[str, typer.Argument(help="Name of the session.", show_default=False)]
File = Annotated[Path, typer.Argument(help="The file; - for standard input.", show_default=False)]
