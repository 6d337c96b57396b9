"""One visit: the life of one `with`, from enter to leave. Must never let the store's trouble reach the body."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from time import monotonic
from typing import Final
from weakref import ProxyType, proxy

from session_reuse._telemetry import Event, log
from session_reuse.errors import InvalidStateError, SessionBusyError
from session_reuse.lifecycle.ground import Ground
from session_reuse.lifecycle.hooks import capture, verified
from session_reuse.lifecycle.lease import Heartbeat, give_back
from session_reuse.lifecycle.options import VisitOptions
from session_reuse.lifecycle.request import Saved, SaveRequest
from session_reuse.lifecycle.restore import Restored, restore
from session_reuse.lifecycle.save import save
from session_reuse.lifecycle.services import Services
from session_reuse.lifecycle.verdicts import invalidate, mark_bad
from session_reuse.lifecycle.waiting import flush_one, keep_waiting
from session_reuse.lifecycle.worth import document_worth_saving, may_be_saved
from session_reuse.outcome import Outcome, SaveOutcome
from session_reuse.resilience.failure import Failure
from session_reuse.session import BrowserSession
from session_reuse.state import document
from session_reuse.state.baseline import Baseline, Expectation
from session_reuse.state.health import GOOD_MARK
from session_reuse.store.interface import Lease
from session_reuse.transfer import exported, new_save_id

_SPOOL_PATIENCE: Final = 0.03
"""Seconds a save waits for the disk even when its budget is used up."""


class Visit:
    """Restores into a session, saves it, keeps its lease meanwhile.

    Args:
        services: the manager's.
        session: the session to fill.
        options: what the caller asked for.
    """

    def __init__(self, services: Services, session: BrowserSession, options: VisitOptions) -> None:
        self._services = services
        self._session = session
        self._options = options
        self._holder = f"{session.agent_id or 'agent'}-{secrets.token_hex(6)}" if options.exclusive else ""
        self._lease: Lease | None = None
        self._heartbeat: Heartbeat | None = None
        self._ground = Ground(services)
        self._marked = False
        self._kept = False
        """Whether a save that was cut off has been kept for later."""

    # Enter -----------------------------------------------------------------------------------------------------------

    async def enter(self, spent: float = 0.0) -> None:
        """Fill the session from the store, or say why it starts fresh.

        Args:
            spent: seconds of the budget that are used up already.

        Raises:
            SessionBusyError: the lease is another's, and `on_busy="raise"`.
            StoreError, CorruptStateError: with `strict`.
        """
        began = monotonic() - spent
        try:
            with self._services.telemetry.restore_span(self._session):
                await self._enter(began)
        except asyncio.CancelledError:
            self._abandon_lease()
            raise
        session = self._session
        session.keeper = self
        outcome = session.outcome
        stale = self._ground.waiting is not None
        self._services.telemetry.entered(session.fingerprint, outcome, monotonic() - began, stale=stale)
        if outcome is Outcome.BUSY and self._options.on_busy == "raise":
            raise SessionBusyError(f"{session.fingerprint!r} is in exclusive use by another agent")

    async def _enter(self, began: float) -> None:
        if self._services.pending and await self._enter_from_waiting():
            return
        services, session = self._services, self._session
        budget = services.config.restore_timeout - (monotonic() - began)
        try:
            restored = await restore(services, session.fingerprint, self._options, self._holder, budget)
        except Failure as failure:
            services.note_failure("restore", failure, session.fingerprint)
            if self._options.strict:
                raise failure.error from None
            restored = Restored(failure.error.outcome, Baseline(expectation=Expectation.UNKNOWN, entered=began))
            if self._options.exclusive:
                self._abandon_lease()
        await self._adopt(restored)

    async def _enter_from_waiting(self) -> bool:
        """Bring a waiting save of this session through first; while the store is away, start from it."""
        services, fingerprint = self._services, self._session.fingerprint
        waiting = services.pending.get(fingerprint)
        if waiting is None or await flush_one(services, waiting, services.config.restore_timeout / 2):
            return False
        found = document.load(waiting.document, waiting.dialect)
        self._session.fill(found)
        self._session.outcome = Outcome.REUSED
        self._session.baseline = waiting.baseline
        self._lease = waiting.lease
        self._ground.start_from(waiting)
        await self._verify_restored()
        return True

    async def _adopt(self, restored: Restored) -> None:
        session = self._session
        session.outcome = restored.outcome
        session.baseline = restored.baseline
        if restored.lease is not None:
            self._lease = restored.lease
            self._heartbeat = Heartbeat(self._services, session.fingerprint, restored.lease)
        if restored.document is not None:
            session.fill(restored.document)
            await self._verify_restored()

    async def _verify_restored(self) -> None:
        if not await self._verified():
            self._session.start_fresh(Outcome.UNVERIFIED)

    async def _verified(self) -> bool:
        verify = self._options.verify
        return verify is None or await verified(self._session, verify, self._services.config.verify_timeout)

    def _abandon_lease(self) -> None:
        """Give back a lease that may have been taken without our having heard of it."""
        if self._options.exclusive:
            give_back(self._services, self._session.fingerprint, self._lease or Lease(0, self._holder))
            self._stop_heartbeat()

    async def look(self) -> None:
        """Learn what is stored, so that a session made by hand replaces it and nothing newer."""
        session, services = self._session, self._services
        began = monotonic()
        try:
            restored = await restore(
                services, session.fingerprint, VisitOptions(), self._holder, services.config.restore_timeout
            )
            session.baseline = restored.baseline
        except Failure as failure:
            services.degraded("save", failure, session.fingerprint)
            session.baseline = Baseline(expectation=Expectation.UNKNOWN, entered=began)
        session.keeper = self

    def belongs_to(self, services: Services) -> bool:
        """Return whether this is a visit of the manager with these services."""
        return self._services is services

    # Save ------------------------------------------------------------------------------------------------------------

    async def checkpoint(self, session: BrowserSession) -> SaveOutcome:
        """Save now; the lease stays."""
        if session.discarded:
            return SaveOutcome.SKIPPED
        with self._services.telemetry.save_span(session):
            return await self._save(final=False)

    async def leave(self, *, failed: bool) -> SaveOutcome:
        """Save for the last time and give the lease back.

        A cancelled body is saved all the same, by a task of its own; so is all that waits for others than the store. What
        is left needs no task, which would cost a tenth of a cycle: cut off, it is kept as it is and brought through.

        Args:
            failed: whether the body raised or was cancelled.

        Raises:
            InvalidStateError: the state was changed into something that cannot be stored; the stored one stays.
        """
        session = self._session
        if failed and not self._options.save_on_error:
            session.discard()
        if failed or session.captures or session.marked_bad or self._options.verify is not None:
            return await asyncio.shield(self._services.spawn(self._leave(), "leave"))
        with self._services.leaving:
            return await self._leave()

    async def _leave(self) -> SaveOutcome:
        try:
            with self._services.telemetry.save_span(self._session):
                return await self._save(final=True)
        except asyncio.CancelledError:
            self._keep_what_is_there()
            raise
        except InvalidStateError as error:
            log.error(Event.INVALID_STATE, fingerprint=self._session.fingerprint, why=str(error))
            self._finish(SaveOutcome.SKIPPED, monotonic())
            self._release()
            raise
        finally:
            self._stop_heartbeat()
            self._session.was_left = True  # not before: `verify` may open a client of the session
            self._let_go()

    def _let_go(self) -> None:
        """Hold the session weakly: it holds us, and in a circle its state would stay until the garbage collector comes."""
        if not isinstance(self._session, ProxyType):
            self._session = proxy(self._session)

    def _keep_what_is_there(self) -> None:
        """Keep the state as it is for later: the event loop is ending under a save."""
        if self._kept or not may_be_saved(self._session):
            return
        with contextlib.suppress(InvalidStateError):
            request = self._request(final=True)
            if request is not None:
                self._finish(keep_waiting(self._services, request, after=self._ground.waiting), monotonic())

    async def _save(self, *, final: bool) -> SaveOutcome:
        began = monotonic()
        session = self._session
        if session.captures and not session.discarded:
            await capture(session, self._services.config.capture_timeout)
        request = None
        if may_be_saved(session) and (not final or await self._verified()):
            request = self._request(final=final)
        if request is not None:
            return self._finish(await self._bring_through(request), began)
        if session.verdict is not None and session.marked_bad and not self._marked:
            self._marked = True
            await mark_bad(self._services, session, session.verdict[1])
        if final:
            self._release()
        return self._finish(SaveOutcome.SKIPPED, began)

    async def _bring_through(self, request: SaveRequest) -> SaveOutcome:
        services, session, began = self._services, self._session, monotonic()
        try:
            saved = await save(services, request, services.config.save_timeout)
        except Failure as failure:
            services.degraded("save", failure, session.fingerprint)
            return await self._keep_waiting(request, failure, began)
        except asyncio.CancelledError:
            self._kept = True
            self._finish(keep_waiting(services, request, after=self._ground.waiting), began)
            raise
        if saved.outcome is SaveOutcome.STALE:
            log.warning(Event.SAVE_STALE, fingerprint=session.fingerprint)
        self._settle(saved)
        return saved.outcome

    async def _keep_waiting(self, request: SaveRequest, failure: Failure, began: float) -> SaveOutcome:
        services = self._services
        outcome = self._session.save_outcome = keep_waiting(services, request, after=self._ground.waiting)
        self._ground.has_to_wait(request)
        if outcome is SaveOutcome.PENDING and services.spooler is not None:
            patience = max(_SPOOL_PATIENCE, services.config.save_timeout - (monotonic() - began))
            if await services.spooler.written(request.fingerprint, patience):
                outcome = SaveOutcome.SPOOLED
        if self._options.strict:
            self._finish(outcome, monotonic())
            raise failure.error from None
        return outcome

    def _settle(self, saved: Saved) -> None:
        if self._session.agent_id is not None:
            self._services.remember_fingerprint(self._session.agent_id, self._session.fingerprint)
        self._ground.settle(self._session, saved.baseline)
        if self._session.verdict == (True, ""):
            self._session.verdict = None

    def _request(self, *, final: bool) -> SaveRequest | None:
        """Return the save to make; None when there is nothing good to save."""
        session, baseline = self._session, self._ground.baseline(self._session)
        fresh = session.outcome in {Outcome.UNVERIFIED, Outcome.RETIRED} and not self._ground.saved
        found = document_worth_saving(session, baseline, new_login=fresh)
        if found is None:
            return None
        body, dialect = document.dump(found)
        self._services.codec.check_size(body)
        return SaveRequest(
            fingerprint=session.fingerprint,
            agent_id=session.agent_id,
            document=body,
            dialect=dialect,
            baseline=baseline,
            save_id=new_save_id(),
            saved_at=self._services.wall_clock(),
            lease=self._lease,
            release=final and self._lease is not None,
            fresh=fresh,
            anew=session.anew,
            score_change=GOOD_MARK if session.verdict == (True, "") else 0,
            layers=self._ground.layers,
        )

    def _finish(self, outcome: SaveOutcome, began: float) -> SaveOutcome:
        session = self._session
        session.save_outcome = outcome
        self._services.telemetry.saved(session.fingerprint, outcome, monotonic() - began)
        return outcome

    def _release(self) -> None:
        if self._lease is not None:
            give_back(self._services, self._session.fingerprint, self._lease)

    def _stop_heartbeat(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None

    # The rest ----------------------------------------------------------------------------------------------------------

    async def invalidate(self, session: BrowserSession, reason: str) -> None:
        """Delete the stored state for everyone."""
        await invalidate(self._services, session.fingerprint, reason)

    def export(self, session: BrowserSession) -> bytes:
        """Return the stored form, sealed as the manager's sessions are."""
        return exported(session, self._services.codec, self._services.keys)
