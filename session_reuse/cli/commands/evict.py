"""`session-reuse evict`: delete sessions for everyone, each by its name."""

from __future__ import annotations

from typing import Annotated

from session_reuse.cli.connection import Place, connected
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import printable
from session_reuse.cli.listing import Refusals
from session_reuse.cli.options import option, stored_name
from session_reuse.cli.output import Output

Fingerprints = Annotated[list[str], stored_name("Names of the sessions.")]
Reason = Annotated[str, option("--reason", "TEXT", "For the log, without secrets.")]


async def evict(output: Output, place: Place, fingerprints: Fingerprints, reason: Reason = "") -> ExitCode:
    """Delete sessions for everyone, and refuse late saves of agents that hold them now. Gives 1 if one was not there. `rm` is another name."""
    code, refusals = ExitCode.OK, Refusals()
    async with connected(place) as manager:
        # Names only, no patterns: an eviction cannot be undone.
        for fingerprint in fingerprints:
            with refusals.of(fingerprint):
                existed = await manager.evict(fingerprint, reason)
                output.emit({"fingerprint": fingerprint, "evicted": existed})
                output.show(f"{'evicted' if existed else 'not there'}: {printable(fingerprint)}")
                code = code if existed else ExitCode.WRONG
    return refusals.end(output, code)
