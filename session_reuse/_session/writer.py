"""`Writer`: brings the changes of agents into the store, at once or when it is back.

One way for all: fold the changes onto the stored session, commit the result if the store still holds that, else read and fold
again. Changes that the store does not take by their deadline wait in the outbox of their replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from session_reuse._resilience.failure import AttemptFailed
from session_reuse._session.audit import Audit
from session_reuse._session.changes import REFUSED, TOMBSTONE_TTL, Change, Snapshot, StoredKind
from session_reuse._session.clock import Clock, Moment
from session_reuse._session.commits import as_stored, commit_of, has_payload, next_header
from session_reuse._session.flusher import Flusher
from session_reuse._session.fold import Folded, fold, next_group
from session_reuse._session.guarded_store import Access, GuardedStore
from session_reuse._session.replica import Replica, Replicas
from session_reuse._session.snapshots import Snapshots
from session_reuse._session.tasks import Spawn, in_thread
from session_reuse._state.header import REMEMBERED_SAVES, Header
from session_reuse._store.interface import Commit, CommitOutcome, CommitReply
from session_reuse._stored_form import new_save_id
from session_reuse._telemetry import Event, Operation, Telemetry, log
from session_reuse.config import Config
from session_reuse.errors import InvalidStateError
from session_reuse.outcome import SaveOutcome

if TYPE_CHECKING:
    from session_reuse._session.spool.disk_replicas import DiskReplicas

_CONTENTION_PAUSE: Final = 0.005
_UNSETTLED: Final = frozenset({None, SaveOutcome.SPOOLED})
"""Outcomes of changes that stay in the outbox."""
_OFFLOAD: Final = 200_000
"""Documents from this many bytes on are merged and encoded in a thread: 2 MB hold the loop up for 0.5 s (2026-11)."""


class Writer:
    """Writes the changes of all sessions of one manager.

    Attributes:
        replicas: what this process knows of each session.
        disk: their copies on disk, if configured.
        audit: writes the lines about uses.
        owner: the manager, referenced so that one without any other reference lives while its saves wait.
    """

    def __init__(
        self, config: Config, store: GuardedStore, snapshots: Snapshots, telemetry: Telemetry, clock: Clock, spawn: Spawn,
        replicas: Replicas,
    ) -> None:  # fmt: skip
        self._config, self._store, self._snapshots = config, store, snapshots
        self._telemetry, self._clock, self._spawn = telemetry, clock, spawn
        self.replicas = replicas
        self.audit = Audit(store, clock, spawn, config.save_timeout)
        self.disk: DiskReplicas | None = None
        self.owner: object = None
        self._flusher = Flusher(self.flush, self.replicas, store, clock, spawn)
        self._closed = False

    # Saving ----------------------------------------------------------------------------------------------------------

    def save(self, fingerprint: str, changes: Sequence[Change], known: Snapshot) -> Awaitable[object]:
        """Write changes of an agent within `save_timeout`, or keep them. Await the result at once.

        Args:
            fingerprint: whose session.
            changes: what the agent changed, the latest last. They hold their outcomes, if they did not have to wait.
            known: what the agent's session was restored from, or an earlier save of it has found.
        """
        replica = self.replicas.of(fingerprint)
        replica.observe(known)
        change = changes[-1]
        for one in replica.outbox:  # an agent that goes on with a login keeps it, also what waits of it
            if one.login.is_same(change.login):
                one.ttl = max(one.ttl, change.made_at + change.ttl - one.made_at)
        if not replica.writing:
            return self._write(replica, [*changes], self._config.save_timeout)
        change.answered = asyncio.Event()
        if not replica.arriving:
            replica.arrived_at = self._store.time()
        replica.arriving += changes
        return self._answered(changes, change.answered)

    async def _answered(self, changes: Sequence[Change], answered: asyncio.Event) -> None:
        try:
            await answered.wait()
        except BaseException:
            for change in changes:
                change.left_alone = change.outcome is None and not answered.is_set()
            raise

    async def _write(self, replica: Replica, changes: list[Change], budget: float) -> None:
        """Write changes, those that wait first. Changes that are not written wait in the outbox, also after a cancellation."""
        replica.writing = batch = [*replica.outbox, *changes]
        replica.refuse_invalidated(batch)
        try:
            await self._commit_all(replica, batch, budget)
        except GeneratorExit:  # the loop was only closed: nothing goes on, and the manager reports what is unsettled
            raise
        except AttemptFailed as failure:
            arrived, replica.arriving = [*changes, *replica.arriving], []
            replica.writing = []  # what waits may be combined
            for change in arrived:
                change.failure = failure.error  # without the frames that a raised one refers to
            self._enqueue(replica, arrived)
            if changes:
                self._telemetry.degraded(
                    Operation.SAVE, failure.error, code=failure.code, fingerprint=replica.fingerprint
                )
        except BaseException:  # cancelled, or the process is ending: nothing is lost without a word
            self._enqueue(replica, changes)
            self._go_on(replica, batch)
            raise
        self._go_on(replica, batch)

    def _go_on(self, replica: Replica, batch: list[Change]) -> None:
        """Report what a request has settled, and begin the next one if changes have arrived meanwhile."""
        replica.writing = []
        self._settled(replica, batch)
        self._flusher.changed()
        if replica.arriving:
            replica.writing, replica.arriving = replica.arriving, []
            left = self._config.save_timeout - (self._store.time() - replica.arrived_at)
            # At least one attempt: a healthy store does not pay for a slow reply to somebody else.
            self._spawn(self._write(replica, replica.writing, max(left, self._config.attempt_timeout)), "save")
        self.replicas.trim()  # it had to stay until now

    def _enqueue(self, replica: Replica, changes: Sequence[Change]) -> None:
        replica.refuse_invalidated(changes)
        for change in changes:
            if change.outcome is not None:
                continue
            change.left_alone = False
            if self._closed:
                change.settle(SaveOutcome.LOST)
                self.lost(replica.fingerprint, "the manager is closed", change)
                continue
            for crowded, dropped in self.replicas.enqueue(replica, change):
                if self.disk is None or not self.disk.leaves(dropped):
                    self.lost(crowded.fingerprint, "pending_max or pending_max_bytes is reached", dropped)
                if self.disk is not None:
                    self.disk.changed(crowded)
            if change.outcome is None:
                log.debug(Event.SAVE_PENDING, fingerprint=replica.fingerprint, waiting=self.replicas.pending)
            change.answer()
        self._telemetry.pending(self.replicas.pending)
        if self.disk is not None:
            self.disk.changed(replica)
        if self.replicas.pending:
            self.wake()

    def _settled(self, replica: Replica, batch: Sequence[Change]) -> None:
        """Remove settled changes from the outbox, and report them and those that were left alone."""
        for change in batch:
            self.audit.finish(change)
        settled = [one for one in batch if one.outcome not in _UNSETTLED]
        done = [one for one in settled if one.left_alone or one in replica.outbox]
        if not done:
            return
        self.replicas.remove(replica, done)
        self._telemetry.pending(self.replicas.pending)
        if self.disk is not None:
            self.disk.changed(replica)
        for change in done:
            if change.outcome in REFUSED or change.not_taken:
                self.lost(replica.fingerprint, change.why or "the lease was lost", change)
            elif change.outcome is not None:  # as it is of all of them
                self._telemetry.flushed(replica.fingerprint, change.outcome)

    def lost(self, fingerprint: str, why: str, change: Change | None = None) -> None:
        """Report a change that is given up, unless it has no content."""
        if change is None or change.has_content:
            self._telemetry.lost(fingerprint, why, self._config.on_lost)

    async def _commit_all(self, replica: Replica, batch: list[Change], budget: float) -> None:
        """Commit until each change is settled.

        Raises:
            AttemptFailed: the store did not do it by the deadline.
        """
        deadline = self._store.time() + budget
        stored, moment = replica.base, self._clock.now()
        unproven = None in [change.login.invalidated_at for change in batch]
        if stored.invalidated_at is None or replica.outbox or unproven:
            stored, moment = await self.read(replica, deadline)
        while left := _confirm(batch, stored):
            group = next_group(left)
            run = partial(fold, group, stored, moment, retire_after_bad=self._config.retire_after_bad)
            if len(stored.body.data) + sum([change.size for change in group]) < _OFFLOAD:
                folded = run()
            else:
                folded = await in_thread(run)
            # Refuse nothing by what was known before. A save that was held up is compared by the server's clock.
            sent_at, again = self._clock.elapsed(), 0
            is_late = max([change.age(sent_at) for change in group]) > 0
            if (folded.refused or is_late) and moment.server is None:
                stored, moment = await self.read(replica, deadline)
                continue
            request = await self._request(replica.fingerprint, folded, stored, moment)
            if request is not None:
                header, commit = request
                reply = await self._commit(commit, deadline - self._store.time())
                again = self._replied(replica, folded, stored, header, commit, reply, sent_at)
            if again:
                await asyncio.sleep(self._clock.chance.uniform(0, _CONTENTION_PAUSE) if again > 1 else 0)
                stored, moment = await self.read(replica, deadline)
            else:
                _refuse(replica, folded)  # not before: a new login that refuses the others must be stored first
                stored = replica.base

    def _commit(self, commit: Commit, budget: float) -> Awaitable[CommitReply]:
        return self._store.run(
            Access.WRITE, commit.fingerprint, budget, lambda store, timeout: store.commit(commit, timeout=timeout)
        )

    async def _request(
        self, fingerprint: str, folded: Folded, stored: Snapshot, moment: Moment
    ) -> tuple[Header, Commit] | None:  # fmt: skip
        """Return the header that a result will have, and its commit; None when there is nothing that can be stored."""
        if not folded.applied:
            return None
        clock = self._clock
        header, save_id, value = stored.header, new_save_id(clock.chance), b""
        if header is None or has_payload(folded, stored):
            header = next_header(folded, header, save_id=save_id, now=clock.wall(), config=self._config)
            try:
                value = await self._snapshots.encode(fingerprint, folded.result.body, header)
            except InvalidStateError as error:
                why = f"with what others saved, {error}"
                for change, _ in folded.applied:
                    change.settle(SaveOutcome.SKIPPED, why)
                log.error(Event.INVALID_STATE, fingerprint=fingerprint, why=why)
                return None
        agents = {}
        for change, rebased in folded.applied:
            change.notes_only, change.is_cut = rebased.notes_only, rebased.not_taken
            if stored.header is not None:
                change.sent_over = stored.header.version
            change.ids.append(save_id)
            change.sent_as.append(header.created_at)
            change.mark_id = change.mark_id or save_id
            if change.agent_id is not None:
                agents[change.agent_id] = self._snapshots.affinity_value(change.agent_id, fingerprint)
        commit = commit_of(
            folded, stored, moment, fingerprint=fingerprint, save_id=save_id, longest=self._config.ttl, now=clock.elapsed(),
            agents=tuple(agents.items()), value=value,
        )  # fmt: skip
        return header, self.audit.attach(commit, folded)

    def _replied(
        self, replica: Replica, folded: Folded, stored: Snapshot, header: Header, commit: Commit, reply: CommitReply,
        sent_at: float,
    ) -> int:  # fmt: skip
        """Take over a reply. Return 0 when the changes have come to their end, else how often others got in between."""
        outcome = reply.outcome
        self.audit.check(commit, reply)
        if outcome is CommitOutcome.STALE and commit.lease is not None:
            for change, _ in folded.applied:
                change.settle(SaveOutcome.STALE)
            return 0
        if not outcome.written:
            return 2 if outcome is CommitOutcome.CONFLICT else 1
        if reply.replicas is not None and reply.replicas < self._config.wait_replicas:
            self._telemetry.under_replicated(replica.fingerprint, reply.replicas)
        self._written(replica, folded, stored, as_stored(header, reply), commit, sent_at)
        return 0

    def _written(
        self, replica: Replica, folded: Folded, stored: Snapshot, header: Header, commit: Commit, sent_at: float
    ) -> None:  # fmt: skip
        if commit.value or replica.base is stored:  # `unchanged` says nothing of a revision that was seen meanwhile
            snapshot = Snapshot(
                kind=StoredKind.PRESENT, heard_at=sent_at, invalidated_at=header.invalidated_at, header=header,
                body=folded.result.body, value=commit.value or stored.value, answered_at=self._clock.elapsed(),
            )  # fmt: skip
            self.replicas.observe(replica, snapshot)
        if self.disk is not None:
            self.disk.changed(replica)
        accepted_at = self._clock.at(sent_at)
        for change, rebased in folded.applied:
            if not rebased.notes_only:
                change.login.accepted(header, accepted_at)
            if not commit.value:
                change.settle_as_stored(SaveOutcome.UNCHANGED)
            else:
                change.settle_as_stored(SaveOutcome.MERGED if rebased.merged else SaveOutcome.SAVED)
            if change.not_taken:
                log.warning(Event.SAVE_SKIPPED, fingerprint=replica.fingerprint, why=change.why)

    async def read(self, replica: Replica, deadline: float) -> tuple[Snapshot, Moment]:
        """Return what the store holds, and the moment of its answer.

        Raises:
            AttemptFailed: there was none by the deadline.
        """
        asked_at = self._clock.elapsed()
        reply = await self._store.run(
            Access.READ, replica.fingerprint, deadline - self._store.time(),
            lambda store, timeout: store.read(replica.fingerprint, timeout=timeout),
        )  # fmt: skip
        now = self._clock.now(reply.now)
        snapshot, _, _ = await self._snapshots.decode(
            replica.fingerprint, reply.value, asked_at, replica.base, reply.invalidated_at
        )
        self.replicas.observe(replica, snapshot)
        return snapshot, now

    async def slide(self, fingerprint: str) -> None:
        """Restart the time to live of a session within its own limits. A failure costs the next enter the same request."""
        try:
            await self._store.run(
                Access.WRITE, fingerprint, self._config.save_timeout,
                lambda store, timeout: store.slide(fingerprint, self._config.ttl, timeout=timeout),
            )  # fmt: skip
        except AttemptFailed as failure:
            log.debug(Event.DEGRADED, operation="ttl", error=failure.code)

    # Waiting ---------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Start writing what waits, as soon as the breakers let a request pass."""
        if not self._closed:
            self._flusher.wake(self._config.save_timeout)

    async def flush(self, fingerprint: str, budget: float) -> bool:
        """Write what waits of one session. Return whether nothing of it waits any more."""
        replica = self.replicas.find(fingerprint)
        if replica is not None and replica.outbox and not replica.writing:
            await self._write(replica, [], budget)
        return replica is None or not replica.outbox

    async def finish(self, budget: float) -> None:
        """Write what still waits within `budget` seconds."""
        until = self._clock.elapsed() + budget  # the disk gets what is left
        await self._flusher.finish(budget if self.disk is None else 0.75 * budget)
        if self.disk is not None:
            await self.disk.finish(until - self._clock.elapsed())

    def close(self) -> None:
        """Report what could not be written. Nothing waits from now on."""
        self._closed = True
        for replica in self.replicas.waiting():
            for change in list(replica.outbox):
                on_disk = self.disk is not None and self.disk.holds(replica, change)
                change.settle(SaveOutcome.SPOOLED if on_disk else SaveOutcome.LOST)
                if not on_disk:
                    self.lost(replica.fingerprint, "the store was away until the close", change)
        if self.disk is not None:
            self.disk.close()

    def confirm(self, replica: Replica) -> None:
        """Settle what waits and is stored: applied again, it would bring back to agents what others have changed since."""
        waiting = list(replica.outbox)
        _confirm(waiting, replica.base)
        self._settled(replica, waiting)

    def adopt(self, replica: Replica, changes: Sequence[Change]) -> None:
        """Take over changes that an earlier process has left."""
        self._enqueue(replica, changes)
        for change in changes:
            if change.outcome is SaveOutcome.STALE:
                self.lost(replica.fingerprint, change.why, change)

    # Invalidating ----------------------------------------------------------------------------------------------------

    async def invalidate(self, fingerprint: str, reason: str) -> bool:
        """Delete a session for everyone. Return whether there was one.

        Raises:
            StoreError: the store did not do it. This process does not use the session any more.
        """
        try:
            existed = await self._invalidate(fingerprint)
        except AttemptFailed as failure:
            self._telemetry.degraded(Operation.INVALIDATE, failure.error, code=failure.code, fingerprint=fingerprint)
            raise self._telemetry.named(failure.error) from None
        if self.disk is not None:
            await self.disk.written(fingerprint, 0.0)  # a process that starts while the store is away finds nothing
        self._telemetry.invalidated(fingerprint, reason, existed=existed)
        return existed

    async def _invalidate(self, fingerprint: str) -> bool:
        replica, began = self.replicas.of(fingerprint), self._clock.elapsed()
        self.replicas.invalidate(replica, began)
        self._refuse_invalidated(replica)
        # Which session is meant is settled now: a request that arrives late leaves a newer login alone.
        deadline = self._store.time() + self._config.save_timeout
        stored, _ = await self.read(replica, deadline)
        created_at = stored.header.created_at if stored.header else 0
        self.replicas.invalidate(replica, began, created_at)
        request_id = new_save_id(self._clock.chance)
        try:
            return await self._store.run(
                Access.WRITE, fingerprint, deadline - self._store.time(),
                lambda store, timeout: store.invalidate(
                    fingerprint, ttl=TOMBSTONE_TTL, request_id=request_id, created_at=created_at, timeout=timeout
                ),
            )  # fmt: skip
        finally:  # agents have entered meanwhile, with replies to requests that were sent before this one came back
            self.replicas.invalidate(replica, began, created_at)
            self._refuse_invalidated(replica)

    def heed_others(self, replica: Replica) -> None:
        """Give up what another manager of this process has invalidated."""
        if self.replicas.heed(replica):
            self._refuse_invalidated(replica)

    def _refuse_invalidated(self, replica: Replica) -> None:
        if self.disk is not None:
            self.disk.forget(replica)
        waiting = list(replica.outbox)
        replica.refuse_invalidated(waiting)
        self._settled(replica, waiting)


def _confirm(batch: list[Change], stored: Snapshot) -> list[Change]:
    """Settle the changes that the stored session contains already: the reply was lost, or another process has read them.

    Return those that are not settled.
    """
    names = stored.header.save_ids if stored.header is not None else ()
    last = max((at for at, change in enumerate(batch) if change.name in names), default=0)
    for at, change in enumerate(batch):
        if stored.header is None or change.outcome is not None or change.mark_only or not (change.ids or change.name):
            continue
        if change.is_in(stored):
            change.settle_as_stored(SaveOutcome.SAVED)
            if change.ids and not change.notes_only:  # else another login is stored, perhaps
                change.confirm_login(stored.header)
        elif change.name and at < last:  # another process has settled it: each takes a file in its order
            change.settle_as_stored(SaveOutcome.SAVED)
        elif change.ids and stored.header.version - change.sent_over > REMEMBERED_SAVES:
            change.waited = True  # it may be in a save that the header has forgotten: what was saved since is later
    return [change for change in batch if change.outcome is None]


def _refuse(replica: Replica, folded: Folded) -> None:
    for change, refused in folded.refused:
        change.settle(refused.outcome, refused.why)
        log.debug(Event.SAVE_SKIPPED, fingerprint=replica.fingerprint, why=refused.why)
