"""List the stored sessions, and open them for what a header does not show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Final

from session_reuse._resilience.failure import AttemptFailed, FailureScope
from session_reuse._session.composition import Runtime
from session_reuse._state.storage_state import longest_cookie_life
from session_reuse._store.interface import SessionUse
from session_reuse._summaries import SessionSummary, summary_of

_TIMEOUT: Final = 5.0
_OPENED_AT_ONCE: Final = 250
OPENED_BYTES: Final = 1_000_000
"""Bytes of stored sessions after which no further one is opened at the same time."""


async def summaries(runtime: Runtime, pattern: str, *, cookies: bool) -> AsyncIterator[SessionSummary]:
    """Yield a summary of each stored session whose fingerprint matches a shell pattern. With `cookies`, open it for the expiry of its login cookies.

    Raises:
        AttemptFailed: the store is away.
    """
    batch: list[SessionSummary] = []
    async for entry in runtime.store.sessions(timeout=_TIMEOUT):
        if not fnmatchcase(entry.fingerprint, pattern):
            continue
        summary = summary_of(entry, runtime.config, entry.now / 1_000_000)
        if not cookies:
            yield summary
            continue
        batch.append(summary)
        if len(batch) >= _OPENED_AT_ONCE or sum(each.size for each in batch) >= OPENED_BYTES:
            for opened in await _opened(runtime, batch):
                yield opened
            batch = []
    for opened in await _opened(runtime, batch):
        yield opened


async def uses(runtime: Runtime, fingerprint: str | None) -> AsyncIterator[SessionUse]:
    """Yield each use that the audit holds once, the latest first. Without a fingerprint those of all sessions.

    Raises:
        AttemptFailed: the store is away.
    """
    seen, place, is_more = set[str](), "", True
    while is_more:
        page, place = await runtime.store.uses(place, timeout=_TIMEOUT)
        is_more = bool(place)
        for use in page:
            if fingerprint in {None, use.fingerprint} and use.use_id not in seen:
                seen.add(use.use_id)
                yield use


async def _opened(runtime: Runtime, batch: list[SessionSummary]) -> list[SessionSummary]:
    """Open sessions at once. One after the other, 10,000 of them took 37 s (2026-11-26)."""
    return await asyncio.gather(*(_with_cookies(runtime, summary) for summary in batch))


async def _with_cookies(runtime: Runtime, summary: SessionSummary) -> SessionSummary:
    if summary.error:
        return summary
    try:
        reply = await runtime.store.read(summary.fingerprint, timeout=_TIMEOUT)
    except AttemptFailed as failure:
        if failure.scope is not FailureScope.REQUEST:
            raise
        return replace(summary, readable=False, error=str(failure.error))
    _, found, error = await runtime.snapshots.decode(summary.fingerprint, reply.value, 0.0)
    if error is not None:
        return replace(summary, readable=False)
    now = runtime.clock.wall()
    life = longest_cookie_life(found["storage_state"], now) if found is not None else None
    expiry = None if life is None else now + life
    return replace(summary, readable=True, cookies_expire_at=expiry)
