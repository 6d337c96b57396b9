"""`SessionScope`: the life of one `with`, from enter to exit.

    enter        store (lease, session)  ->  entry.py decides  ->  the session is filled
    checkpoint   capture  ->  exit.py decides  ->  writer.py commits, merges, or keeps the change
    leave        as a checkpoint, then the lease is given back

Decisions are pure functions in `entry.py` and `exit.py`. This module does what they say.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from weakref import ProxyType, proxy

from session_reuse._browser_session import BrowserSession, fill, is_inherited, wiring_of
from session_reuse._problem import ProblemKind
from session_reuse._resilience.failure import AttemptFailed
from session_reuse._session.callbacks import examined, verified
from session_reuse._session.changes import NEVER_HEARD, NOT_FINAL, NOT_STORED, Change, Found, Login, StoredKind
from session_reuse._session.clock import Clock
from session_reuse._session.entry import Entry, enter_request, from_store, lives_too_long, login_to_replace, while_away
from session_reuse._session.exit import allows_save, bad_mark, body_to_save, given_up, passed_on, unsettled
from session_reuse._session.fold import fold
from session_reuse._session.guarded_store import Access, GuardedStore, Request
from session_reuse._session.lease import LeaseHolder
from session_reuse._session.one_time_codes import OneTimeCodes
from session_reuse._session.options import ResolvedOptions
from session_reuse._session.snapshots import Snapshots
from session_reuse._session.tasks import Spawn
from session_reuse._session.writer import Writer
from session_reuse._state import document
from session_reuse._state.document import NO_BODY
from session_reuse._state.header import GOOD_MARK
from session_reuse._store.interface import Busy, EnterReply, Lease
from session_reuse._stored_form import document_of, encode_session, new_save_id
from session_reuse._telemetry import Event, Operation, Telemetry, log
from session_reuse.config import Config
from session_reuse.errors import ConfigurationError, CorruptStateError, InvalidStateError, SessionBusyError, StoreError
from session_reuse.outcome import Outcome, SaveOutcome


class SessionScope:
    """One `with`: restores into a session, saves it, keeps its lease meanwhile.

    Args:
        spent: seconds of the budget to enter that are used up already.
    """

    def __init__(
        self, session: BrowserSession, options: ResolvedOptions, *, config: Config, store: GuardedStore, snapshots: Snapshots,
        writer: Writer, telemetry: Telemetry, clock: Clock, spawn: Spawn, spent: float = 0.0,
    ) -> None:  # fmt: skip
        self.process, self.loop = os.getpid(), asyncio.get_running_loop()
        self._session, self._options, self._config = session, options, config
        self._store, self._snapshots, self.writer = store, snapshots, writer
        self._telemetry, self._clock, self._spawn, self._spent = telemetry, clock, spawn, spent
        self._lease: LeaseHolder | None = None
        if options.exclusive:
            self._lease = LeaseHolder(store, writer, telemetry, session.fingerprint, session.agent_id, config, spawn)
        self._given: Login | None = None
        self._known = NEVER_HEARD
        self._before = self._whole = NO_BODY
        self._changes: list[Change] = []
        self._built_on: Sequence[Change] = ()
        self._saves = self._finished = 0
        self._asked_at = 0.0
        self._not_counted: float | None = 0.0
        self._interrupted: asyncio.Task[None] | None = None
        self._marked = False
        self._trace = telemetry.tracing()
        self._use_id = new_save_id(clock.chance) if config.audit else ""
        self.on_left: Callable[[float], Coroutine[None, None, None]] | None = None

    async def enter(self) -> None:
        """Fill the session from the store, or start it fresh and note why.

        Raises:
            SessionBusyError: another holder has the lease, and `on_busy="raise"`.
            StoreError, CorruptStateError: with `strict`.
        """
        session, began = self._session, self._store.time() - self._spent
        if wiring_of(session).backend is self:  # its pool had to enter it, to know whether it will do
            return
        session.allowed_domains = getattr(self._options.allowed_domains, "patterns", None)
        wiring_of(session).max_bytes = self._config.max_state_bytes
        try:
            with self._telemetry.restore_span(self._trace, session):
                entry = await self._entered(began)
                self._not_counted = self._store.time() - began  # without the caller's `verify`
                await self._adopt(entry)
        except BaseException as error:  # whatever ends it, no lease stays behind
            wiring_of(session).backend = None
            if self._lease is not None:
                self._lease.abandon()
            if isinstance(error, StoreError | CorruptStateError):  # `strict`
                session.outcome = error.outcome if isinstance(error, StoreError) else Outcome.CORRUPT
                self._not_counted = self._store.time() - began
                self.count()
            raise
        refused = session.outcome is Outcome.BUSY and self._options.on_busy == "raise"
        if refused or not self._options.counted_later:
            self.count()
        if refused:
            raise SessionBusyError(f"{session.fingerprint!r} is in exclusive use by another agent")
        wiring_of(session).backend = self

    def enter_without(self, outcome: Outcome) -> None:
        """Start fresh and never save: there is no identity that the session could belong to."""
        session, self._use_id, self._login = self._session, "", Login(Found.AWAY, 0.0, 0.0)
        session.outcome, wiring_of(session).backend = outcome, self
        session.discard()
        self.count()

    def count(self) -> None:
        """Count and log the enter, once."""
        took, self._not_counted, session = self._not_counted, None, self._session
        if took is not None:
            self._telemetry.entered(session.fingerprint, session.outcome, took, stale=session.stale)

    async def _entered(self, began: float) -> Entry:
        fingerprint, budget = self._session.fingerprint, self._config.restore_timeout - self._spent
        replica = self.writer.replicas.of(fingerprint)
        try:
            if self._lease is not None:
                await self._lease.deliver_first(budget / 2)
                budget = self._config.restore_timeout - (self._store.time() - began)
            waiting = [] if self._options.exclusive else list(replica.outbox)
            self._asked_at = asked_at = self._clock.elapsed()
            reply = await self._store.run(Access.READ, fingerprint, budget, self._request(timed=bool(waiting)))
            if isinstance(reply.lease, Busy) and self._lease is not None:
                reply = await self._lease.wait(reply, self._request(), budget, self._options.wait, self._clock.chance)
        except AttemptFailed as failure:
            return await self._away(failure, began)
        if reply.value and lives_too_long(reply.value, self._options, self._config, self._clock.wall()):
            self._spawn(self.writer.slide(fingerprint), "ttl")
        if isinstance(reply.lease, Busy) and self._lease is not None:
            self._lease.refused(reply.lease)
            return Entry(Outcome.BUSY, Login(Found.AWAY, asked_at, self._clock.wall()))
        return await self._from_store(reply, asked_at, waiting)

    def _request(self, *, timed: bool = False) -> Request[EnterReply]:
        holder = self._lease.holder if self._lease is not None else None
        use_id = new_save_id(self._clock.chance) if self._options.max_uses is not None else ""
        return enter_request(self._session.fingerprint, self._options, self._config, holder, use_id, timed=timed)

    async def _away(self, failure: AttemptFailed, began: float) -> Entry:
        """Start from what this process knows. Fresh where an exclusive lease was asked for."""
        fingerprint, writer = self._session.fingerprint, self.writer
        self._telemetry.store_failed(Operation.RESTORE, failure.error, code=failure.code, fingerprint=fingerprint)
        if self._options.strict:
            raise self._telemetry.named(failure.error) from None
        if self._lease is not None:
            self._lease.abandon()
        replica = writer.replicas.of(fingerprint)
        if writer.disk is not None and replica.base.kind is StoredKind.UNKNOWN and not replica.outbox:
            await writer.disk.load(replica, self._config.restore_timeout - (self._store.time() - began))
        writer.heed_others(replica)
        self._known = replica.base
        return while_away(
            failure.error.outcome, replica.base, list(replica.outbox), self._options, self._clock.estimate(), self._config
        )  # fmt: skip

    async def _from_store(self, reply: EnterReply, asked_at: float, waiting: list[Change]) -> Entry:
        fingerprint, replicas = self._session.fingerprint, self.writer.replicas
        if isinstance(reply.lease, Lease) and self._lease is not None:
            self._lease.take(reply.lease)
        replica = replicas.of(fingerprint)
        snapshot, found, error = await self._snapshots.decode(
            fingerprint, reply.value, asked_at, replica.base, reply.invalidated_at
        )
        if error is not None and self._options.strict:
            raise error
        replicas.observe(replica, snapshot)
        if waiting:
            self.writer.confirm(replica)
            current = dict.fromkeys(change.whole_change for change in waiting)  # some were combined meanwhile
            waiting = [change for change in current if not change.is_in(snapshot)]
        self._known = snapshot
        folded = None
        if waiting:
            self.writer.wake()
            folded = fold(waiting, snapshot, self._clock.now(reply.now), retire_after_bad=self._config.retire_after_bad)
        return from_store(
            snapshot, found, self._options, self._clock.at(asked_at), uses=reply.uses, folded=folded,
            retire_after_bad=self._config.retire_after_bad,
        )  # fmt: skip

    async def _adopt(self, entry: Entry) -> None:
        session = self._session
        session.outcome, session.stale, self._login = entry.outcome, entry.stale, entry.login
        self._given = entry.login
        self._built_on = entry.built_on
        if entry.document is not None and entry.body is not None:
            found, self._before = entry.document, entry.body
            if self._options.allowed_domains is not None:
                self._whole, found = entry.body, self._options.allowed_domains.restrict(found)
                self._before = document.dump(found)
            fill(session, found)
            if (verify := self._options.verify) is not None:
                wiring_of(session).backend = self  # it may save, log in again or invalidate
                if not await verified(session, verify, self._config.verify_timeout):
                    session.start_fresh(Outcome.UNVERIFIED)
        else:
            self._before = document.dump(document_of(session))
        if self._options.save == "never":
            session.discard()

    async def load_revision(self) -> None:
        """Read the stored session, so that a session made by hand replaces it and nothing newer."""
        session, moment = self._session, self._clock.now()
        self._login = Login(Found.AWAY, moment.elapsed, moment.wall)
        replica = self.writer.replicas.of(session.fingerprint)
        try:
            self._known, _ = await self.writer.read(replica, self._store.time() + self._config.restore_timeout)
        except AttemptFailed as failure:
            self._telemetry.degraded(Operation.SAVE, failure.error, code=failure.code, fingerprint=session.fingerprint)
        else:
            self._login, self._before = login_to_replace(self._known, moment), self._known.body
        if not self._before.data:
            self._before = document.empty(session.fingerprint)
        wiring_of(session).backend = wiring_of(session).backend or self  # it may be open in another manager

    async def checkpoint(self, session: BrowserSession) -> SaveOutcome:
        """Save now. The lease stays."""
        if wiring_of(session).discarded:
            return SaveOutcome.SKIPPED
        with self._telemetry.save_span(self._trace, session):
            return await self._save(final=False)

    def leave(self, *, failed: bool) -> Coroutine[None, None, None]:
        """Save for the last time and release the lease. Await the result at once.

        A separate task saves a cancelled body, and all that waits for others than the store. It costs a tenth of a cycle.

        Raises:
            InvalidStateError: the state was changed into something that cannot be stored, and the body did not fail.
            StoreError: with `strict`, likewise.
        """
        session, wiring = self._session, wiring_of(self._session)
        if failed and not self._options.save_on_error:
            session.discard()
        waits = wiring.captures or wiring.marked_bad or self._lease or self._options.verify is not None
        if failed or waits or is_inherited(self):
            return self._leave_in_a_task(failed=failed)
        return self._leave(failed=failed)

    async def _leave_behind(self) -> None:
        """Report what nobody saves: in a forked child, or after a loop that was only closed around its agent."""
        session = self._session
        if is_inherited(self):
            log.warning(Event.SAVE_SKIPPED, fingerprint=session.fingerprint, why="the parent process has entered it")
            session.save_outcome = SaveOutcome.SKIPPED
        elif (change := self._change(final=True)) is not None:
            self.writer.lost(session.fingerprint, "the exit was cut off before its save", change)

    async def _leave_in_a_task(self, *, failed: bool) -> None:
        if is_inherited(self) or not self.loop.is_running():  # it was only closed
            return await self._leave_behind()
        leaving = self._spawn(self._leave(failed=failed), "leave")
        try:
            await asyncio.shield(leaving)
        finally:
            self._interrupted = None if leaving.done() else leaving

    async def _leave(self, *, failed: bool) -> None:
        try:
            with self._telemetry.save_span(self._trace, self._session):
                await self._save(final=True)
        except (InvalidStateError, StoreError):
            if not failed:  # else the body's own error comes out
                raise
        finally:
            if self.loop.is_running():  # else it was only closed, and the garbage collector ends us
                await self._end()

    async def _end(self) -> None:
        if self._lease is not None or self.on_left is not None:
            await self._give_back()
        use = self.writer.audit.use_of(self._session, self._options, self._use_id)
        wiring_of(self._session).was_left = True  # not before: `verify` may open a client of the session
        # It holds us: in a circle, its state would stay until the garbage collector comes.
        self._session = self._session if isinstance(self._session, ProxyType) else proxy(self._session)
        if use is not None:  # no save has carried it
            await self._at_once(self.writer.audit.note(use))

    async def _save(self, *, final: bool) -> SaveOutcome:
        session, began = self._session, self._clock.elapsed()
        self._saves = number = self._saves + 1
        try:
            is_good = await examined(session, self._options.verify if final else None, self._config)
        except BaseException:  # the manager is closed, or the event loop ends: nothing is lost without a word
            if final and allows_save(wiring_of(session), session.outcome):
                self.writer.lost(session.fingerprint, "the exit was cut off before its save")
                self._finish(SaveOutcome.LOST, began, number)
            raise
        change, refused = None, None
        try:
            change = self._change(final=final) if is_good else self._bad_mark()
        except InvalidStateError as error:
            refused = error
            log.error(Event.INVALID_STATE, fingerprint=session.fingerprint, why=str(error))
            with suppress(InvalidStateError):  # notes that cannot be stored do not cost the login beside them
                change = self._change(final=final, notes=document.load(*self._before)["data"])
        outcome = await self._sent(change, began, number, final=final)
        if refused is not None:
            raise refused
        return outcome

    async def _sent(self, change: Change | None, began: float, number: int, *, final: bool) -> SaveOutcome:
        session = self._session
        if change is None:
            return self._finish(SaveOutcome.SKIPPED, began, number)
        again = given_up(self._changes, self._login, until=change.made_at + change.ttl)
        self._changes = [*unsettled(self._changes), *again, change]
        if final and (use := self.writer.audit.use_of(session, self._options, self._use_id)) is not None:
            change.uses, self._use_id = (use,), ""
        self._before = change.after  # the next change starts here, also when it is made while this one is on its way
        try:
            await self.writer.save(session.fingerprint, [*again, change], self._known)
        except BaseException:
            self._finish(change.outcome or SaveOutcome.PENDING, began, number)
            raise
        return await self._saved(change, began, number)

    async def _saved(self, change: Change, began: float, number: int) -> SaveOutcome:
        session, outcome = self._session, change.outcome or SaveOutcome.PENDING
        if change.mark_only:
            return self._finish(SaveOutcome.SKIPPED, began, number)
        if outcome is SaveOutcome.STALE:
            log.warning(Event.SAVE_STALE, fingerprint=session.fingerprint)
        if outcome in NOT_STORED:
            self._start_again_from(change)
        elif outcome is SaveOutcome.UNCHANGED:  # as it was at the last save, which was refused again
            outcome = next((one.outcome for one in self._changes if one.outcome in NOT_STORED), outcome)
        if change.not_taken:
            session.report(ProblemKind.NOT_TAKEN, "storage_state", "another login is stored: only the notes were saved")
        if outcome is SaveOutcome.PENDING and self.writer.disk is not None:
            left = self._config.save_timeout - (self._clock.elapsed() - began)
            if await self.writer.disk.written(session.fingerprint, left):
                outcome = SaveOutcome.SPOOLED
        self._finish(outcome, began, number)
        if change.failure is not None and change.outcome in {None, SaveOutcome.LOST} and self._options.strict:
            raise self._telemetry.named(change.failure) from None
        return outcome

    def _start_again_from(self, change: Change) -> None:
        """Move the content of a refused change into the changes after it."""
        wiring = wiring_of(self._session)
        if change.score_change and wiring.health_mark is None:
            wiring.health_mark = (True, "")
        if self._before is change.after:
            self._before = change.before
        passed_on(change, self._changes)

    def _change(self, *, final: bool, notes: dict[str, Any] | None = None) -> Change | None:
        """Return what the agent changed since its last save; None when there is nothing good to save."""
        session = self._session
        if session.outcome is Outcome.UNVERIFIED and self._login is self._given:
            # One that waits may be stored meanwhile. The login of this agent is its own, and no older than its enter.
            self._changes = []  # of the login that was refused
            heard_at = self._login.heard_at if self._login.found is Found.STORED else self._asked_at
            self._login = replace(self._login, found=Found.UNUSABLE, heard_at=heard_at)
            self._before = document.empty(session.fingerprint)
        replaces = self._known.body if self._login.found is Found.UNUSABLE and self._known.body.data else None
        after = body_to_save(
            session, self._before, replaces=replaces, domains=self._options.allowed_domains, notes=notes
        )
        if after is None or (replaces is not None and after is self._before and not self._changes):
            return None  # nothing takes the place of what other agents may have changed since
        self._snapshots.codec.check_size(after.data)
        wiring = wiring_of(session)
        good = wiring.health_mark == (True, "")
        if good:
            wiring.health_mark = None  # counted with this change
        held, now = self._lease.lease if self._lease is not None else None, self._clock.elapsed()
        return Change(
            before=self._before, after=after, login=self._login, made_at=now, ttl=self._config.ttl,
            built_on=self._built_on, agent_id=session.agent_id, lease=held, release=final and held is not None,
            vouched=good or (final and self._options.verify is not None), score_change=GOOD_MARK if good else 0,
            domains=self._options.allowed_domains, whole=self._whole,
        )  # fmt: skip

    def _bad_mark(self) -> Change | None:
        """Return the mark that the very login gets which this session was restored from, once."""
        if self._marked or not wiring_of(self._session).marked_bad or self._options.save == "never":
            return None
        self._marked = True
        if (mark := bad_mark(self._login, self._before, self._clock.elapsed(), self._config.ttl)) is not None:
            _, why = wiring_of(self._session).health_mark or (False, "")
            log.info(Event.MARKED_BAD, fingerprint=self._session.fingerprint, why=why)
        return mark

    def _finish(self, outcome: SaveOutcome, began: float, number: int) -> SaveOutcome:
        if number >= self._finished:  # a checkpoint that ends after the exit does not hide what the exit did
            self._finished, self._session.save_outcome = number, outcome
        self._telemetry.saved(self._session.fingerprint, outcome, self._clock.elapsed() - began)
        return outcome

    def note_use(self) -> None:
        """Write a line about the use to the audit, in the background: for a session that is not left."""
        if (use := self.writer.audit.use_of(self._session, self._options, self._use_id)) is not None:
            self._spawn(self.writer.audit.note(use), "release")

    async def _give_back(self) -> None:
        """Give back the lease and the member of a pool, before the next enter of this task can ask for them."""
        lease, cooldown = self._lease, wiring_of(self._session).cooldown
        if lease is not None:
            lease.stop()
        try:
            if self.on_left is not None and cooldown > 0:  # first: an agent that finds the lease free finds it too
                await self._at_once(self.on_left(cooldown))
        finally:
            if lease and lease.lease and not any(change.has_released_lease for change in self._changes):
                await self._at_once(lease.release(self._config.attempt_timeout))
        if self.on_left is not None and cooldown <= 0:
            await self._at_once(self.on_left(cooldown))

    async def _at_once(self, work: Coroutine[None, None, None]) -> None:
        """Wait for an attempt of something. Where the store is slow, it goes on in the background."""
        await asyncio.wait({self._spawn(work, "release")}, timeout=self._config.attempt_timeout)

    async def settled(self) -> SaveOutcome | None:
        """Wait for the final outcome of the last save, and return it."""
        last = None
        if not self.loop.is_closed() and self._interrupted not in {None, asyncio.current_task()}:
            await asyncio.wait({self._interrupted})  # a cancelled exit goes on, and calls `verify`
        if self._changes:
            last = self._changes[-1].outcome if self.loop.is_closed() else await self._changes[-1].final()
        said = self._session.save_outcome  # of a later save, perhaps, that has sent nothing
        return last or said if said in NOT_FINAL else said

    async def invalidate(self, reason: str) -> None:
        """Delete the stored state for everyone."""
        await self.writer.invalidate(self._session.fingerprint, reason)

    async def one_time_code(self) -> str:
        """Return the one-time code of this moment."""
        if self._options.save == "never":
            raise ConfigurationError('a session that is lent with save="never" makes no one-time codes')
        return await OneTimeCodes(self._store, self._snapshots.codec, self._config).code(self._session.fingerprint)

    def export(self, session: BrowserSession) -> bytes:
        """Return the stored form, sealed as the manager's sessions are."""
        return encode_session(session, self._snapshots.codec, self._store.keys)
