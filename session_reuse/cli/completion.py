"""Fingerprints for the shell's completion."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from session_reuse._manager import SessionManager
from session_reuse._store.keys import encoded
from session_reuse.cli.connection import Place
from session_reuse.cli.listing import each_session
from session_reuse.errors import SessionReuseError

_PATIENCE: Final = 1.0


def fingerprints(url: str | None, key_prefix: str | None, beginning: str, most: int) -> list[str]:
    """Return stored fingerprints with this beginning that are found within a second. None for `embedded://`."""
    found: list[str] = []

    async def collect() -> None:
        config = Place(url, key_prefix).config()
        if config.url.startswith("embedded:"):  # the Tab key starts no server
            return
        async with (
            asyncio.timeout(_PATIENCE),
            SessionManager(config.url, key_prefix=config.key_prefix, spool_dir=None, registry=None) as manager,
        ):
            async for summary in each_session(manager):
                name = summary.fingerprint
                # zsh evaluates what it is offered, so that `$(...)` in a name would run. bash inserts names unquoted.
                if name.startswith(beginning) and encoded(name) == name:
                    found.append(name)
                if len(found) >= most:
                    return

    with suppress(SessionReuseError, TimeoutError):
        asyncio.run(collect())
    return sorted(found)
