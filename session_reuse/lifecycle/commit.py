"""One commit, or one touch: what is sent to the store for a save. Must never decide what to do about the answer."""

from __future__ import annotations

import asyncio
from time import monotonic

from session_reuse.lifecycle.request import SaveRequest, loaded
from session_reuse.lifecycle.services import Services
from session_reuse.resilience.guard import Direction
from session_reuse.state.baseline import Expectation
from session_reuse.state.codec import OFFLOAD_THRESHOLD
from session_reuse.state.header import REMEMBERED_SAVES, Header
from session_reuse.state.storage_state import longest_cookie_life
from session_reuse.store.interface import Commit, Committed, Touch, TouchOutcome


async def commit(services: Services, request: SaveRequest, deadline: float) -> tuple[Header, Committed]:
    """Ask the store to put a save in place; return the head it was given and what the store says.

    Raises:
        Failure: the store did not do it by the deadline.
        StateTooLargeError: the document must not be stored.
    """
    baseline = request.baseline
    header = next_header(services, request)
    key = services.keys.session(request.fingerprint)
    if len(request.document) < OFFLOAD_THRESHOLD:
        value = services.codec.encode(request.document, request.dialect, header, key)
    else:
        value = await asyncio.to_thread(services.codec.encode, request.document, request.dialect, header, key)
    known = baseline.damaged
    if baseline.expectation is Expectation.REVISION and baseline.header is not None:
        known = baseline.header.revision.encode()

    def asked() -> Commit:  # anew for each attempt: its age counts
        return Commit(
            fingerprint=request.fingerprint,
            value=value,
            save_id=request.save_id,
            expectation=baseline.expectation,
            known=known,
            epoch=baseline.epoch,
            age=None if baseline.knows_epoch else monotonic() - baseline.entered,
            created_at=baseline.header.created_at if baseline.header else 0,
            ttl=_ttl(services, request, header),
            agent_id=request.agent_id,
            lease=request.lease,
            release=request.release,
            fresh=request.fresh,
            score_change=request.score_change,
            indexed=baseline.expectation is Expectation.REVISION,
        )

    committed = await services.guard.run(
        Direction.WRITE,
        lambda timeout: services.store.commit(asked(), timeout=timeout),
        deadline - monotonic(),
        services.server_of(request.fingerprint),
    )
    return header, committed


async def touch(services: Services, request: SaveRequest, deadline: float) -> TouchOutcome:
    """Ask the store to keep an unchanged session for longer.

    Raises:
        Failure: the store did not do it by the deadline.
    """
    asked = Touch(
        fingerprint=request.fingerprint,
        epoch=request.baseline.epoch,
        ttl=_ttl(services, request, request.baseline.header),
        agent_id=request.agent_id,
        lease=request.lease,
        release=request.release,
        score_change=request.score_change,
    )
    return await services.guard.run(
        Direction.WRITE,
        lambda timeout: services.store.touch(asked, timeout=timeout),
        deadline - monotonic(),
        services.server_of(request.fingerprint),
    )


def next_header(services: Services, request: SaveRequest) -> Header:
    """Return the head of the version that a save makes."""
    before = request.baseline.header
    continues = before is not None and not request.fresh
    saved_at = round(request.saved_at * 1000)
    if before is not None:  # a late save that was merged in makes the state no older
        saved_at = max(saved_at, min(before.saved_at, round(services.wall_clock() * 1000)))
    created_at = before.created_at if before is not None and continues else saved_at
    earlier = before.save_ids if before is not None else ()
    return Header(
        epoch=request.baseline.epoch,
        token=request.lease.token if request.lease else 0,
        version=before.version + 1 if before is not None else 1,
        save_ids=(request.save_id, *earlier)[:REMEMBERED_SAVES],
        created_at=created_at,
        saved_at=saved_at,
        retire_at=_retire_at(services, request, created_at),
    )


def _retire_at(services: Services, request: SaveRequest, created_at: int) -> int:
    config = services.config
    if config.max_age is None and not config.ttl_from_cookies:
        return 0
    limits = []
    if config.max_age is not None:
        limits.append(created_at + round(config.max_age * 1000))
    if config.ttl_from_cookies:
        state = loaded(request.document, request.dialect)["storage_state"]
        life = longest_cookie_life(state, request.saved_at)
        if life is not None:
            limits.append(round((request.saved_at + life) * 1000))
    return min(limits, default=0)


def _ttl(services: Services, request: SaveRequest, header: Header | None) -> float:
    """Return how long to keep it, counted from the moment of the save, not from when it gets through."""
    now = services.wall_clock()
    waited = max(0.0, now - request.saved_at)
    ttl = services.config.ttl - waited
    if header is not None and header.retire_at:
        ttl = min(ttl, header.retire_at / 1000 - now)
    return max(0.001, ttl)
