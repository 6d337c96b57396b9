"""Listing of sessions by cursor. Must never fetch a body, nor block the server with one long command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from session_reuse.state.header import LENGTH
from session_reuse.store.failures import failure_from
from session_reuse.store.interface import Listed
from session_reuse.store.keys import Keys

_PAGE: Final = 500


async def list_sessions(client: Any, keys: Keys, timeout: float) -> AsyncIterator[Listed]:
    """Yield every session under the prefix: key by SCAN, head by GETRANGE, in pages."""
    page: list[bytes] = []
    cursor = client.scan_iter(match=keys.sessions_pattern(), count=_PAGE).__aiter__()
    while True:
        try:
            async with asyncio.timeout(timeout):
                page.append(await anext(cursor))
        except StopAsyncIteration:
            break
        except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError)
            raise failure_from(error) from None
        if len(page) >= _PAGE:
            for listed in await _heads(client, keys, page, timeout):
                yield listed
            page = []
    for listed in await _heads(client, keys, page, timeout):
        yield listed


async def _heads(client: Any, keys: Keys, page: list[bytes], timeout: float) -> list[Listed]:
    if not page:
        return []
    pipeline = client.pipeline(transaction=False)
    for key in page:
        pipeline.getrange(key, 0, LENGTH - 1)
        pipeline.pttl(key)
        pipeline.strlen(key)
    try:
        async with asyncio.timeout(timeout):
            replies = await pipeline.execute(raise_on_error=False)
    except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError)
        raise failure_from(error) from None
    return [
        listed
        for position, key in enumerate(page)
        if (listed := _listed(keys, key, *replies[3 * position : 3 * position + 3])) is not None
    ]


def _listed(keys: Keys, key: bytes, head: Any, left: Any, size: Any) -> Listed | None:
    fingerprint = keys.fingerprint_of(key.decode(errors="replace"))
    if fingerprint is None or isinstance(left, Exception) or left == -2:
        return None
    if isinstance(head, Exception):
        head, size = b"", 0
    return Listed(fingerprint, head, None if left < 0 else left / 1000, size)
