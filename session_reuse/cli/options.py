"""Options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

_COMPLETIONS: Final = 100


def complete_fingerprints(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return stored fingerprints with this beginning, for the shell."""
    from session_reuse.cli.completion import fingerprints

    return fingerprints(ctx.params.get("url"), ctx.params.get("key_prefix"), incomplete, _COMPLETIONS)


Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="The store.  [default: SESSION_REUSE_URL, else embedded://]", show_default=False
    ),
]
KeyPrefix = Annotated[
    str | None,
    typer.Option(
        "--key-prefix", metavar="PREFIX", help="First part of every key.  [default: SESSION_REUSE_KEY_PREFIX, else browser]",
        show_default=False,
    ),
]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs, and nothing else.")]
Reveal = Annotated[bool, typer.Option("--reveal", help="Show cookie and storage values.")]
Fingerprint = Annotated[
    str,
    typer.Argument(
        metavar="FINGERPRINT", help="Name of the session.", show_default=False, autocompletion=complete_fingerprints
    ),
]
CdpUrl = Annotated[
    str | None,
    typer.Option(
        "--cdp-url", metavar="ADDRESS", help="Use the browser there in place of a new one.", show_default=False
    ),
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The file; - for standard input.", show_default=False)]
