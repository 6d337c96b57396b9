"""`session-reuse copy`: a stored session under a second name."""

from __future__ import annotations

from typing import Annotated

from session_reuse._browser_session import BrowserSession
from session_reuse.cli.commands.import_ import DIRECT, store_new
from session_reuse.cli.connection import Place, connected, use_stored
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.options import Force, argument, stored_name
from session_reuse.cli.output import Output
from session_reuse.errors import ConfigurationError

Source = Annotated[str, stored_name(metavar="FROM")]
Target = Annotated[str, argument("TO", "Name of the copy.")]


async def copy(output: Output, place: Place, source: Source, target: Target, force: Force = False) -> ExitCode:
    """Store a session under a second name. From then on both go their own ways: changes of one do not reach the other."""
    if source == target:
        raise ConfigurationError(f"{source!r} is the source already: name another target")
    async with connected(place, **DIRECT) as manager:
        document = (await use_stored(output, manager, source, "copy")).document
        session = BrowserSession(target, storage_state=document["storage_state"], data=document["data"])
        return await store_new(manager, session, output, replace=force, details={"copied_from": source})
