"""Verdicts that reach all agents: a bad mark, an invalidation. Must never touch a session that has replaced the one meant."""

from __future__ import annotations

from session_reuse._telemetry import Event, log
from session_reuse.lifecycle.services import Services
from session_reuse.resilience.failure import Failure
from session_reuse.resilience.guard import Direction
from session_reuse.session import BrowserSession
from session_reuse.state.health import BAD_MARK


async def mark_bad(services: Services, session: BrowserSession, reason: str) -> None:
    """Raise the error score of the very session that this one was restored from."""
    baseline = session.baseline
    if baseline is None or baseline.header is None:
        return
    created_at, epoch = baseline.header.created_at, baseline.epoch
    log.info(Event.MARKED_BAD, fingerprint=session.fingerprint, why=reason)

    async def attempt(timeout: float) -> int | None:
        return await services.store.mark(
            session.fingerprint, created_at=created_at, epoch=epoch, change=BAD_MARK, timeout=timeout
        )

    try:
        await services.guard.run(
            Direction.WRITE, attempt, services.config.save_timeout, services.server_of(session.fingerprint)
        )
    except Failure as failure:
        services.degraded("mark", failure, session.fingerprint)


async def invalidate(services: Services, fingerprint: str, reason: str) -> bool:
    """Delete a session for everyone; return whether there was one.

    Raises:
        StoreError: the store could not be told.
    """
    services.pending.remove(fingerprint)
    services.telemetry.pending(len(services.pending))

    async def attempt(timeout: float) -> bool:
        return await services.store.invalidate(fingerprint, ttl=services.config.ttl, timeout=timeout)

    try:
        existed = await services.guard.run(
            Direction.WRITE, attempt, services.config.save_timeout, services.server_of(fingerprint)
        )
    except Failure as failure:
        services.degraded("invalidate", failure, fingerprint)
        raise failure.error from None
    log.info(Event.INVALIDATED, fingerprint=fingerprint, why=reason, existed=existed)
    return existed
