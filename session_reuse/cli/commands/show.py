"""`session-reuse show`: print one stored session."""

from __future__ import annotations

from functools import partial

from session_reuse._manager import runtime_of
from session_reuse.cli.connection import Place, connected, read_stored
from session_reuse.cli.contents import described, print_contents
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.options import AsJson, Fingerprint, KeyPrefix, Reveal, Url
from session_reuse.cli.output import Output
from session_reuse.cli.running import run


def show(
    fingerprint: Fingerprint,
    reveal: Reveal = False,
    url: Url = None,
    key_prefix: KeyPrefix = None,
    as_json: AsJson = False,
) -> None:
    """Show one session: its history, cookies, origins. Does not prolong its life and does not count as a use."""
    run(partial(_show, Place(url, key_prefix), fingerprint, reveal), as_json=as_json)


async def _show(place: Place, fingerprint: str, reveal: bool, output: Output) -> ExitCode:
    async with connected(place) as manager:
        # Not `manager.restore`: that counts a use and starts the time to live again.
        stored = await read_stored(await runtime_of(manager), fingerprint, used_by="show" if reveal else "")
    if stored is None:
        output.error("NotThere", f"there is no session {fingerprint!r}", ExitCode.WRONG)
        return ExitCode.WRONG
    contents = described(stored, reveal=reveal)
    output.emit(contents)
    print_contents(output, contents)
    return ExitCode.OK
