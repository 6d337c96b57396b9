"""Mirrors waiting saves onto disk and brings back what an earlier process has left. Must never block the event loop."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from session_reuse._telemetry import Event, log
from session_reuse.errors import CorruptStateError
from session_reuse.lifecycle.request import SaveRequest
from session_reuse.lifecycle.spooled_save import packed, unpacked
from session_reuse.lifecycle.waiting import joined
from session_reuse.resilience.spool import ForeignKeyError, Identity, Spool

if TYPE_CHECKING:
    from session_reuse.lifecycle.services import Services

_CLAIM_POLL: Final = 2.0


class Spooler:
    """Keeps a spool in step with the waiting saves of one manager.

    Args:
        services: the manager's; its waiting saves are mirrored from here on.
        spool: the folder.
    """

    def __init__(self, services: Services, spool: Spool) -> None:
        self._services = services
        self._spool = spool
        self._wanted: dict[str, SaveRequest | None] = {}
        self._on_disk: dict[str, tuple[SaveRequest, str, Identity]] = {}
        self._left_behind: set[str] = set()
        """Fingerprints of saves found in the spool and not delivered yet; meanwhile we hold the claim."""
        self._foreign: set[str] = set()
        self._stepped = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._replaying: asyncio.Task[None] | None = None
        self._closed = self._reading = False
        services.pending.mirror = self._mirror

    def holds(self, request: SaveRequest) -> bool:
        """Return whether this very save is on disk."""
        found = self._on_disk.get(request.fingerprint)
        return found is not None and found[0] is request

    def replay(self) -> None:
        """Begin to bring back what an earlier process has left, unless that is under way."""
        if not self._closed and (self._replaying is None or self._replaying.done()):
            self._replaying = self._services.spawn(self._replay(), "replay")

    async def written(self, fingerprint: str, patience: float) -> bool:
        """Wait at most `patience` seconds for the disk; return whether the save that waits is on it."""
        try:
            async with asyncio.timeout(patience):
                while fingerprint in self._wanted:
                    await self._stepped.wait()
        except TimeoutError:
            return False
        waiting = self._services.pending.get(fingerprint)
        return waiting is not None and self.holds(waiting)

    async def finish(self, patience: float) -> None:
        """Wait at most `patience` seconds for all that is to be written, and let other processes deliver."""
        self._closed = True
        if self._replaying is not None:
            self._replaying.cancel()
        if self._worker is not None:
            await asyncio.wait({self._worker}, timeout=patience)
        self._spool.end_claim()

    # Writing ---------------------------------------------------------------------------------------------------------

    def _mirror(self, fingerprint: str, request: SaveRequest | None) -> None:
        self._wanted.pop(fingerprint, None)
        if request is None or not self.holds(request):
            self._want(fingerprint, request)

    def _want(self, fingerprint: str, request: SaveRequest | None) -> None:
        self._wanted[fingerprint] = request
        if self._worker is None or self._worker.done():
            self._worker = self._services.spawn(self._work(), "spool")

    async def _work(self) -> None:
        while self._wanted:
            fingerprint, request = next(iter(self._wanted.items()))
            try:
                await (self._forget(fingerprint) if request is None else self._keep(request))
            except OSError as error:
                self._on_disk.pop(fingerprint, None)
                log.warning(Event.SPOOL_FAILED, fingerprint=fingerprint, error=type(error).__name__, errno=error.errno)
            if self._wanted.get(fingerprint, ...) is request:
                del self._wanted[fingerprint]
            self._stepped.set()
            self._stepped = asyncio.Event()

    async def _keep(self, request: SaveRequest) -> None:
        known = self._on_disk.get(request.fingerprint)
        kept, name, identity, dropped = await asyncio.to_thread(self._written, request, known and known[2])
        self._on_disk[request.fingerprint] = kept, name, identity
        if kept is not request and self._services.pending.get(request.fingerprint) is request:
            self._services.pending.put(kept)
        if dropped:
            log.warning(
                Event.SPOOL_FAILED, dropped=len(dropped), why="pending_max or pending_max_bytes is reached on disk"
            )

    def _written(self, request: SaveRequest, known: Identity | None) -> tuple[SaveRequest, str, Identity, list[str]]:
        """Write a save, joined with one that another process has put in its place."""
        spool = self._spool
        name, *older = spool.names_of(request.fingerprint)
        with spool.exclusive():
            for each in (name, *older):
                if spool.identity(each) != known and (other := self._loaded(each)) is not None:
                    request = joined(other[0], request)
            identity = spool.write(name, packed(request), request.saved_at)
            for each in older:
                if (replaced := spool.identity(each)) is not None:
                    spool.remove(each, replaced)
            return request, name, identity, spool.make_room(keep=name)

    async def _forget(self, fingerprint: str) -> None:
        found = self._on_disk.pop(fingerprint, None)
        if found is not None:
            await asyncio.to_thread(self._removed, found[1], found[2])
        self._left_behind.discard(fingerprint)
        self._end_claim()

    def _removed(self, name: str, identity: Identity) -> None:
        with self._spool.exclusive():
            self._spool.remove(name, identity)

    # Reading ---------------------------------------------------------------------------------------------------------

    async def _replay(self) -> None:
        self._reading = True
        try:
            while not await asyncio.to_thread(self._spool.claim):
                await asyncio.sleep(_CLAIM_POLL * random.uniform(0.5, 1.0))
            for name in await asyncio.to_thread(self._spool.names):
                await self._bring_back(name)
        except OSError as error:
            log.warning(Event.SPOOL_FAILED, error=type(error).__name__, errno=error.errno)
        finally:
            self._reading = False
        self._end_claim()

    def _end_claim(self) -> None:
        """Let another process deliver, once all that we have found is through."""
        if not self._left_behind and not self._reading:
            self._spool.end_claim()

    async def _bring_back(self, name: str) -> None:
        services, pending = self._services, self._services.pending
        known = {found[1]: found[2] for found in self._on_disk.values()}
        if await asyncio.to_thread(self._spool.identity, name) == known.get(name):
            return
        found = await asyncio.to_thread(self._loaded, name)
        if found is None:
            return
        request, identity = found
        mine = pending.get(request.fingerprint)
        if mine is not None:
            self._want(request.fingerprint, mine)  # writing it finds the file and joins the two
        elif pending.has_room(request.size):
            self._left_behind.add(request.fingerprint)
            self._on_disk[request.fingerprint] = request, name, identity
            pending.put(request)
            services.telemetry.pending(len(pending))
            log.debug(Event.SAVE_PENDING, fingerprint=request.fingerprint, waiting=len(pending), source="spool")
            services.on_pending()

    def _loaded(self, name: str) -> tuple[SaveRequest, Identity] | None:
        try:
            found = self._spool.read(name)
            return None if found is None else (unpacked(found.content), found.identity)
        except ForeignKeyError:
            if name not in self._foreign:
                self._foreign.add(name)
                log.warning(Event.SPOOL_REJECTED, file=name, why="sealed with another key; left where it is")
        except CorruptStateError as error:
            log.warning(Event.SPOOL_REJECTED, file=name, why=str(error))
            self._spool.reject(name)
        return None
