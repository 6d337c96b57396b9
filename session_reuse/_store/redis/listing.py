"""List sessions by cursor, in pages of short commands, without their bodies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from session_reuse._cancellation import SwallowedCancellation
from session_reuse._resilience.failure import AttemptFailed, FailureScope
from session_reuse._store.interface import SessionEntry
from session_reuse._store.keys import Keys
from session_reuse._store.redis.failures import checked, failure_from
from session_reuse._store.redis.redis_py import Command, Send
from session_reuse._store.redis.scripts import call, text
from session_reuse._store.redis.topology import Topology

_PAGE: Final = 500
_LATEST: Final = 10.0**14
"""Unix milliseconds. Another program may have written infinity."""


async def keys_like(topology: Topology, pattern: str, timeout: float) -> AsyncIterator[list[bytes]]:
    """Yield the keys that match a pattern in pages, by SCAN, primary after primary."""
    try:
        async with asyncio.timeout(timeout):
            primaries = await topology.primaries()
        for primary in primaries:
            cursor: int | None = None
            cancellation = SwallowedCancellation()
            while cursor != 0:
                async with asyncio.timeout(timeout):
                    cursor, page = await primary.execute_command("SCAN", cursor or 0, "MATCH", pattern, "COUNT", _PAGE)
                cancellation.raise_again()
                yield page
    except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError)
        raise failure_from(error) from None


async def fingerprints(topology: Topology, keys: Keys, timeout: float) -> AsyncIterator[list[str]]:
    """Yield the fingerprints of all sessions in pages. Keys that are not ours are left out."""
    async for page in keys_like(topology, keys.pattern("session"), timeout):
        yield [name for key in page if (name := keys.fingerprint_of(text(key))) is not None]


async def list_sessions(topology: Topology, send: Send, keys: Keys, timeout: float) -> AsyncIterator[SessionEntry]:
    """Yield every session under the prefix: keys by SCAN, then one script for each, in pages."""
    async for names in fingerprints(topology, keys, timeout):
        commands: list[Command] = [facts_of(keys, name) for name in names]
        replies = await send(*commands, timeout=timeout) if commands else []
        for name, reply in zip(names, replies, strict=True):
            try:
                listed = listed_from(name, reply)
            except AttemptFailed as failure:
                if failure.scope is not FailureScope.REQUEST:
                    raise
                listed = SessionEntry(name, b"", None, 0, failure=failure)  # such as a key that the user may not read
            if listed is not None:
                yield listed


def facts_of(keys: Keys, fingerprint: str) -> Command:
    """Return the command for what a listing shows of one session."""
    of = keys.of(fingerprint)
    return call("facts", (of.session, of.agents, of.lease, of.liveness))


def listed_from(fingerprint: str, reply: Any) -> SessionEntry | None:
    """Return what the script has found. None where there is no session."""
    return None if checked(reply)[1] == -2 else entry_from(fingerprint, reply)


def entry_from(fingerprint: str, reply: Any) -> SessionEntry:
    """Return what the script has found, also of a session that is not stored."""
    head, left, size, agent, used_at, lease, lease_left, liveness, now = checked(reply)
    token, _, holder = text(lease).partition(":")
    return SessionEntry(
        fingerprint, bytes(head), None if left < 0 else left / 1000, size,
        used_by=text(agent), used_at=round(min(max(0.0, float(used_at or 0)), _LATEST)), holder=holder if token.isdigit() else "",
        lease_left=max(0, lease_left) / 1000, liveness=text(liveness), now=int(now),
    )  # fmt: skip
