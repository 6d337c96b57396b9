"""What to try after the store has refused a commit: look, merge, or leave it. Must never overwrite what it has not seen."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

from session_reuse.errors import CorruptStateError
from session_reuse.lifecycle.request import Saved, SaveRequest, loaded, rebased
from session_reuse.lifecycle.services import Services
from session_reuse.outcome import Outcome, SaveOutcome
from session_reuse.resilience.guard import Direction
from session_reuse.state import document
from session_reuse.state.baseline import Baseline, Expectation
from session_reuse.state.header import LENGTH, Header
from session_reuse.state.health import judge
from session_reuse.store.interface import CommitOutcome, WrongType
from session_reuse.transfer import new_save_id, opened


async def after_conflict(
    services: Services, request: SaveRequest, attempt: SaveRequest, outcome: CommitOutcome, deadline: float
) -> SaveRequest | Saved:
    """Look at what is stored now, and return the save to try next, or that there is none."""
    try:
        value = await services.guard.run(
            Direction.READ,
            lambda timeout: services.store.read(request.fingerprint, timeout=timeout),
            deadline - monotonic(),
            services.server_of(request.fingerprint),
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
    return merged(request, now_known, theirs)


def _instead_of_unknown(
    services: Services, attempt: SaveRequest, now_known: Baseline, header: Header
) -> SaveRequest | Saved:
    """Decide for a session that never saw the stored state: a good one stays, a retired one gives way."""
    verdict = judge(header, now=services.wall_clock(), retire_after_bad=services.config.retire_after_bad)
    if verdict is Outcome.REUSED:
        return Saved(SaveOutcome.SKIPPED)
    return replace(attempt, baseline=now_known, fresh=True, save_id=new_save_id())


def with_known_changes(request: SaveRequest) -> SaveRequest:
    """Merge in what an earlier checkpoint has found others to have changed."""
    baseline = request.baseline
    if request.fresh or baseline.stored == baseline.view or not baseline.stored:
        return request
    return merged(request, baseline, loaded(baseline.stored, baseline.dialect))


def merged(request: SaveRequest, baseline: Baseline, theirs: document.Document) -> SaveRequest:
    """Return the save with the others' changes."""
    *_, (_, together) = rebased(request, theirs, baseline.saved_at)
    result, dialect = document.dump(together)
    return replace(request, document=result, dialect=dialect, baseline=baseline, save_id=new_save_id(), merged=True)
