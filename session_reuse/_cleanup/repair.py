"""Find sessions that the index of deadlines has lost, by a slow walk over all of them.

A fail-over may lose an entry and keep its session. Such a session still expires, but `on_expired` would not be called. An
entry without a session needs no repair: the reconcile finds it when it is due.
"""

from __future__ import annotations

import asyncio
from typing import Final

from session_reuse._store.redis.store import RedisStore

_PAUSE: Final = 0.02
"""Rest between two pages of about 500 sessions."""
_TIMEOUT: Final = 2.0


async def repair(store: RedisStore, unending: float) -> int:
    """Enter all sessions that are not in the index, and return how many there were.

    Args:
        store: the store of the sessions.
        unending: seconds until the next check of a session without an end.

    Raises:
        AttemptFailed: the store, or a part of it, does not answer.
    """
    found = 0
    async for page in store.fingerprints(timeout=_TIMEOUT):
        if page:
            found += await _enter_missing(store, page, unending)
            await asyncio.sleep(_PAUSE)  # the walk may take minutes, agents may not wait for it
    return found


async def _enter_missing(store: RedisStore, page: list[str], unending: float) -> int:
    entries = await store.deadlines.entries(page, timeout=_TIMEOUT)
    missing = [name for name, entry in entries.items() if entry is None]
    if not missing:
        return 0
    lefts = await store.deadlines.times_to_live(missing, timeout=_TIMEOUT)
    alive = [
        (name, left / 1000 if left >= 0 else unending)
        for name, left in zip(missing, lefts, strict=True)
        if left is not None and left >= -1
    ]
    return await store.deadlines.add(alive, timeout=_TIMEOUT) if alive else 0
