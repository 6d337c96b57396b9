"""`Writer`: brings the changes of agents into the store, at once or when it is back.

One way for all: fold the changes onto what is stored, commit the result if the store still holds that, else read and fold
again. Changes that the store does not take by their deadline wait in the outbox of their replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from session_reuse._resilience.failure import AttemptFailed
from session_reuse._session.changes import (
    HOLD_LIMIT,
    REFUSED,
    TOMBSTONE_TTL,
    Change,
    Folded,
    Found,
    Moment,
    Snapshot,
    StoredKind,
    fold,
)
from session_reuse._session.guarded_store import GuardedStore
from session_reuse._session.replica import Replica, Replicas
from session_reuse._session.snapshots import Snapshots
from session_reuse._session.tasks import Spawn
from session_reuse._state.document import Body, load
from session_reuse._state.header import REMEMBERED_SAVES, Header
from session_reuse._state.storage_state import longest_cookie_life
from session_reuse._store.interface import Commit, CommitOutcome, CommitReply, Precondition
from session_reuse._stored_form import new_save_id
from session_reuse._telemetry import Event, Operation, Telemetry, log
from session_reuse.config import Config
from session_reuse.errors import InvalidStateError
from session_reuse.outcome import SaveOutcome

if TYPE_CHECKING:
    from session_reuse._session.spool import DiskReplicas

_SHORTEST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_FLUSH_RATE: Final = 20.0
"""Waiting saves per second once the store is back: all processes of a fleet flush at the same time."""
_CONTENTION_PAUSE: Final = 0.005
_OFFLOAD: Final = 200_000
"""Documents from this many bytes on are merged and encoded in a thread: 2 MB hold the loop up for 0.5 s (2026-11)."""


@dataclass(slots=True)
class Clock:
    """Time and chance of one manager. The simulator replaces them."""

    wall: Callable[[], float]
    chance: random.Random

    @staticmethod
    def loop() -> float:
        """Return the time of the running event loop."""
        return asyncio.get_running_loop().time()

    def time(self) -> float:
        """Return unix seconds."""
        return self.wall()

    def now(self, server: int | None = None) -> Moment:
        """Return this moment, with the server's time if its answer has just arrived.

        The answer is older than this moment, so what happened here before looks rather too old than too young to the
        server. What it refuses for that is safe.
        """
        return Moment(self.loop(), self.wall(), server)


class Writer:
    """Writes the changes of all sessions of one manager.

    Args:
        config: the settings.
        store: the way to the store.
        snapshots: opens and seals stored values.
        telemetry: what is counted and logged.
        clock: time and chance.
        spawn: runs work in a task that lives until it is done or the manager is closed.

    Attributes:
        replicas: what this process knows of each session.
        disk: their copies on disk, if configured.
        owner: the manager, referenced so that one without any other reference lives while its saves wait.
    """

    def __init__(
        self,
        config: Config,
        store: GuardedStore,
        snapshots: Snapshots,
        telemetry: Telemetry,
        clock: Clock,
        spawn: Spawn,
    ) -> None:
        self._config = config
        self._store = store
        self._snapshots = snapshots
        self._telemetry = telemetry
        self._clock = clock
        self._spawn = spawn
        self.replicas = Replicas(config.recent_bytes, config.pending_max, config.pending_max_bytes)
        self.disk: DiskReplicas | None = None
        self.owner: object = None
        self._flusher: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._writing = 0
        self._closed = False

    # Saving ----------------------------------------------------------------------------------------------------------

    async def save(self, fingerprint: str, change: Change, known: Snapshot) -> SaveOutcome:
        """Write a change within `save_timeout`, or keep it.

        Args:
            fingerprint: whose session.
            change: what the agent changed. It tells why when the store did not take it (`failure`).
            known: what the agent's session was restored from, or an earlier save of it has found.

        Returns:
            What became of it; PENDING while it waits for the store.
        """
        replica = self.replicas.of(fingerprint)
        replica.observe(known)
        if change.login.heard_at < replica.invalidated_at:
            change.settle(SaveOutcome.STALE, "this process has invalidated the session")
        elif replica.writing:
            change.answered = asyncio.Event()
            replica.arriving.append(change)
            await change.answered.wait()
        else:
            await self._write(replica, [change], self._config.save_timeout)
        return change.outcome or SaveOutcome.PENDING

    async def _write(self, replica: Replica, changes: list[Change], budget: float) -> None:
        """Write changes, those that wait first. What is not written waits in the outbox, whatever ends this."""
        replica.writing = True
        self._writing += 1
        batch = [*replica.outbox, *changes]
        try:
            await self._commit_all(replica, batch, budget)
        except AttemptFailed as failure:
            arrived, replica.arriving = [*changes, *replica.arriving], []
            for change in arrived:
                change.failure = failure.error  # without the frames that a raised one refers to
            self._enqueue(replica, arrived)
            if changes:
                self._telemetry.degraded(
                    Operation.SAVE, failure.error, code=failure.code, fingerprint=replica.fingerprint
                )
        except BaseException:  # cancelled, or the process is ending: nothing is lost without a word
            self._enqueue(replica, changes)
            raise
        finally:
            replica.writing = False
            self._writing -= 1
            self._settled(replica, batch)
            self._changed.set()
            if replica.arriving:
                arrived, replica.arriving = replica.arriving, []
                replica.writing = True
                self._spawn(self._write(replica, arrived, self._config.save_timeout), "save")

    def _enqueue(self, replica: Replica, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.outcome is not None:
                continue
            if self._closed:
                change.settle(SaveOutcome.LOST)
                self._lost(replica.fingerprint, "the manager is closed")
                continue
            for fingerprint, _ in self.replicas.enqueue(replica, change):
                self._lost(fingerprint, "pending_max or pending_max_bytes is reached")
            if change.outcome is None:
                log.debug(Event.SAVE_PENDING, fingerprint=replica.fingerprint, waiting=self.replicas.pending)
            change.answer()
        self._telemetry.pending(self.replicas.pending)
        if self.disk is not None:
            self.disk.changed(replica)
        if self.replicas.pending:
            self.wake()

    def _settled(self, replica: Replica, batch: Sequence[Change]) -> None:
        """Take what has come to its end out of the outbox."""
        done = [change for change in batch if change.outcome is not None and change in replica.outbox]
        if not done:
            return
        self.replicas.remove(replica, done)
        self._telemetry.pending(self.replicas.pending)
        if self.disk is not None:
            self.disk.changed(replica)
        for change in done:
            outcome = change.outcome
            assert outcome is not None  # noqa: S101  (looked at above)
            if change.before is not change.after and (outcome in REFUSED or change.not_taken):
                self._lost(replica.fingerprint, change.why or "the lease was lost")
            else:
                self._telemetry.flushed(replica.fingerprint, outcome)

    def _lost(self, fingerprint: str, why: str) -> None:
        self._telemetry.lost(fingerprint, why)
        if self._config.on_lost is not None:
            try:
                self._config.on_lost(fingerprint, why)
            except Exception as error:  # noqa: BLE001  (the application's function, whatever it raises)
                log.warning(Event.CALLBACK_FAILED, callback="on_lost", error=type(error).__name__)

    async def _commit_all(self, replica: Replica, batch: list[Change], budget: float) -> None:
        """Commit until each change has come to its end.

        Raises:
            AttemptFailed: the store did not do it by the deadline.
        """
        deadline = self._store.time() + budget
        stored, moment = replica.base, self._clock.now()
        unproven = any(change.login.invalidated_at is None for change in batch)
        if stored.kind is StoredKind.UNKNOWN or stored.invalidated_at is None or replica.outbox or unproven:
            stored, moment = await self._read(replica, deadline)
        while True:
            _confirm(batch, stored)
            group = _next_group(batch)
            if not group:
                return
            folded = await self._folded(group, stored, moment)
            if folded.refused and moment.server is None:  # refuse nothing by what was known before
                stored, moment = await self._read(replica, deadline)
                continue
            again = 0
            try:
                if folded.applied:
                    again = await self._commit(replica, folded, stored, moment, deadline)
            except InvalidStateError as error:
                for change, _ in folded.applied:
                    change.settle(SaveOutcome.SKIPPED)
                log.error(Event.INVALID_STATE, fingerprint=replica.fingerprint, why=f"with what others saved, {error}")
            if not again:
                _refuse(replica, folded)  # not before: a new login that refuses the others must be stored first
            if again:
                await asyncio.sleep(self._clock.chance.uniform(0, _CONTENTION_PAUSE) if again > 1 else 0)
                stored, moment = await self._read(replica, deadline)
            else:
                stored = replica.base

    async def _folded(self, group: list[Change], stored: Snapshot, moment: Moment) -> Folded:
        def run() -> Folded:
            return fold(group, stored, moment, retire_after_bad=self._config.retire_after_bad)

        if len(stored.body.data) + sum(change.size for change in group) < _OFFLOAD:
            return run()
        return await asyncio.get_running_loop().run_in_executor(None, run)

    async def _commit(
        self, replica: Replica, folded: Folded, stored: Snapshot, moment: Moment, deadline: float
    ) -> int:  # fmt: skip
        """Send one commit. Return 0 when the changes have come to their end, else how often others got in between."""
        sent_at = self._clock.loop()
        header, commit = await self._request(replica.fingerprint, folded, stored, moment)
        for change, _ in folded.applied:
            change.ids.append(commit.save_id)
        reply = await self._store.commit(commit, deadline - self._store.time())
        outcome = reply.outcome
        if outcome is CommitOutcome.STALE and commit.lease is not None:
            for change, _ in folded.applied:
                change.settle(SaveOutcome.STALE)
            return 0
        if not outcome.written:
            return 2 if outcome is CommitOutcome.CONFLICT else 1
        if reply.replicas is not None and reply.replicas < self._config.wait_replicas:
            self._telemetry.under_replicated(replica.fingerprint, reply.replicas)
        self._written(replica, folded, stored, _as_stored(header, reply), commit, sent_at)
        return 0

    def _written(
        self, replica: Replica, folded: Folded, stored: Snapshot, header: Header, commit: Commit, sent_at: float
    ) -> None:  # fmt: skip
        if commit.value or replica.base is stored:  # `unchanged` says nothing of a revision that was seen meanwhile
            snapshot = Snapshot(
                kind=StoredKind.PRESENT, heard_at=sent_at, invalidated_at=header.invalidated_at, header=header,
                body=folded.result.body, value=commit.value or stored.value,
            )  # fmt: skip
            self.replicas.observe(replica, snapshot)
        if self.disk is not None:
            self.disk.changed(replica)
        moment = self._clock.now()
        for change, rebased in folded.applied:
            change.not_taken = rebased.not_taken
            if not rebased.not_taken:
                change.login.accepted(header, Moment(sent_at, moment.wall - (moment.loop - sent_at)))
            if not commit.value:
                change.settle(SaveOutcome.UNCHANGED)
            else:
                change.settle(SaveOutcome.MERGED if rebased.merged else SaveOutcome.SAVED)
            if rebased.not_taken:
                change.why = "another login is stored: only the notes were saved"
                log.warning(Event.SAVE_SKIPPED, fingerprint=replica.fingerprint, why=change.why)

    async def _request(
        self, fingerprint: str, folded: Folded, stored: Snapshot, moment: Moment
    ) -> tuple[Header, Commit]:  # fmt: skip
        """Return the commit that stores a result, and the header that it makes."""
        changes = [change for change, _ in folded.applied]
        last, result, before = changes[-1], folded.result, stored.header
        save_id = new_save_id(self._clock.chance)
        agents = {change.agent_id: None for change in changes if change.agent_id is not None}
        commit = Commit(
            fingerprint=fingerprint,
            save_id=save_id,
            precondition=Precondition.UNCHANGED,
            invalidated_at=stored.invalidated_at or 0,
            may_recreate=all(moment.age(change.login) <= HOLD_LIMIT for change in changes),
            created_at=before.created_at if before else 0,
            ttl=0 if last.mark_only else self._ttl(changes),
            agents=tuple((agent, self._snapshots.affinity_value(agent, fingerprint)) for agent in agents),
            lease=last.lease,
            release=last.release,
            new_login=result.new_login,
            score_change=sum(change.score_change for change in changes),
            indexed=stored.kind is StoredKind.PRESENT,
        )
        if before is not None and result.body is stored.body and not result.new_login:
            if changes[0].ids:  # sent before: a mark in it counts once
                commit = replace(commit, save_id=changes[0].ids[0])
            return before, commit
        header = self._next_header(save_id, last, result.new_login, before, result.body)
        value = await self._snapshots.sealed(fingerprint, result.body, header)
        if before is not None:
            precondition, known = Precondition.MATCHES, before.revision.encode()
        elif stored.kind is StoredKind.CORRUPT:
            precondition, known = Precondition.CORRUPT, stored.damaged
        else:
            precondition, known = Precondition.ABSENT, b""
        return header, replace(commit, value=value, precondition=precondition, known=known)

    def _next_header(
        self, save_id: str, last: Change, new_login: bool, before: Header | None, body: Body
    ) -> Header:  # fmt: skip
        now = self._clock.wall()
        continued = last.login.created_at if last.login.found is Found.STORED else 0
        if before is not None and not new_login:
            continued = before.created_at
        created_at = 0 if new_login else continued
        created_at = created_at or _unlike(round(now * 1000), before)
        return Header(
            token=last.lease.token if last.lease else 0,
            version=before.version + 1 if before else 1,
            save_ids=(save_id, *(before.save_ids if before else ()))[:REMEMBERED_SAVES],
            created_at=created_at,
            saved_at=round(now * 1000),
            retire_at=self._retire_at(created_at, now, before if not new_login else None, body),
        )

    def _retire_at(self, created_at: int, now: float, before: Header | None, body: Body) -> int:
        config = self._config
        if config.max_age is None and not config.ttl_from_cookies:
            return before.retire_at if before is not None else 0
        limits = [] if config.max_age is None else [created_at + round(config.max_age * 1000)]
        if config.ttl_from_cookies:
            life = longest_cookie_life(load(*body)["storage_state"], now)
            if life is not None:
                limits.append(round((now + life) * 1000))
        return min(limits, default=0)

    def _ttl(self, changes: list[Change]) -> float:
        """Return how long to keep it, counted from the latest save, not from when it gets through."""
        now = self._clock.loop()
        return max(0.001, *(min(change.ttl, self._config.ttl) - max(0.0, now - change.made_at) for change in changes))

    async def _read(self, replica: Replica, deadline: float) -> tuple[Snapshot, Moment]:
        asked_at = self._clock.loop()
        reply = await self._store.read(replica.fingerprint, deadline - self._store.time())
        now = self._clock.now(reply.now)
        snapshot = await self._snapshots.opened(
            replica.fingerprint, reply.value, asked_at, replica.base, invalidated_at=reply.invalidated_at
        )
        self.replicas.observe(replica, snapshot)
        return snapshot, now

    # Waiting ---------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Start writing what waits, as soon as the breakers let a request pass."""
        self._changed.set()
        if self._flusher is None or self._flusher.done():
            self._flusher = self._spawn(self._flush_in_background(), "flusher")

    async def flush(self, fingerprint: str, budget: float) -> bool:
        """Write what waits of one session; return whether nothing of it waits any more."""
        replica = self.replicas.find(fingerprint)
        if replica is not None and replica.outbox and not replica.writing:
            await self._write(replica, [], budget)
        return replica is None or not replica.outbox

    async def _flush_in_background(self) -> None:
        pause = _SHORTEST_PAUSE
        while self.replicas.pending:
            await self._until_one_is_allowed()
            for replica in self.replicas.waiting():
                if self._closed_for(replica) > 0:  # its server is away; others may be back
                    continue
                await asyncio.sleep(pause * self._clock.chance.uniform(0.5, 1.0))
                done = await self.flush(replica.fingerprint, self._config.save_timeout)
                pause = 1 / _FLUSH_RATE if done else min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, pause * 2))

    def _closed_for(self, replica: Replica) -> float:
        return self._store.guard.at(self._store.server_of(replica.fingerprint)).write.retry_in

    async def _until_one_is_allowed(self) -> None:
        while (soonest := min(map(self._closed_for, self.replicas.waiting()), default=0.0)) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(soonest, 3600.0)):
                    await self._changed.wait()

    async def finish(self, budget: float) -> None:
        """Write what still waits within `budget` seconds, and report what could not be."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        servers = {self._store.server_of(replica.fingerprint) for replica in self.replicas.waiting()}
        for server in servers:  # this is the last chance, and nobody else waits behind it
            self._store.guard.at(server).write.reset()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(budget):
                while self._writing:
                    self._changed.clear()
                    await self._changed.wait()
                await asyncio.gather(*(self._empty(server, budget) for server in servers))
        if self.disk is not None:
            await self.disk.finish(budget)
        self._closed = True
        for replica in self.replicas.waiting():
            on_disk = self.disk is not None and self.disk.holds(replica)
            for change in list(replica.outbox):
                change.settle(SaveOutcome.SPOOLED if on_disk else SaveOutcome.LOST)
                if not on_disk:
                    self._lost(replica.fingerprint, "the store was away until the close")

    async def _empty(self, server: str, budget: float) -> None:
        """Write what waits for one server, until nothing does."""
        while True:
            mine = (one for one in self.replicas.waiting() if self._store.server_of(one.fingerprint) == server)
            first = next(mine, None)
            if first is None:
                return
            if not await self.flush(first.fingerprint, budget):
                await asyncio.sleep(max(_SHORTEST_PAUSE, min(self._closed_for(first), budget / 4)))

    def adopt(self, replica: Replica, changes: Sequence[Change]) -> None:
        """Take over changes that an earlier process has left."""
        self._enqueue(replica, changes)

    # Invalidating ----------------------------------------------------------------------------------------------------

    async def invalidate(self, fingerprint: str) -> bool:
        """Delete a session for everyone; return whether there was one.

        Raises:
            AttemptFailed: the store did not do it. This process does not use the session any more.
        """
        replica, began = self.replicas.of(fingerprint), self._clock.loop()
        waiting = list(replica.outbox)
        for change in waiting:
            change.settle(SaveOutcome.STALE, "the session was invalidated")
        self._settled(replica, waiting)
        replica.invalidated_at = began
        replica.base = Snapshot(kind=StoredKind.UNKNOWN, heard_at=began)
        # Which session is meant is settled now: a request that arrives late leaves a newer login alone.
        deadline = self._store.time() + self._config.save_timeout
        stored, _ = await self._read(replica, deadline)
        replica.base = Snapshot(kind=StoredKind.UNKNOWN, heard_at=self._clock.loop())
        return await self._store.invalidate(
            fingerprint, deadline - self._store.time(), ttl=TOMBSTONE_TTL,
            request_id=new_save_id(self._clock.chance), created_at=stored.header.created_at if stored.header else 0,
        )  # fmt: skip


def _confirm(batch: list[Change], stored: Snapshot) -> None:
    """Settle the changes that the stored session contains already: the reply to their commit was lost."""
    if stored.header is None:
        return
    for change in batch:
        if change.outcome is None and not change.mark_only and not set(change.ids).isdisjoint(stored.header.save_ids):
            change.settle(SaveOutcome.SAVED)
            change.login.found, change.login.created_at = Found.STORED, stored.header.created_at


def _refuse(replica: Replica, folded: Folded) -> None:
    for change, refused in folded.refused:
        change.settle(refused.outcome, refused.why)
        log.debug(Event.SAVE_SKIPPED, fingerprint=replica.fingerprint, why=refused.why)


def _next_group(batch: list[Change]) -> list[Change]:
    """Return the changes to send together: those without a lease, or one with a lease."""
    open_changes = [change for change in batch if change.outcome is None]
    if not open_changes:
        return []
    first = open_changes[0]
    if first.lease is not None or first.mark_only:
        return [first]
    group = []
    for change in open_changes:
        if change.lease is not None or change.mark_only:
            break
        group.append(change)
    return group


def _unlike(now: int, before: Header | None) -> int:
    """Return a time of creation that no other login of this key has."""
    return now if before is None or before.created_at != now else now + 1


def _as_stored(header: Header, reply: CommitReply) -> Header:
    """Return a header as the commit script has patched it."""
    return replace(
        header,
        invalidated_at=reply.invalidated_at,
        uses=reply.uses,
        score=reply.score,
        saved_at=reply.saved_at,
        ttl=reply.ttl,
    )
