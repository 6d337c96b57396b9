"""Entering a session: one question to the store, and what its answer means. Must never return half a state."""

from __future__ import annotations

import asyncio
import random
from dataclasses import field
from time import monotonic
from typing import Final

from session_reuse._telemetry import Event, log
from session_reuse.errors import CorruptStateError
from session_reuse.lifecycle.options import VisitOptions
from session_reuse.lifecycle.services import Services
from session_reuse.outcome import Outcome
from session_reuse.resilience.guard import Direction
from session_reuse.state.baseline import Baseline, Expectation
from session_reuse.state.codec import OFFLOAD_THRESHOLD, Decoded
from session_reuse.state.document import Document
from session_reuse.state.header import LENGTH
from session_reuse.state.health import judge
from session_reuse.state.record import record
from session_reuse.store.interface import Busy, Entered, Lease, WrongType
from session_reuse.transfer import opened

_LEASE_POLL: Final = 0.05


@record()
class Restored:
    """What an enter found.

    Attributes:
        outcome: why there is a document, or why not.
        baseline: what is known of the stored copy.
        document: the restored document; None for a fresh session.
        lease: the exclusive lease, if one was asked for and taken.
    """

    outcome: Outcome
    baseline: Baseline
    document: Document | None = field(default=None, repr=False)
    lease: Lease | None = None


async def restore(services: Services, fingerprint: str, options: VisitOptions, holder: str, budget: float) -> Restored:
    """Ask the store for a session, within `budget` seconds; waiting for a busy lease comes on top.

    Raises:
        Failure: the store did not answer.
        CorruptStateError: with `strict`, when the stored value cannot be used.
    """
    entered_at = monotonic()
    entered = await _enter(services, fingerprint, options, holder, budget)
    lease = entered.lease if isinstance(entered.lease, Lease) else None
    if isinstance(entered.lease, Busy):
        if entered.lease.foreign:
            log.warning(Event.LEASE_FOREIGN, fingerprint=fingerprint, remedy="look at the lease key: it is not ours")
        return Restored(Outcome.BUSY, Baseline(expectation=Expectation.UNKNOWN, entered=entered_at))
    if entered.value is None:
        baseline = Baseline(
            expectation=Expectation.ABSENT,
            entered=entered_at,
            epoch=entered.epoch or 0,
            knows_epoch=entered.epoch is not None,
        )
        return Restored(Outcome.MISSING, baseline, lease=lease)
    return await _open(services, fingerprint, options, entered.value, entered_at, lease, entered.uses)


async def _enter(
    services: Services, fingerprint: str, options: VisitOptions, holder: str, budget: float
) -> Entered:  # fmt: skip
    config = services.config
    lease = (holder, config.lease_ttl) if options.exclusive else None
    ttl = config.ttl if config.sliding else None

    async def attempt(timeout: float) -> Entered:
        try:
            return await services.store.enter(
                fingerprint, ttl=ttl, timeout=timeout, lease=lease, count_use=options.max_uses is not None
            )
        except WrongType as wrong:  # no session of ours: as good as an empty one
            return Entered(b"", wrong.lease)

    give_up = monotonic() + options.wait
    while True:
        entered = await services.guard.run(Direction.READ, attempt, budget, services.server_of(fingerprint))
        left = give_up - monotonic()
        if not isinstance(entered.lease, Busy) or left <= 0:
            return entered
        pause = min(left, max(0.001, entered.lease.left), _LEASE_POLL)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))


async def _open(
    services: Services,
    fingerprint: str,
    options: VisitOptions,
    value: bytes,
    entered_at: float,
    lease: Lease | None,
    uses: int | None,
) -> Restored:
    try:
        decoded = await _decode(services, value, services.keys.session(fingerprint))
        document = opened(decoded.document, decoded.header.flags[2], fingerprint, trusted=decoded.trusted)
    except CorruptStateError as error:
        baseline = Baseline(expectation=Expectation.CORRUPT, entered=entered_at, damaged=value[:LENGTH])
        return _corrupt(fingerprint, baseline, error, options, lease)
    header = decoded.header
    verdict = judge(
        header,
        now=services.wall_clock(),
        retire_after_bad=services.config.retire_after_bad,
        max_age=options.max_age,
        max_uses=options.max_uses,
        uses=uses,
    )
    baseline = Baseline(
        expectation=Expectation.REVISION,
        entered=entered_at,
        header=header,
        epoch=header.epoch,
        view=decoded.document,
        stored=decoded.document,
        dialect=header.flags[2],
    )
    return Restored(verdict, baseline, document if verdict is Outcome.REUSED else None, lease)


async def _decode(services: Services, value: bytes, key: str) -> Decoded:
    if len(value) < OFFLOAD_THRESHOLD:
        return services.codec.decode(value, key)
    return await asyncio.to_thread(services.codec.decode, value, key)


def _corrupt(
    fingerprint: str, baseline: Baseline, error: CorruptStateError, options: VisitOptions, lease: Lease | None = None
) -> Restored:
    log.warning(Event.CORRUPT, fingerprint=fingerprint, why=str(error))
    if options.strict:
        raise error
    return Restored(Outcome.CORRUPT, baseline, lease=lease)
