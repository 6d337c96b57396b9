"""List sessions by cursor, in pages of short commands, without their bodies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from session_reuse._cancellation import SwallowedCancellation
from session_reuse._state.header import LENGTH
from session_reuse._store.interface import Listed
from session_reuse._store.keys import Keys, is_name
from session_reuse._store.redis.failures import failure_from
from session_reuse._store.redis.redis_py import Command
from session_reuse._store.redis.sender import Sender, checked
from session_reuse._store.redis.topology import Topology

_PAGE: Final = 500


async def session_keys(topology: Topology, keys: Keys, timeout: float) -> AsyncIterator[list[bytes]]:
    """Yield the keys of all sessions under the prefix in pages, by SCAN, primary after primary."""
    try:
        async with asyncio.timeout(timeout):
            primaries = await topology.primaries()
        for primary in primaries:
            cursor: int | None = None
            cancellation = SwallowedCancellation()
            while cursor != 0:
                async with asyncio.timeout(timeout):
                    cursor, page = await primary.execute_command(
                        "SCAN", cursor or 0, "MATCH", keys.sessions_pattern(), "COUNT", _PAGE
                    )
                cancellation.raise_again()
                yield page
    except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError)
        raise failure_from(error) from None


async def fingerprints(topology: Topology, keys: Keys, timeout: float) -> AsyncIterator[list[str]]:
    """Yield the fingerprints of all sessions in pages; keys that are not ours are left out."""
    async for page in session_keys(topology, keys, timeout):
        names = [(key, keys.fingerprint_of(key.decode(errors="replace"))) for key in page]
        yield [name for key, name in names if name and is_name(name) and keys.session(name).encode() == key]


async def list_sessions(topology: Topology, sender: Sender, keys: Keys, timeout: float) -> AsyncIterator[Listed]:
    """Yield every session under the prefix: key by SCAN, head by GETRANGE, in pages."""
    async for page in session_keys(topology, keys, timeout):
        commands: list[Command] = []
        for key in page:
            commands += (("GETRANGE", key, 0, LENGTH - 1), ("PTTL", key), ("STRLEN", key))
        replies = await sender.send(*commands, timeout=timeout) if commands else []
        for position, key in enumerate(page):
            listed = _listed(keys, key, *replies[3 * position : 3 * position + 3])
            if listed is not None:
                yield listed


def _listed(keys: Keys, key: bytes, head: Any, left: Any, size: Any) -> Listed | None:
    fingerprint = keys.fingerprint_of(key.decode(errors="replace"))
    if fingerprint is None or checked(left) == -2:
        return None
    if isinstance(head, Exception):
        head, size = b"", 0
    return Listed(fingerprint, head, None if left < 0 else left / 1000, size)
