"""`SessionManager`: what lives as long as the process or its event loop. Must never be needed twice for one store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from session_reuse.config import Config, redacted_url
from session_reuse.errors import (
    ConfigurationError,
    CorruptStateError,
    LifecycleError,
    ManagerClosedError,
    SessionReuseError,
)
from session_reuse.lifecycle.options import VisitOptions
from session_reuse.lifecycle.services import Services
from session_reuse.lifecycle.verdicts import invalidate
from session_reuse.lifecycle.visit import Visit
from session_reuse.lifecycle.waiting import Flusher
from session_reuse.observe.logs import Event, log
from session_reuse.observe.metrics import Metrics, metrics_for
from session_reuse.outcome import Outcome, SaveOutcome
from session_reuse.resilience.breaker import BreakerState
from session_reuse.resilience.failure import Failure
from session_reuse.resilience.guard import Direction, Guard
from session_reuse.resilience.pending import PendingSaves
from session_reuse.session import BrowserSession
from session_reuse.state.header import Header
from session_reuse.state.sealing import AesGcm
from session_reuse.store.connect import Connection, check_client, connect
from session_reuse.store.interface import Listed, Store
from session_reuse.store.keys import Keys, checked
from session_reuse.store.redis_store import RedisStore
from session_reuse.transfer import codec_for

if TYPE_CHECKING:
    from session_reuse.cleanup.reconcile import CleanupReport

if TYPE_CHECKING:
    from session_reuse.lifecycle.spooling import Spooler

_EMBEDDED_START: float = 2.0
"""How long the very first enter may wait for a private server to start; it goes on starting after that."""
_LISTING_TIMEOUT: float = 5.0


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """What a listing shows of a session: nothing of what is in it.

    Attributes:
        version: number of saves; None when the value is not a session of ours.
        created_at: first save, unix seconds.
        saved_at: last save, unix seconds.
        ttl: seconds to live; None for ever.
        size: bytes stored.
        uses: reuses, as far as agents count them.
        error_score: bad marks minus half of the good ones.
        encrypted: whether the body is.
    """

    fingerprint: str
    version: int | None
    created_at: float | None
    saved_at: float | None
    ttl: float | None
    size: int
    uses: int = 0
    error_score: float = 0.0
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class ManagerStats:
    """What this process has done so far.

    Attributes:
        entered: enters by outcome.
        saved: saves by outcome.
        pending: saves that wait for the store.
        flushed: waiting saves that got through.
        lost: waiting saves given up.
        breakers: state of the breaker for reads and for writes.
    """

    entered: dict[str, int]
    saved: dict[str, int]
    pending: int
    flushed: int
    lost: int
    breakers: dict[str, str]

    @property
    def reuse_rate(self) -> float:
        """Share of enters that reused a session; 0 before the first."""
        total = sum(self.entered.values())
        return self.entered.get(Outcome.REUSED.value, 0) / total if total else 0.0


class SessionManager:
    """Connections, breakers, waiting saves and background work for one store, within one event loop.

    Args:
        url_or_client: a URL (see `Config.url`), an asyncio redis-py client without `decode_responses`, or a store
            with the interface of `session_reuse.store.interface.Store`. A client or store stays yours to close.
        config: fields of `Config`; they win over the environment.

    Raises:
        ConfigurationError: a setting is wrong; the message names it.
    """

    def __init__(self, url_or_client: Any = None, **config: Any) -> None:
        self._given: Any = None
        if isinstance(url_or_client, str):
            config["url"] = url_or_client
        elif url_or_client is not None:
            self._given = url_or_client
            if not hasattr(url_or_client, "enter"):
                check_client(url_or_client)
        self.config = Config.from_env(**config)
        self._services: Services | None = None
        self._connection: Connection | None = None
        self._flusher: Flusher | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Lock | None = None
        self._reviving: asyncio.Task[None] | None = None
        self._closed = False
        self._loop_end: AsyncIterator[None] | None = None

    # Life ------------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Make ready; connects to nothing yet, except that `embedded://` starts its server."""
        await self.services()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    async def services(self) -> Services:
        """Return what visits share, making it the first time.

        Raises:
            ManagerClosedError: the manager was closed.
            LifecycleError: it belongs to another event loop.
        """
        if self._services is not None and self._loop is asyncio.get_running_loop():
            if self._closed:
                raise ManagerClosedError("this SessionManager is closed: make a new one")
            return self._services
        return await self._start()

    async def _start(self) -> Services:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ManagerClosedError("this SessionManager is closed: make a new one")
        if self._loop is not None and self._loop is not loop:
            raise LifecycleError("this SessionManager belongs to another event loop: make one for each loop")
        if self._starting is None:
            self._loop, self._starting = loop, asyncio.Lock()
        async with self._starting:
            if self._services is None:
                self._services = await self._made()
            return self._services

    async def _made(self) -> Services:
        config = self.config
        codec = await asyncio.to_thread(codec_for, config) if callable(config.encryption_keys) else codec_for(config)
        keys = Keys(config.key_prefix, config.deadline_buckets)
        metrics = metrics_for(config.registry)
        services = Services(
            config=config,
            keys=keys,
            store=await self._store(keys),
            guard=Guard(attempt_timeout=config.attempt_timeout, on_change=_breaker_listener(metrics)),
            codec=codec,
            metrics=metrics,
            pending=PendingSaves(config.pending_max, config.pending_max_bytes),
            on_failure=self._revive,
        )
        self._flusher = flusher = Flusher(services)
        services.on_pending = flusher.wake
        services.spooler = _spooler_for(services)
        for breaker in (services.guard.read, services.guard.write):
            breaker.on_change.append(_recovery_listener(services, flusher))
        return services

    async def _store(self, keys: Keys) -> Store:
        config = self.config
        if self._given is not None and hasattr(self._given, "enter"):
            store: Store = self._given
            return store
        if self._given is not None:
            self._connection = Connection(self._given)
        else:
            self._connection = connect(config)
            if self._connection.revive is not None:
                await self._start_private_server(self._connection.revive)
        return RedisStore(
            self._connection.client,
            keys,
            lanes=config.lanes,
            wait=(config.wait_replicas, config.wait_timeout),
            own_client=self._given is None,
        )

    @staticmethod
    async def _start_private_server(start: Callable[[], None]) -> None:
        """Start the embedded server; if it takes long, enters degrade meanwhile as for any store that is away."""
        starting = asyncio.create_task(asyncio.to_thread(start))
        done, _ = await asyncio.wait({starting}, timeout=_EMBEDDED_START)
        error = starting.exception() if done else TimeoutError()
        if isinstance(error, ConfigurationError):
            raise error
        if error is None:
            log.info(Event.EMBEDDED_STARTED, note="no Redis configured: using a private redis-server of this user")
        else:
            log.warning(Event.DEGRADED, operation="start", error=type(error).__name__)

    def _revive(self, failure: Failure) -> None:
        """Start a private server again that has died."""
        if self._connection is None or self._connection.revive is None or failure.error.outcome is Outcome.TIMEOUT:
            return
        if self._services is not None and (self._reviving is None or self._reviving.done()):
            self._reviving = self._services.spawn(self._revived(self._connection), "revive")

    @staticmethod
    async def _revived(connection: Connection) -> None:
        if connection.revive is None:
            return
        try:
            await asyncio.to_thread(connection.revive)
        except SessionReuseError as error:
            log.warning(Event.DEGRADED, operation="revive", error=type(error).__name__)

    async def aclose(self) -> None:
        """Bring waiting saves through within `close_timeout`, report what could not be, and close what is ours."""
        if self._closed:
            return
        self._closed = True
        if self._services is None or self._flusher is None:
            return
        services = self._services
        await self._end_visits(services)
        waiting = await self._flusher.finish(self.config.close_timeout)
        if services.spooler is not None:
            await services.spooler.finish(self.config.close_timeout)
        for request in waiting:
            if services.spooler is None or not services.spooler.holds(request):
                services.lose(request.fingerprint, "the store was away until the close")
        tasks = list(services.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._close_store(services)

    async def _end_visits(self, services: Services) -> None:
        """Let saves that are under way come to their end."""
        saves = [task for task in services.tasks if task.get_name() in {"session_reuse:leave", "session_reuse:release"}]
        if saves:
            await asyncio.wait(saves, timeout=self.config.save_timeout)

    async def _close_store(self, services: Services) -> None:
        if self._given is None or not hasattr(self._given, "enter"):
            try:
                async with asyncio.timeout(self.config.connect_timeout):
                    await services.store.aclose()
            except (TimeoutError, OSError):
                log.debug(Event.DEGRADED, operation="close")
        if self._connection is not None and self._connection.release is not None:
            await asyncio.to_thread(self._connection.release)

    # Sessions ----------------------------------------------------------------------------------------------------------

    async def open(
        self,
        fingerprint: str | None,
        agent_id: str | None,
        options: VisitOptions,
        session_class: type[BrowserSession] = BrowserSession,
    ) -> tuple[BrowserSession, Visit]:
        """Enter a session; what `reusable_session` does first."""
        services = await self.services()
        began = monotonic()
        if agent_id is not None:
            checked(agent_id, "agent_id")
        if fingerprint is None:
            fingerprint = await self._last_fingerprint(services, agent_id)
        session = session_class(checked(fingerprint, "fingerprint"), agent_id)
        visit = Visit(services, session, options)
        await visit.enter(spent=monotonic() - began)
        return session, visit

    async def _last_fingerprint(self, services: Services, agent_id: str | None) -> str:
        if agent_id is None:
            raise LifecycleError("give a fingerprint, or an agent_id whose last fingerprint is to be used")
        name = agent_id

        async def attempt(timeout: float) -> str | None:
            return await services.store.affinity(name, timeout=timeout)

        try:
            found = await services.guard.run(Direction.READ, attempt, self.config.restore_timeout / 2)
        except Failure as failure:
            services.note_failure("restore", failure, f"agent/{name}")
            found = services.last_fingerprints.get(name)
        return found or f"agent/{name}"

    async def restore(self, fingerprint: str, agent_id: str | None = None) -> BrowserSession | None:
        """Return the stored session, or None: nothing there, nothing usable, or the store is away.

        The session knows what it was restored from: change it and give it to `save`.
        """
        session, _ = await self.open(fingerprint, agent_id, VisitOptions.build(self.config))
        return session if session.reused else None

    async def save(self, session: BrowserSession) -> SaveOutcome:
        """Save a session, one from `restore` or one made by hand.

        A session from `restore` is merged with what others have saved since. One made by hand replaces what is stored.
        Trouble of the store is an outcome: PENDING, or SKIPPED where a good state is found that could not be looked at
        before.

        Raises:
            InvalidStateError: the session holds something that cannot be stored.
        """
        services = await self.services()
        if isinstance(session.keeper, Visit) and session.keeper.belongs_to(services):
            return await session.keeper.checkpoint(session)
        checked(session.fingerprint, "fingerprint")
        if session.agent_id is not None:
            checked(session.agent_id, "agent_id")
        visit = Visit(services, session, VisitOptions.build(self.config))
        await visit.look()
        return await visit.checkpoint(session)

    async def evict(self, fingerprint: str, reason: str = "") -> bool:
        """Delete a stored session for everyone and refuse late saves of all who hold it now.

        Returns:
            Whether there was one.

        Raises:
            StoreError: the store could not be told; the session may still be there.
        """
        return await invalidate(await self.services(), checked(fingerprint, "fingerprint"), reason)

    async def affinity(self, agent_id: str) -> str | None:
        """Return the fingerprint that this agent used last; None when there is none or the store is away."""
        services = await self.services()
        name = checked(agent_id, "agent_id")

        async def attempt(timeout: float) -> str | None:
            return await services.store.affinity(name, timeout=timeout)

        try:
            return await services.guard.run(Direction.READ, attempt, self.config.restore_timeout)
        except Failure as failure:
            services.degraded("restore", failure, f"agent/{name}")
            return None

    async def sessions(self) -> AsyncIterator[SessionSummary]:
        """Yield a summary of each stored session, by cursor, without reading what is in it.

        Raises:
            StoreError: the store is away.
        """
        services = await self.services()
        try:
            async for listed in services.store.sessions(timeout=_LISTING_TIMEOUT):
                yield _summary(listed)
        except Failure as failure:
            raise failure.error from None

    async def cleanup(self) -> None:
        """Remove what expired sessions leave behind, until cancelled or until the manager is closed.

        Calls `on_expired` once for each of them. Several of these may run at once, in any number of processes.

        Raises:
            ConfigurationError: the store is not a Redis.
        """
        from session_reuse.cleanup.job import cleanup

        services = await self.services()
        job = services.spawn(cleanup(services), "cleanup")
        try:
            await job
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is None or current.cancelling():
                raise

    async def cleanup_once(self) -> CleanupReport:
        """Do one pass of the clean-up, and say what it did.

        Raises:
            ConfigurationError: the store is not a Redis.
            StoreError: the store, or a part of it, could not be asked; what could be was done.
        """
        from session_reuse.cleanup.job import cleanup_once

        try:
            return await cleanup_once(await self.services())
        except Failure as failure:
            raise failure.error from None

    def stats(self) -> ManagerStats:
        """Return what this process has done so far."""
        services = self._services
        if services is None:
            return ManagerStats({}, {}, 0, 0, 0, {})
        counts, guard = services.counts, services.guard
        return ManagerStats(
            entered=dict(counts.entered),
            saved=dict(counts.saved),
            pending=len(services.pending),
            flushed=counts.flushed,
            lost=counts.lost,
            breakers={"read": guard.read.state.value, "write": guard.write.state.value},
        )

    def __repr__(self) -> str:
        """Show where it points and whether it is open."""
        where = redacted_url(self.config.url) if self._given is None else type(self._given).__name__
        return f"<SessionManager {where} {'closed' if self._closed else 'open'}>"


def _breaker_listener(metrics: Metrics) -> Any:
    def changed(name: str, old: BreakerState, new: BreakerState) -> None:
        metrics.breaker_changed(name, new.value)
        log.info(Event.BREAKER_CHANGED, breaker=name, old=old.value, new=new.value)

    return changed


def _recovery_listener(services: Services, flusher: Flusher) -> Any:
    def changed(_name: str, old: BreakerState, new: BreakerState) -> None:
        if new is not BreakerState.CLOSED:
            return
        if old is BreakerState.HALF_OPEN:
            services.credentials_work()
        if services.pending:
            flusher.wake()
        if services.spooler is not None:
            services.spooler.replay()

    return changed


def _spooler_for(services: Services) -> Spooler | None:
    config = services.config
    if config.spool_dir is None:
        return None
    from session_reuse.lifecycle.spooling import Spooler
    from session_reuse.resilience.spool import Spool

    seal = services.codec.seal
    if not isinstance(seal, AesGcm):
        raise ConfigurationError("spool_dir needs encryption_keys: sessions are never written to disk in plain")
    spool = Spool(
        config.spool_dir,
        seal,
        max_entries=config.pending_max,
        max_bytes=config.pending_max_bytes,
        max_content=4 * config.max_state_bytes,
        ttl=config.ttl,
    )
    spooler = Spooler(services, spool)
    spooler.replay()
    return spooler


def _summary(listed: Listed) -> SessionSummary:
    try:
        header = Header.decode(listed.head)
    except CorruptStateError:
        return SessionSummary(listed.fingerprint, None, None, None, listed.ttl, listed.size)
    return SessionSummary(
        listed.fingerprint,
        header.version,
        header.created_at / 1000,
        header.saved_at / 1000,
        listed.ttl,
        listed.size,
        header.uses,
        header.score / 10,
        header.flags[1] != "-",
    )


# The default manager of each event loop -------------------------------------------------------------------------------

_defaults: WeakKeyDictionary[asyncio.AbstractEventLoop, SessionManager] = WeakKeyDictionary()
_guard = threading.Lock()


async def default_manager() -> SessionManager:
    """Return this event loop's own manager, made from the environment; it is closed when the loop ends."""
    loop = asyncio.get_running_loop()
    with _guard:
        manager = _defaults.get(loop)
        if manager is None or manager._closed:  # noqa: SLF001  (its own module)
            manager = _defaults[loop] = SessionManager()
            fresh = True
        else:
            fresh = False
    if fresh:
        manager._loop_end = _until_loop_ends(loop, manager)  # noqa: SLF001  (its own module)
        await anext(manager._loop_end)  # noqa: SLF001
    return manager


async def _until_loop_ends(loop: asyncio.AbstractEventLoop, manager: SessionManager) -> AsyncIterator[None]:
    """Close the manager with its loop: `asyncio.run` closes the asynchronous generators that are left."""
    try:
        yield
    finally:
        await manager.aclose()
        _defaults.pop(loop, None)
