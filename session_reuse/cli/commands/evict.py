"""`session-reuse evict`: delete sessions for everyone, each by its name."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from session_reuse.cli.connection import Place, connected
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import printable
from session_reuse.cli.options import AsJson, KeyPrefix, Url, complete_fingerprints
from session_reuse.cli.output import Output
from session_reuse.cli.running import run

Fingerprints = Annotated[
    list[str],
    typer.Argument(
        metavar="FINGERPRINT",
        help="Names of the sessions.",
        show_default=False,
        autocompletion=complete_fingerprints,
    ),
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="For the log, without secrets.", show_default=False)]


def evict(
    fingerprints: Fingerprints,
    reason: Reason = "",
    url: Url = None,
    key_prefix: KeyPrefix = None,
    as_json: AsJson = False,
) -> None:
    """Delete sessions for everyone, and refuse late saves of agents that hold them now. Gives 1 if one was not there."""
    run(partial(_evict, Place(url, key_prefix), fingerprints, reason), as_json=as_json)


async def _evict(place: Place, fingerprints: list[str], reason: str, output: Output) -> ExitCode:
    code = ExitCode.OK
    async with connected(place) as manager:
        # Names only, no patterns: an eviction cannot be undone.
        for fingerprint in fingerprints:
            existed = await manager.evict(fingerprint, reason)
            output.emit({"fingerprint": fingerprint, "evicted": existed})
            output.show(f"{'evicted' if existed else 'not there'}: {printable(fingerprint)}")
            if not existed:
                code = ExitCode.WRONG
    return code
