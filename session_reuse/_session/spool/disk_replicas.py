"""The replicas on disk: changes that wait survive the process, and a new one starts from what the last one knew.

Each session has two files, sealed: its base and its outbox. A file is changed under a lock, by reading it, taking out what
is settled and adding new changes, so processes that share the folder lose nothing of each other.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from session_reuse._session.changes import NEVER_HEARD, Change, Login, Snapshot, StoredKind
from session_reuse._session.clock import Clock
from session_reuse._session.replica import Replica
from session_reuse._session.spool.files import ForeignKeyError, Spool
from session_reuse._session.spool.packing import (
    packed_base,
    packed_change,
    packed_outbox,
    unpacked,
    unpacked_base,
    unpacked_change,
)
from session_reuse._session.tasks import Spawn, on_disk_thread
from session_reuse._session.writer import Writer
from session_reuse._state.codec import Codec
from session_reuse._state.sealing import AesGcm
from session_reuse._stored_form import new_save_id
from session_reuse._telemetry import Event, log
from session_reuse.config import Config
from session_reuse.errors import ConfigurationError, CorruptStateError, UnreadableStateError
from session_reuse.outcome import SaveOutcome

_CLAIM_POLL: Final = 2.0
_RETRY: Final = 5.0
"""Seconds until what could not be written is tried again."""
_RESCAN: Final = 30.0
"""Seconds between two looks for what processes have left that ended meanwhile."""
_LEAST_PATIENCE: Final = 0.03
"""Seconds for which the disk is waited for even when a budget is used up."""


def disk_replicas(config: Config, codec: Codec, writer: Writer, clock: Clock, spawn: Spawn) -> DiskReplicas:
    """Return the disk copies of a manager's replicas, in `spool_dir`.

    Raises:
        ConfigurationError: there are no keys to seal them with.
    """
    if config.spool_dir is None or not isinstance(codec.seal, AesGcm):
        raise ConfigurationError("spool_dir needs encryption_keys: sessions are never written to disk in plain")
    spool = Spool(
        config.spool_dir, codec.seal, max_entries=config.pending_max, max_bytes=config.pending_max_bytes,
        max_content=4 * max(config.pending_max_bytes, config.max_state_bytes), ttl=config.ttl,
        key_prefix=config.key_prefix, wall_clock=clock.wall,
    )  # fmt: skip
    disk = DiskReplicas(spool, writer, clock, spawn)
    disk.replay()
    spawn(disk.replay_again(), "replay")
    return disk


@dataclass(slots=True)
class _Update:
    """The data to write of one session: the base, the changes that wait, the names of those that do not wait any more.

    Attributes:
        forgets: whether the base on disk goes.
        copies: the changes as they are now, for a thread: they may be combined meanwhile.
    """

    base: Snapshot | None = None
    forgets: bool = False
    changes: list[Change] = field(default_factory=list)
    copies: list[Change] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)


class DiskReplicas:
    """Keeps files in step with the replicas of one manager.

    Attributes:
        on_disk: fingerprint -> name -> change of those that wait and are on disk.
    """

    def __init__(self, spool: Spool, writer: Writer, clock: Clock, spawn: Spawn) -> None:
        self._spool = spool
        self._writer = writer
        self._clock = clock
        self._spawn = spawn
        self.on_disk: dict[str, dict[str, Change]] = {}
        self._dirty: dict[str, Replica] = {}
        self._unwritten: dict[str, None] = {}
        self._at_work = ""
        self._invalidated: set[str] = set()
        self._foreign: set[str] = set()
        self._stepped = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._retrying: asyncio.Task[None] | None = None
        self._replaying: asyncio.Task[None] | None = None
        self._writes = 0
        self._closed = False
        self._is_failing = False

    def changed(self, replica: Replica) -> None:
        """Write a replica soon."""
        self._dirty[replica.fingerprint] = replica
        if self._worker is None or self._worker.done():
            self._worker = self._spawn(self._work(), "spool")

    def forget(self, replica: Replica) -> None:
        """Remove the base of a session that was invalidated: no process starts from it any more."""
        self._invalidated.add(replica.fingerprint)
        self.changed(replica)

    def leaves(self, change: Change) -> bool:
        """Return whether a change that was dropped for room stays on disk: another process was told that it is kept."""
        return change.is_adopted and change.outcome is SaveOutcome.LOST

    def holds(self, replica: Replica, change: Change) -> bool:
        """Return whether a change that waits is on disk."""
        return self.on_disk.get(replica.fingerprint, {}).get(change.name) is change

    async def written(self, fingerprint: str, budget: float) -> bool:
        """Wait at most `budget` seconds for the disk. Return whether all that waits of a session is on it."""
        try:
            async with asyncio.timeout(max(_LEAST_PATIENCE, budget)):
                while fingerprint in self._dirty or fingerprint == self._at_work:
                    await self._stepped.wait()
        except TimeoutError:
            return False
        replica = self._writer.replicas.find(fingerprint)
        return (
            replica is not None
            and bool(replica.outbox)
            and all(self.holds(replica, change) for change in replica.outbox)
        )

    async def finish(self, patience: float) -> None:
        """Adopt nothing any more, and wait at most `patience` seconds for all that is to be written."""
        self._closed = True
        if self._replaying is not None:
            self._replaying.cancel()
        self._write_again(list(self._unwritten))  # the last chance
        if self._worker is not None:
            await asyncio.wait({self._worker}, timeout=patience)

    def close(self) -> None:
        """Let other processes deliver, also after a close that was cancelled."""
        self._closed = True
        self._spool.end_claim()

    # Writing ---------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while self._dirty:
            fingerprint, replica = next(iter(self._dirty.items()))
            del self._dirty[fingerprint]
            self._at_work = fingerprint
            update = self._update_of(replica)
            try:
                failure = await on_disk_thread(partial(self._write, fingerprint, update))
            except OSError as error:  # what was on disk before is still there
                failure = error
                if update.forgets:
                    self._invalidated.add(fingerprint)
            else:
                self.on_disk[fingerprint] = {change.name: change for change in update.changes}
                if not update.changes:
                    del self.on_disk[fingerprint]
            if failure is not None:
                replica.base_on_disk = NEVER_HEARD.heard_at
                self._failed(failure, fingerprint)
                self._unwritten.pop(fingerprint, None)
                self._unwritten[fingerprint] = None  # as the last one: it may be too large for the room that is left
                if self._retrying is None or self._retrying.done():
                    self._retrying = self._spawn(self._retry(), "spool")
            else:
                self._unwritten.pop(fingerprint, None)
                self._is_failing &= not update.changes and update.base is None
            self._at_work = ""
            self._writes += 1
            self._stepped.set()
            self._stepped = asyncio.Event()

    async def _retry(self) -> None:
        """Write what could not be written, one session after the other, with a pause while there is no room."""
        await asyncio.sleep(_RETRY)
        while self._unwritten and not self._closed:
            fingerprint = next(iter(self._unwritten))
            self._write_again([fingerprint])
            await self.written(fingerprint, _RETRY)
            if fingerprint in self._unwritten:
                await asyncio.sleep(_RETRY)

    def _write_again(self, fingerprints: Sequence[str]) -> None:
        for fingerprint in fingerprints:
            self.changed(self._writer.replicas.of(fingerprint))

    def _failed(self, error: OSError, fingerprint: str) -> None:
        """Log trouble of the disk: once as a warning, until a file is written again. A retry that fails is no news."""
        name, why = type(error).__name__, f"{self._spool.folder}: {error.strerror or 'no answer within the budget'}"
        if self._is_failing or fingerprint in self._unwritten:
            log.debug(Event.SPOOL_FAILED, fingerprint=fingerprint, error=name, errno=error.errno, why=why)
        else:
            log.warning(Event.SPOOL_FAILED, fingerprint=fingerprint, error=name, errno=error.errno, why=why)
        self._is_failing = True

    def _update_of(self, replica: Replica) -> _Update:
        for change in replica.outbox:
            change.name = change.name or new_save_id()
            change.mark_id = change.mark_id or change.name
        update = _Update(changes=list(replica.outbox), copies=list(map(copy, replica.outbox)))
        known = self.on_disk.get(replica.fingerprint, {})
        gone = set(known) - {change.name for change in replica.outbox}
        update.ended = {name for name in gone if not self.leaves(known[name])}
        update.forgets = replica.fingerprint in self._invalidated
        self._invalidated.discard(replica.fingerprint)
        base = replica.base
        if base.kind is not StoredKind.UNKNOWN and replica.base_on_disk != base.heard_at:
            replica.base_on_disk, update.base = base.heard_at, base
        return update

    def _write(self, fingerprint: str, update: _Update) -> OSError | None:
        """Update both files of a session. Return why the base is not there, if it is not. Blocks."""
        spool, elapsed, wall = self._spool, self._clock.elapsed(), self._clock.wall()
        name, *older = spool.names_of(fingerprint)
        with spool.exclusive():
            for each in (name, *older) if update.forgets else ():
                spool.remove(spool.base_name(each))
            failure = self._write_base(fingerprint, update.base, elapsed, wall) if update.base is not None else None
            mine = {change.name for change in update.copies} | update.ended
            others = [
                packed for each in (name, *older) for packed in self._packed_changes(each) if packed["name"] not in mine
            ]
            packed = others + [packed_change(change, elapsed, wall) for change in update.copies]
            if packed:
                oldest = min(change["made_at"] for change in packed)
                spool.write(name, packed_outbox(fingerprint, packed), oldest, older)
            for each in older if packed else (name, *older):  # last: a full disk keeps what it has
                spool.remove(each)
            return failure

    def _write_base(self, fingerprint: str, base: Snapshot, elapsed: float, wall: float) -> OSError | None:
        """Write a base. On a full disk, remove the old one: changes that were delivered since would be missing in it."""
        name = self._spool.base_name(self._spool.names_of(fingerprint)[0])
        try:
            self._spool.write(name, packed_base(fingerprint, base, elapsed, wall), wall)
        except OSError as error:
            self._spool.remove(name)
            return error
        return None

    def _packed_changes(self, name: str) -> list[dict[str, Any]]:
        """Return what is in an outbox. Blocks.

        Raises:
            OSError: saves that this process cannot read. They stay.
        """
        found = self._read(name)
        if found is None and name in self._foreign:
            raise OSError(errno.EEXIST, "saves of another process are there, which cannot be read here")
        return [] if found is None else list(found["changes"])

    # Reading ---------------------------------------------------------------------------------------------------------

    def replay(self, older_than: float | None = None) -> None:
        """Begin to adopt what other processes have left, unless that is under way: all of it, or what waits so many seconds."""
        if not self._closed and (self._replaying is None or self._replaying.done()):
            self._replaying = self._spawn(self._replay(older_than), "replay")

    async def replay_again(self) -> None:
        """Adopt what processes leave that end while this one goes on: where all is well, nothing else looks for it."""
        while not self._closed:
            await asyncio.sleep(_RESCAN * self._clock.chance.uniform(0.5, 1.0))
            self.replay(older_than=_RESCAN)

    async def _replay(self, older_than: float | None) -> None:
        spool = self._spool
        try:
            while not await on_disk_thread(spool.claim):
                await asyncio.sleep(_CLAIM_POLL * self._clock.chance.uniform(0.5, 1.0))
            if others := await on_disk_thread(spool.others):
                log.warning(Event.SPOOL_REJECTED, file=str(spool.root), why=others)
            mine = {name for fingerprint in self.on_disk for name in spool.names_of(fingerprint)}
            for name in await on_disk_thread(partial(spool.names, older_than)):
                if older_than is None or name not in mine:
                    await self._take_over(name)
        except OSError as error:
            self._failed(error, "")

    async def load(self, replica: Replica, budget: float) -> None:
        """Fill a replica from disk: what an earlier process knew of the session, and the changes that wait.

        A disk that hangs for `budget` seconds is treated as one that has nothing.
        """
        try:
            async with asyncio.timeout(max(_LEAST_PATIENCE, budget)):
                for name in self._spool.names_of(replica.fingerprint):
                    await self._take_over(name)
        except OSError as error:  # TimeoutError is one, too
            self._failed(error, replica.fingerprint)

    async def _take_over(self, name: str) -> None:
        """Take over both files of a session: an agent that enters while the store is away starts from both."""
        base_name, writes = self._spool.base_name(name), -1
        while writes != self._writes:  # else what was read may be what was there before
            writes = self._writes
            found = await on_disk_thread(partial(self._read, name))
            base = await on_disk_thread(partial(self._read, base_name))
        replicas = self._writer.replicas
        if base is not None:
            replica = replicas.of(base["fingerprint"])
            known = unpacked_base(base, self._clock.elapsed(), self._clock.wall(), replica.base.last_held)
            replicas.observe(replica, known)
        if found is not None:
            self._adopt(replicas.of(found["fingerprint"]), found)

    def _adopt(self, replica: Replica, found: dict[str, Any]) -> None:
        known = self.on_disk.setdefault(replica.fingerprint, {})
        here = {change.name for change in replica.outbox}
        logins: dict[str, Login] = {}
        adopted = []
        for packed in found["changes"]:
            if packed["name"] not in known and packed["name"] not in here:
                change = unpacked_change(packed, logins, self._clock.elapsed(), self._clock.wall())
                known[change.name] = change
                adopted.append(change)
        if not known:
            del self.on_disk[replica.fingerprint]
        if adopted:
            log.debug(Event.SAVE_PENDING, fingerprint=replica.fingerprint, waiting=len(adopted), source="spool")
            self._writer.adopt(replica, adopted)
            order = [packed["name"] for packed in found["changes"]]
            replica.outbox.sort(key=lambda change: order.index(change.name) if change.name in order else len(order))

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return the content of a file; None when there is none that can be used. Blocks."""
        try:
            content = self._spool.read(name)
            found = None if content is None else unpacked(content)
        except (ForeignKeyError, UnreadableStateError) as error:
            if name not in self._foreign:
                self._foreign.add(name)
                log.warning(Event.SPOOL_REJECTED, file=name, why=f"{error}; left where it is")
            return None
        except (CorruptStateError, KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning(Event.SPOOL_REJECTED, file=name, why=str(error))
            self._spool.reject(name)
            return None
        self._foreign.discard(name)
        return found
