"""Saving a session so that no update is lost: compare, merge, set. Must never overwrite what it has not seen."""

from __future__ import annotations

import asyncio
import random
from dataclasses import field, replace
from time import monotonic
from typing import Final
from zlib import adler32

from session_reuse.errors import CorruptStateError, StateTooLargeError, StoreTimeoutError
from session_reuse.lifecycle.services import Services
from session_reuse.observe.logs import Event, log
from session_reuse.outcome import Outcome, SaveOutcome
from session_reuse.resilience.failure import Blame, Failure, Retry
from session_reuse.resilience.guard import Direction
from session_reuse.state import document
from session_reuse.state.baseline import Baseline, Expectation
from session_reuse.state.codec import OFFLOAD_THRESHOLD
from session_reuse.state.header import LENGTH, REMEMBERED_SAVES, Header
from session_reuse.state.health import judge
from session_reuse.state.merge import merge_documents, same_document
from session_reuse.state.record import record
from session_reuse.state.storage_state import longest_cookie_life
from session_reuse.store.interface import Commit, CommitOutcome, Committed, Lease, Touch, TouchOutcome, WrongType
from session_reuse.transfer import new_save_id, opened

_CAPTURED: Final = b'"captured_at"'
_CONTENTION_PAUSE: Final = 0.005
_MOST_LAYERS: Final = 3


@record()
class Layer:
    """The document of an earlier save that a later one was built on before it got through."""

    document: bytes = field(repr=False)
    dialect: str
    saved_at: float


@record(kw_only=True)
class SaveRequest:
    """A save, detached from its session: it can be repeated, merged, kept waiting.

    Attributes:
        document: the session as JSON at the moment of the save.
        baseline: what the session knew of the stored copy.
        save_id: recognised by the store when the save arrives twice.
        saved_at: unix seconds of the save, from which the time to live counts.
        lease: the exclusive lease it was made under.
        release: whether to give the lease back with it.
        fresh: a new login that replaces a retired or unverified one.
        anew: whether the state was put together anew, and may say the same as before in another order.
        score_change: tenths, added to the error score.
        merged: whether changes of others were merged in.
        layers: earlier saves, not through yet, that this one was built on: their changes are as old as they are.
        settled: the common ground it led to, once it is through.
    """

    fingerprint: str
    agent_id: str | None
    document: bytes = field(repr=False)
    dialect: str
    baseline: Baseline
    save_id: str
    saved_at: float
    lease: Lease | None = None
    release: bool = False
    fresh: bool = False
    anew: bool = True
    score_change: int = 0
    merged: bool = False
    layers: tuple[Layer, ...] = ()
    settled: list[Baseline] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes it takes while it waits."""
        inherited = sum(len(layer.document) for layer in self.layers)
        return len(self.document) + len(self.baseline.view) + len(self.baseline.stored) + inherited

    @property
    def stack(self) -> tuple[Layer, ...]:
        """The layers, and the document itself as the last of them."""
        return (*self.layers, Layer(self.document, self.dialect, self.saved_at))


@record()
class Saved:
    """What a save did, and the common ground from here on (None: as before)."""

    outcome: SaveOutcome
    baseline: Baseline | None = None


async def save(services: Services, request: SaveRequest, budget: float) -> Saved:
    """Bring a session into the store within `budget` seconds.

    Raises:
        Failure: the store did not do it; it may or may not have been applied, and can be repeated as it is.
    """
    deadline = monotonic() + budget
    turn = services.queue_up(request.fingerprint)
    try:
        if turn.locked():  # else no timer is needed, which costs more than the lock
            async with asyncio.timeout(budget):
                await turn.acquire()
        else:
            await turn.acquire()
        try:
            saved = await _save(services, request, deadline)
        finally:
            turn.release()
    except StateTooLargeError as error:
        log.error(Event.INVALID_STATE, fingerprint=request.fingerprint, why=f"together with what others saved, {error}")
        return Saved(SaveOutcome.SKIPPED)
    except TimeoutError:
        raise Failure(StoreTimeoutError("the save took too long"), "budget", Retry.SAVE, Blame.NOBODY) from None
    finally:
        services.step_back(request.fingerprint, turn)
    if saved.baseline is not None:
        request.settled.append(saved.baseline)
    return saved


async def _save(services: Services, request: SaveRequest, deadline: float) -> Saved:
    if _nothing_changed(request):
        touched = await _touch(services, request, deadline)
        if touched is not TouchOutcome.GONE:
            unchanged = touched is TouchOutcome.UNCHANGED
            return Saved(SaveOutcome.UNCHANGED if unchanged else SaveOutcome.STALE, request.baseline)
    attempt = _with_known_changes(request)
    while True:
        header, committed = await _commit(services, attempt, deadline)
        if committed.outcome.written:
            return _written(services, request, attempt, header, committed)
        if committed.outcome is CommitOutcome.STALE:
            return Saved(SaveOutcome.STALE)
        following = await _after_conflict(services, request, attempt, committed.outcome, deadline)
        if isinstance(following, Saved):
            return following
        attempt = following
        await asyncio.sleep(random.uniform(0, _CONTENTION_PAUSE))


def _nothing_changed(request: SaveRequest) -> bool:
    baseline = request.baseline
    if baseline.expectation is not Expectation.REVISION or request.fresh:
        return False
    if baseline.view == request.document:
        return True
    if not (request.anew and _could_be_reordered(baseline.view, request.document)):
        return False
    before, now = _loaded(baseline.view, baseline.dialect), _loaded(request.document, request.dialect)
    return same_document(before, now)


def _could_be_reordered(one: bytes, other: bytes) -> bool:
    """Return whether two documents may say the same in other words: a comparison of contents costs 100 times this.

    A state captured from a browser comes in any order and with the time of its capture. A state that was changed in
    place need not be looked at: that costs 20 µs at 20 KB once it has left the processor's caches (measured 2026-11).
    """
    if one.rfind(_CAPTURED) >= 0 and other.rfind(_CAPTURED) >= 0:  # a fifth of what `in` takes (measured 2026-11)
        return True
    return len(one) == len(other) and adler32(one) & 0xFFFF == adler32(other) & 0xFFFF  # the sum of all bytes


def _with_known_changes(request: SaveRequest) -> SaveRequest:
    """Merge in what an earlier checkpoint has found others to have changed."""
    baseline = request.baseline
    if request.fresh or baseline.stored == baseline.view or not baseline.stored:
        return request
    return _merged(request, baseline, _loaded(baseline.stored, baseline.dialect))


async def _touch(services: Services, request: SaveRequest, deadline: float) -> TouchOutcome:
    touch = Touch(
        fingerprint=request.fingerprint,
        epoch=request.baseline.epoch,
        ttl=_ttl(services, request, request.baseline.header),
        agent_id=request.agent_id,
        lease=request.lease,
        release=request.release,
        score_change=request.score_change,
    )
    return await services.guard.run(
        Direction.WRITE, lambda timeout: services.store.touch(touch, timeout=timeout), deadline - monotonic()
    )


async def _commit(services: Services, request: SaveRequest, deadline: float) -> tuple[Header, Committed]:
    baseline = request.baseline
    header = _next_header(services, request)
    key = services.keys.session(request.fingerprint)
    if len(request.document) < OFFLOAD_THRESHOLD:
        value = services.codec.encode(request.document, request.dialect, header, key)
    else:
        value = await asyncio.to_thread(services.codec.encode, request.document, request.dialect, header, key)
    known = baseline.damaged
    if baseline.expectation is Expectation.REVISION and baseline.header is not None:
        known = baseline.header.revision.encode()

    def commit() -> Commit:  # anew for each attempt: its age counts
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
        Direction.WRITE, lambda timeout: services.store.commit(commit(), timeout=timeout), deadline - monotonic()
    )
    return header, committed


def _next_header(services: Services, request: SaveRequest) -> Header:
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
        state = _loaded(request.document, request.dialect)["storage_state"]
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


def _written(
    services: Services, request: SaveRequest, attempt: SaveRequest, header: Header, committed: Committed
) -> Saved:
    if committed.replicas is not None and committed.replicas < services.config.wait_replicas:
        services.metrics.under_replicated()
        log.warning(Event.UNDER_REPLICATED, fingerprint=request.fingerprint, acknowledged=committed.replicas)
    baseline = Baseline(
        expectation=Expectation.REVISION,
        entered=monotonic(),
        header=header,
        epoch=committed.epoch,
        view=request.document,
        stored=attempt.document,
        dialect=attempt.dialect if attempt.dialect == request.dialect else document.SURROGATE_DIALECT,
    )
    return Saved(SaveOutcome.MERGED if attempt.merged else SaveOutcome.SAVED, baseline)


async def _after_conflict(
    services: Services, request: SaveRequest, attempt: SaveRequest, outcome: CommitOutcome, deadline: float
) -> SaveRequest | Saved:
    """Look at what is stored now, and return the save to try next, or that there is none."""
    try:
        value = await services.guard.run(
            Direction.READ,
            lambda timeout: services.store.read(request.fingerprint, timeout=timeout),
            deadline - monotonic(),
        )
    except WrongType:
        value = b""
    if value is None:
        known = attempt.baseline.knows_epoch or attempt.baseline.expectation is Expectation.REVISION
        gone = replace(attempt.baseline, expectation=Expectation.ABSENT, knows_epoch=known)
        return replace(attempt, baseline=gone)
    try:
        decoded = services.codec.decode(value, services.keys.session(request.fingerprint))
        theirs = opened(decoded.document, decoded.header.flags[2], request.fingerprint, trusted=decoded.trusted)
    except CorruptStateError:
        if outcome is CommitOutcome.EXISTS:
            return Saved(SaveOutcome.SKIPPED)
        damaged = replace(attempt.baseline, expectation=Expectation.CORRUPT, damaged=value[:LENGTH])
        return replace(attempt, baseline=damaged)
    header = decoded.header
    now_known = replace(
        attempt.baseline, expectation=Expectation.REVISION, header=header, epoch=header.epoch, stored=decoded.document
    )
    if outcome is CommitOutcome.EXISTS:
        return _instead_of_unknown(services, attempt, now_known, header)
    if attempt.baseline.expectation is Expectation.REVISION and header.epoch > attempt.baseline.epoch:
        return Saved(SaveOutcome.STALE)
    return _merged(request, now_known, theirs)


def _instead_of_unknown(
    services: Services, attempt: SaveRequest, now_known: Baseline, header: Header
) -> SaveRequest | Saved:
    """Decide for a session that never saw the stored state: a good one stays, a retired one gives way."""
    verdict = judge(header, now=services.wall_clock(), retire_after_bad=services.config.retire_after_bad)
    if verdict is Outcome.REUSED:
        return Saved(SaveOutcome.SKIPPED)
    return replace(attempt, baseline=now_known, fresh=True, save_id=new_save_id())


def _merged(request: SaveRequest, baseline: Baseline, theirs: document.Document) -> SaveRequest:
    """Return the save with the others' changes; where both changed one item, the later save wins, not the later arrival."""
    before = _loaded(request.baseline.view, request.baseline.dialect)
    known_at = baseline.header.saved_at if baseline.header is not None else 0
    for layer in request.stack:
        mine = _loaded(layer.document, layer.dialect)
        newer = known_at > round(layer.saved_at * 1000)
        theirs = merge_documents(before, *((theirs, mine) if newer else (mine, theirs)))
        before = mine
    result, dialect = document.dump(theirs)
    return replace(request, document=result, dialect=dialect, baseline=baseline, save_id=new_save_id(), merged=True)


def bounded(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return layers, the oldest ones put together when there are many: as old as the oldest, so that they win nothing."""
    while len(layers) > _MOST_LAYERS:
        oldest, second = layers[:2]
        layers = (replace(second, saved_at=min(oldest.saved_at, second.saved_at)), *layers[2:])
    return layers


def _loaded(data: bytes, dialect: str) -> document.Document:
    return document.load(data, dialect) if data else {"storage_state": {}, "data": {}}
